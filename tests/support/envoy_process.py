"""A real Envoy that serves a bootstrap, with the addresses that it bound."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ENVOY = Path(sys.executable).with_name("envoy")
WAIT = 60.0
"""Seconds after which it is given up; never how long it takes."""


class EnvoyProcess:
    """``ports`` is by listener name. ``document`` needs no admin section."""

    def __init__(self, document: dict[str, Any], directory: Path) -> None:
        admin = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}
        self._log = directory / "envoy.log"
        self._address = directory / "admin-address"
        config = directory / "envoy.json"
        config.write_text(json.dumps(admin | document))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(ENVOY), "-c", str(config), "--admin-address-path", str(self._address),
                 "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
                 "--file-flush-interval-msec", "50", "--drain-time-s", "1", "--drain-strategy", "immediate"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            self.ports = self._wait(len(document["static_resources"]["listeners"]))
        except BaseException:
            self.stop()
            raise

    def admin(self, path: str, *, post: bool = False) -> str:
        """What the admin endpoint answers."""
        request = urllib.request.Request(
            f"http://{self._address.read_text()}{path}", method="POST" if post else "GET"
        )
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            text: str = answer.read().decode()
            return text

    def stat(self, name: str) -> int:
        """A counter or gauge; 0 if there is none of that name."""
        for line in self.admin(f"/stats?filter=^{name}$").splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return 0

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, count: int) -> dict[str, int]:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            assert self.running, self.log
            if self._address.exists() and self._address.read_text():
                found = json.loads(self.admin("/listeners?format=json")).get("listener_statuses", [])
                if len(found) == count:
                    return {
                        item["name"]: item["local_address"]["socket_address"]["port_value"] for item in found
                    }
            time.sleep(0.02)  # polls another process
        raise AssertionError("Envoy did not start in time: " + self.log)
