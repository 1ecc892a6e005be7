"""Starting proxies and reading what they cost from ``/proc``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.configs import Json

TICK = os.sysconf("SC_CLK_TCK")
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


class Proxy:
    """A running proxy of kind ``tulle`` or ``envoy``."""

    def __init__(self, kind: str, config: Json, directory: Path, name: str) -> None:
        path = directory / f"{kind}-{name}.json"
        path.write_text(json.dumps(config))
        if kind == "tulle":
            argv = [str(BIN / "tulle"), "proxy", "-c", str(path)]
        else:
            argv = [str(BIN / "envoy"), "-c", str(path), "--concurrency", "1", "--log-level", "error"]
            argv += ["--disable-hot-restart"]
        self.log = (directory / f"{kind}-{name}.log").open("wb")
        self.started = time.monotonic()
        self.popen = subprocess.Popen(argv, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self.kind = kind
        self.name = name

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_listening(self, port: int, timeout: float = 15.0) -> float:
        """Wait for the port to accept; seconds since exec. Raises RuntimeError."""
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return time.monotonic() - self.started
            except OSError:
                if self.popen.poll() is not None or time.monotonic() - self.started > timeout:
                    raise RuntimeError(
                        f"{self.kind} {self.name} does not listen; see {self.log.name}"
                    ) from None
                time.sleep(0.001)

    def cpu(self) -> float:
        """User and system time of the process so far, seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> tuple[float, float]:
        """RSS and private memory, MB."""
        rss = private = 0
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss = int(line.split()[1])
            elif line.startswith("Private_"):
                private += int(line.split()[1])
        return rss / 1024, private / 1024

    def stop(self) -> None:
        """End it."""
        self.popen.terminate()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.log.close()
