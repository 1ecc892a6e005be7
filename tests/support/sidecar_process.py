"""``tulle`` as processes: start them, ask them over HTTP, and an app that they can forward to."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.xds_messages import ROUTER

TULLE = [sys.executable, "-m", "control_plane.cli.main"]
WAIT = 30.0


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


def tulle(data: Path, *arguments: str, stdin: str = "") -> str:
    """A command's standard output, run as the administrator of the control plane with that data directory."""
    return subprocess.run(
        [*TULLE, *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"TULLE_CONFIG": str(data / "admin.conf")},
    ).stdout


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
