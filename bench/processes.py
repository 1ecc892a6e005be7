"""Start a process on given CPUs, wait for its port, and read from ``/proc`` what it and its children cost."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, and that no client's connection is given meanwhile."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    choices = range(10000, lowest) if lowest > 11000 else range(1024, 65536)
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            sock = socket.socket()
            try:
                sock.bind(("127.0.0.1", random.choice(choices)))
            except OSError:
                sock.close()
                continue
            sockets.append(sock)
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: resident, of nobody else, and shared pages in proportion (``smaps_rollup``), of all processes."""

    rss: int
    private: int
    pss: int


class Process:
    """One running program; ``started`` is the monotonic time of its exec."""

    def __init__(self, argv: list[str], cpus: frozenset[int], output: Path, log: Path | None = None) -> None:
        """``log``: where its standard output goes, if not to ``output`` like its standard error."""
        self.output = output
        self._files = [path.open("ab") for path in (log or output, output)]
        self._name = Path(argv[0]).name
        self.started = time.monotonic()
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
            # A developer's shell may forbid it to keep compiled modules, and then each start would compile them again.
            env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_listening(self, port: int, timeout: float = 30.0) -> None:
        """Wait for the port to accept. Raises ``RuntimeError`` with what the program printed."""
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                self.check()
                if time.monotonic() - self.started > timeout:
                    raise RuntimeError(f"{self._name} does not listen\n{self.printed()}") from None
                time.sleep(0.001)

    def check(self) -> None:
        """Raise ``RuntimeError`` if it has ended."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"{self._name} ended with {self._popen.returncode}\n{self.printed()}")

    def printed(self) -> str:
        """The end of what it wrote to standard error."""
        return self.output.read_text(errors="replace")[-2000:]

    def cpu(self) -> float:
        """Seconds of CPU so far, of it and its children that live."""
        self.check()
        return sum(cpu_of(pid) for pid in tree(self.pid))

    def memory(self) -> Memory:
        """Of it and its children."""
        self.check()
        sizes = [memory_of(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in tree(self.pid)]
        return Memory(sum(m.rss for m in sizes), sum(m.private for m in sizes), sum(m.pss for m in sizes))

    def stop(self) -> None:
        """End it."""
        self._popen.terminate()
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for file in self._files:
            file.close()


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def cpu_of(pid: int) -> float:
    """Seconds of one process: nanoseconds of each thread's scheduler account, where the kernel keeps one."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            # No such account in this kernel (or the thread has just ended): ticks of 10 ms.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total / 1e9


def memory_of(smaps_rollup: str) -> Memory:
    """The sums of a ``smaps_rollup`` file."""
    sizes: dict[str, int] = {}
    for line in smaps_rollup.splitlines()[1:]:
        name, value, *_ = line.split()
        sizes[name.rstrip(":")] = int(value) * 1024
    return Memory(sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"])
