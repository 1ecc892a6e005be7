"""A real Envoy and Tulle's sidecar with the same bootstrap, each before backends of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENVOY = Path(sys.executable).with_name("envoy")
ROOT = Path(__file__).parent.parent.parent
START = 60.0
"""Seconds within which a proxy must be up; never how long it takes."""

_V3 = "type.googleapis.com/envoy.extensions"
_LOOPBACK = "127.0.0.1"
LOG_FORMAT = {
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "protocol": "%PROTOCOL%",
}


@dataclass(frozen=True)
class Options:
    """One configuration that cases are played against. ``manager`` goes into the connection manager, ``route`` into
    the route action, ``cluster`` into the cluster; ``filters`` stand before the router, ``hosts`` are further virtual
    hosts."""

    manager: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    cluster: Mapping[str, Any] = field(default_factory=dict)
    filters: tuple[Mapping[str, Any], ...] = ()
    hosts: tuple[Mapping[str, Any], ...] = ()


def rbac(action: str, **policies: Any) -> dict[str, Any]:
    """An RBAC filter whose policies are one permission each, for everybody."""
    rules = {
        "action": action,
        "policies": {
            name: {"permissions": [permission], "principals": [{"any": True}]}
            for name, permission in policies.items()
        },
    }
    return {"name": "rbac", "typed_config": {"@type": f"{_V3}.filters.http.rbac.v3.RBAC", "rules": rules}}


def says(name: str, *domains: str) -> dict[str, Any]:
    """A virtual host that answers with its name."""
    answer = {"status": 200, "body": {"inline_string": name}}
    return {
        "name": name,
        "domains": list(domains),
        "routes": [{"match": {"prefix": "/"}, "direct_response": answer}],
    }


def cluster_http(**options: Any) -> dict[str, Any]:
    """The ``HttpProtocolOptions`` of a cluster that speaks HTTP/1.1."""
    explicit = options.pop("http_protocol_options", {})
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    value = {
        "@type": f"type.googleapis.com/{kind}",
        "explicit_http_config": {"http_protocol_options": explicit},
        **options,
    }
    return {"typed_extension_protocol_options": {kind: value}}


def document(options: Mapping[str, Options], backends: list[int], log: Path) -> dict[str, Any]:
    """A listener and a cluster for each configuration and each backend (the ``lane``): ``<name>-<lane>``."""
    listeners = []
    clusters = []
    for name, option in options.items():
        for lane, port in enumerate(backends):
            listeners.append(_listener(f"{name}-{lane}", option, log))
            clusters.append(_cluster(f"{name}-{lane}", port, option))
    return {
        "admin": {"address": _address(0)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": _LOOPBACK, "port_value": port}}


def _listener(name: str, option: Options, log: Path) -> dict[str, Any]:
    manager = {
        "@type": f"{_V3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name.rpartition("-")[0],
        "codec_type": "HTTP1",
        # Envoy ends a connection only after this.
        "delayed_close_timeout": "0.1s",
        "route_config": {
            "name": name,
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"path": "/direct"},
                            "direct_response": {"status": 200, "body": {"inline_string": "direct"}},
                        },
                        {"match": {"prefix": "/"}, "route": {"cluster": name, **option.route}},
                    ],
                },
                *option.hosts,
            ],
        },
        "http_filters": [
            *option.filters,
            {"name": "router", "typed_config": {"@type": f"{_V3}.filters.http.router.v3.Router"}},
        ],
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": f"{_V3}.access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {"json_format": LOG_FORMAT},
                },
            }
        ],
        **option.manager,
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": name, "address": _address(0), "filter_chains": [chain]}


def _cluster(name: str, port: int, option: Options) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **option.cluster,
    }


@dataclass(frozen=True)
class Proxy:
    """A running proxy: the port of each listener, its access log, what it counted (``name: value`` a line)."""

    name: str
    ports: Mapping[str, int]
    log: Path
    statistics: Callable[[], str]

    def lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]

    def counted(self, names: Iterable[str]) -> dict[str, int]:
        """The values of these counters."""
        values = dict(line.split(": ", 1) for line in self.statistics().splitlines())
        return {name: int(values[name]) for name in names}


@contextmanager
def envoy(directory: Path, options: Mapping[str, Options], backends: list[int]) -> Iterator[Proxy]:
    log = directory / "envoy.access"
    with envoy_of(directory, document(options, backends, log), log) as proxy:
        yield proxy


@contextmanager
def envoy_of(directory: Path, text: Mapping[str, Any], log: Path) -> Iterator[Proxy]:
    """A real Envoy with the bootstrap ``text``, whose access log is ``log``."""
    (directory / "envoy.json").write_text(json.dumps(text))
    admin = directory / "envoy.admin"
    command = [
        str(ENVOY), "-c", str(directory / "envoy.json"), "--admin-address-path", str(admin), "--concurrency", "1",
        "--disable-hot-restart", "--drain-time-s", "1", "--drain-strategy", "immediate",
        "--file-flush-interval-msec", "50", "--log-level", "error",
    ]  # fmt: skip
    with _running(command, directory / "envoy.log") as process:
        wanted = len(text["static_resources"]["listeners"])
        ports = _envoy_ports(process, admin, directory / "envoy.log", wanted)
        yield Proxy("envoy", ports, log, lambda: _get(f"http://{admin.read_text()}/stats"))


@contextmanager
def tulle(directory: Path, options: Mapping[str, Options], backends: list[int]) -> Iterator[Proxy]:
    log = directory / "tulle.access"
    with tulle_of(directory, document(options, backends, log), log) as proxy:
        yield proxy


@contextmanager
def tulle_of(directory: Path, text: Mapping[str, Any], log: Path, engine: str = "") -> Iterator[Proxy]:
    """Tulle's data path with the same. ``engine``: that of HTTP/2, if it is not to be the default."""
    (directory / "tulle.json").write_text(json.dumps(text))
    command = [sys.executable, "-m", "tests.support.static_sidecar", str(directory / "tulle.json")]
    chosen = {"TULLE_HTTP2": engine} if engine else {}
    with _running(command, directory / "tulle.log", asked=True, environment=chosen) as process:
        to, back = process.stdin, process.stdout
        assert to is not None and back is not None
        line = back.readline()
        assert line, (directory / "tulle.log").read_text()

        def statistics() -> str:
            to.write(b"\n")
            to.flush()
            text: str = json.loads(back.readline())
            return text

        yield Proxy("tulle", json.loads(line), log, statistics)


@contextmanager
def _running(
    command: list[str], log: Path, *, asked: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """``asked``: it is talked to over its standard input and output. ``environment``: variables of its own."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if asked else subprocess.DEVNULL,
            stdout=subprocess.PIPE if asked else output,
            stderr=output,
            cwd=ROOT,
            env=os.environ | (environment or {}),
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(START)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=START) as answer:
        text: str = answer.read().decode()
        return text


def _envoy_ports(process: subprocess.Popen[bytes], admin: Path, log: Path, wanted: int) -> dict[str, int]:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if admin.exists() and (address := admin.read_text()):
            found = json.loads(_get(f"http://{address}/listeners?format=json")).get("listener_statuses", [])
            if len(found) == wanted:
                return {item["name"]: item["local_address"]["socket_address"]["port_value"] for item in found}
        time.sleep(0.05)  # polls another process
    raise AssertionError("Envoy did not start in time: " + log.read_text())
