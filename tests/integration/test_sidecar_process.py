"""``tulle proxy`` as a process: from a bootstrap file, and with a real control plane that comes and goes."""

from __future__ import annotations

import http.client
import http.server
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.sidecar_process import WAIT, App, Process, bootstrap, free_port, get, tulle, until

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
        *(
            "proxy.xds.decode",
            "proxy.xds.session",
            "proxy.observe.metrics",
            "proxy.workers.pool",
            "proxy.admin.pages",
            "proxy.tls.identity",
            "proxy.discovery",
        ),
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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_restarted_sidecar_serves_from_disk_without_the_control_plane(
    plane: Process, app: int, start: Callable[..., Process], tmp_path: Path, workers: str
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
        options += ["--workers", workers]
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
