"""``tulle proxy`` as a process: from a bootstrap file, and with a real control plane that comes and goes."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.xds_messages import ROUTER

TULLE = [sys.executable, "-m", "control_plane.cli.main"]
WAIT = 30.0
SERVICES = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 80, appProtocol: http}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec:
  mtls: {mode: STRICT}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], what: str, process: Process) -> Any:
    """Poll a condition of another process, within a deadline."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        if process.popen.poll() is not None:
            break
        time.sleep(0.02)
    pytest.fail(f"{what}: not so\n{process.log()}")


class Process:
    """A command of ``tulle`` that runs until it is told to stop."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [*TULLE, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TULLE_CONFIG": ""},
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-5000:]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(timeout=WAIT)


def get(port: int, path: str = "/", host: str | None = None) -> tuple[int, str]:
    """A request to this host; status 0 if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


class App(http.server.BaseHTTPRequestHandler):
    """Says which path was asked for and by whom; ``/slow`` waits to be let go."""

    protocol_version = "HTTP/1.1"
    reached = threading.Event()
    release = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.reached.set()
            self.release.wait(WAIT)
        body = f"{self.path} {self.headers.get('x-forwarded-client-cert', '-')}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def app() -> Iterator[int]:
    App.reached.clear()
    App.release.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    App.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(*arguments: str) -> Process:
        process = Process(tmp_path / f"log-{len(started)}", *arguments)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.popen.poll() is None:
            process.end(signal.SIGKILL)


def bootstrap(listen: int, app: int, admin: int) -> dict[str, Any]:
    """One HTTP listener: ``/direct`` is answered, the rest goes to the app."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": listen}}
    upstream = {"socket_address": {"address": "127.0.0.1", "port_value": app}}
    routes = [
        {"match": {"path": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "hi"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}},
    ]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [ROUTER],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": upstream}}]}]
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [{"name": "in", "address": address, "filter_chains": [chain]}],
            "clusters": [
                {
                    "name": "app",
                    "type": "STATIC",
                    "load_assignment": {"cluster_name": "app", "endpoints": endpoints},
                }
            ],
        },
    }


def test_a_bootstrap_file_serves_until_sigterm_drains(
    app: int, start: Callable[..., Process], tmp_path: Path
) -> None:
    listen, admin = free_port(), free_port()
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap(listen, app, admin)))
    sidecar = start("proxy", "-c", str(file), "--drain-time", "20")
    until(lambda: get(listen, "/direct") == (200, "hi"), "the listener serves", sidecar)
    assert get(listen, "/x") == (200, "/x -")
    assert get(admin, "/ready") == (200, "LIVE\n")
    assert get(admin, "/ready", host="evil.example.org")[0] == 403
    assert '"name": "in"' in get(admin, "/config_dump")[1]
    assert "app::" in get(admin, "/clusters")[1]
    assert "http.in.downstream_rq_2xx: 2\n" in get(admin, "/stats")[1]
    assert 'envoy_http_downstream_rq_xx{envoy_response_code_class="2"' in get(admin, "/stats/prometheus")[1]

    # A request that is under way is finished; new connections are not taken.
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(get(listen, "/slow")))
    slow.start()
    assert App.reached.wait(WAIT)
    sidecar.popen.send_signal(signal.SIGTERM)
    until(lambda: get(listen, "/direct")[0] == 0, "the listener is closed", sidecar)
    App.release.set()
    slow.join(WAIT)
    assert answers == [(200, "/slow -")]
    assert sidecar.popen.wait(WAIT) == 0, sidecar.log()


def test_a_bootstrap_that_cannot_be_used_is_refused_by_field_path(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    config = bootstrap(free_port(), 1, free_port())
    config["static_resources"]["clusters"][0]["outlier_detection"] = {}
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(config))
    sidecar = start("proxy", "-c", str(file))
    assert sidecar.popen.wait(WAIT) == 1
    assert f"Error: {file}: cluster[app].outlier_detection: is not supported" in sidecar.log()


def test_the_start_path_imports_nothing_heavy() -> None:
    heavy = (
        *("aiohttp", "cryptography.x509", "grpc", "pydantic", "yaml", "google.protobuf", "grpclib", "dns"),
        *("proxy.xds", "proxy.admin.pages", "proxy.tls.identity", "proxy.discovery"),
    )
    code = f"import sys, proxy.app, proxy.decoder; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_static_sidecar_never_loads_protobuf_and_leaves_no_decoder_behind(
    app: int, start: Callable[..., Process], tmp_path: Path
) -> None:
    listen, admin = free_port(), free_port()
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap(listen, app, admin)))
    sidecar = start("proxy", "-c", str(file))
    # Neither the pages nor what they show may load it either.
    until(lambda: get(admin, "/ready")[0] == 200, "it is ready", sidecar)
    dump = json.loads(get(admin, "/config_dump")[1])["configs"][0]["bootstrap"]
    assert [made["name"] for made in dump["static_resources"]["listeners"]] == ["in"]
    assert get(listen, "/direct") == (200, "hi")
    assert "protobuf" not in Path(f"/proc/{sidecar.popen.pid}/maps").read_text()
    children = Path(f"/proc/{sidecar.popen.pid}/task/{sidecar.popen.pid}/children")
    until(lambda: children.read_text() == "", "the decoder has ended and was waited for", sidecar)


@pytest.fixture
def plane(start: Callable[..., Process], tmp_path: Path) -> Process:
    """A control plane with one service, ``web``."""
    data = tmp_path / "data"
    addresses = [f"--{name}=127.0.0.1:0" for name in ("api-address", "monitoring", "xds-address")]
    plane = start("control-plane", "--data-dir", str(data), *addresses)
    until(lambda: (data / "run.json").exists() and "administrator" in plane.log(), "it serves", plane)
    tulle(data, "apply", "-f", "-", stdin=SERVICES)
    return plane


def tulle(data: Path, *arguments: str, stdin: str = "") -> str:
    return subprocess.run(
        [*TULLE, *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"TULLE_CONFIG": str(data / "admin.conf")},
    ).stdout


def test_a_restarted_sidecar_serves_from_disk_without_the_control_plane(
    plane: Process, app: int, start: Callable[..., Process], tmp_path: Path
) -> None:
    run = json.loads((tmp_path / "data" / "run.json").read_text())
    ports = {name: (free_port(), free_port()) for name in ("web", "client")}
    inbound = free_port()

    def sidecar(name: str) -> Process:
        listen, admin = ports[name]
        token = tmp_path / f"{name}.token"
        if not token.exists():
            token.write_text(tulle(tmp_path / "data", "token", "create", "--service-account", name))
        options = ["--control-plane", run["xds"], "--ca-address", run["api"], "--token-file", str(token)]
        options += ["--service-account", name, "--name", name, "--label", f"app={name}", "--ip", "127.0.0.1"]
        options += ["--state-dir", str(tmp_path / name), "--admin-address", f"127.0.0.1:{admin}"]
        options += ["--readiness-address", "none", "--outbound-bind", f"127.0.0.1:{listen}"]
        if name == "web":
            options += ["--inbound", f"127.0.0.1:{inbound}=127.0.0.1:{app}"]
        return start("proxy", *options)

    def called() -> bool:
        return get(ports["client"][0], "/a", host="web.default.mesh.local")[0] == 200

    web, client = sidecar("web"), sidecar("client")
    until(called, "the client reaches web", client)
    answer = get(ports["client"][0], "/a", host="web.default.mesh.local")[1]
    assert "URI=spiffe://mesh.local/ns/default/sa/client" in answer
    assert get(inbound, "/a")[0] != 200  # plain text to a STRICT workload
    for name, process in (("web", web), ("client", client)):
        until(lambda name=name: get(ports[name][1], "/ready")[0] == 200, "ready", process)  # type: ignore[misc]
        until((tmp_path / name / "config.pb").exists, "the configuration is on disk", process)

    assert plane.end(signal.SIGKILL) == -signal.SIGKILL
    assert called()
    assert client.end() == 0, client.log()
    again = sidecar("client")
    until(called, "the restarted client reaches web", again)
    assert get(ports["client"][1], "/ready") == (200, "LIVE\n")
