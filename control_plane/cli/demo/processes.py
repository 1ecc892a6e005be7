"""Child processes of the demo: started with a log file, waited for, and all gone when the demo goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

#: ``popen(argv, **options)``: starts a process somewhere (here, or inside a pod).
Popen = Callable[..., "subprocess.Popen[bytes]"]

_CHILD = str(Path(__file__).with_name("child.py"))


class DemoFailed(Exception):
    """A step did not come out as told; the message says what happened and where to look."""


class Process:
    """One child. ``log`` holds what it wrote to standard error (and output, unless that is piped)."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.popen = popen
        self.log = log

    def wait_until(self, ready: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
        """Poll ``ready`` until it is true. Raises :class:`DemoFailed` if the process ends or time runs out."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.popen.poll() is not None:
                raise DemoFailed(f"{self.name} ended with code {self.popen.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{self.name}: {what} did not happen in {timeout:.0f} s:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self, lines: int = 8) -> str:
        """The last lines of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, and SIGKILL if that is not heeded in time."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


class Processes:
    """All children, stopped in the reverse of their starting order."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.running: list[Process] = []

    def start(
        self, name: str, argv: Sequence[str], popen: Popen = subprocess.Popen, **options: Any
    ) -> Process:
        """Start ``argv``; with ``stdout=PIPE`` only standard error goes to the log."""
        log = self.log_dir / f"{name}.log"
        with log.open("ab") as sink:
            options.setdefault("stdout", sink)
            options.setdefault("stdin", subprocess.DEVNULL)
            # The kernel ends the child when the demo dies, however that happens.
            wrapped = [sys.executable, "-S", "-E", _CHILD, str(os.getpid()), *argv]
            child = popen(wrapped, stderr=sink, start_new_session=True, **options)
        process = Process(name, child, log)
        self.running.append(process)
        return process

    def stop_all(self) -> None:
        """Ask all to end at once, then wait for each."""
        for process in reversed(self.running):
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in reversed(self.running):
            process.stop(5.0)
        self.running.clear()


def first_line(stream: IO[bytes] | None, process: Process) -> str:
    """The line with which a child says that it is ready. Raises :class:`DemoFailed` if it ends instead."""
    line = stream.readline().decode() if stream is not None else ""
    if not line:
        process.popen.wait(5)
        raise DemoFailed(f"{process.name} ended with code {process.popen.returncode}:\n{process.tail()}")
    return line.rstrip("\n")
