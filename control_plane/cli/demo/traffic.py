"""Running traffic as the story sees it: counts of what happened between two moments."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from control_plane.cli.demo.processes import DemoFailed, Process


@dataclass
class Counts:
    """Requests by who answered, and failures by kind."""

    by: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> int:
        return self.by.total()

    @property
    def failed(self) -> int:
        return self.errors.total()

    def share(self, name: str) -> float:
        """The part of the answers that ``name`` gave, 0 to 1."""
        return self.by[name] / self.ok if self.ok else 0.0


class Traffic:
    """Reads the load generator's lines in a thread; :meth:`take` returns and resets the counts."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._lock = threading.Condition()
        self._counts = Counts()
        self._ticks = 0
        self.before = Counts()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        stdout = self.process.popen.stdout
        assert stdout is not None
        for line in stdout:
            tick = json.loads(line)
            with self._lock:
                self._counts.by.update(tick["by"])
                self._counts.errors.update(tick["errors"])
                self._ticks += 1
                self._lock.notify_all()

    def take(self) -> Counts:
        """What happened since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counts()
            return counts

    def collect(self, requests: int, timeout: float = 30.0) -> Counts:
        """Wait until ``requests`` more have been answered or failed, and return their counts.

        What is counted began after the call: the tick under way, which also holds what went before, is left out of
        these counts (and is not lost: it goes to ``before``).
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            tick = self._ticks
            while self._ticks == tick and self._lock.wait(max(0.0, deadline - time.monotonic())):
                pass
            self.before, self._counts = self._counts, Counts()
        with self._lock:
            while self._counts.ok + self._counts.failed < requests:
                if not self._lock.wait(max(0.0, deadline - time.monotonic())):
                    raise DemoFailed(
                        f"{self.process.name}: {self._counts.ok} answers and {self._counts.failed} failures in "
                        f"{timeout:.0f} s, {requests} were awaited:\n{self.process.tail()}"
                    )
        return self.take()

    def stop(self) -> None:
        """End the load generator."""
        self.process.stop()
        self._thread.join(5)
