"""Pipes for ``splice(2)``: bounded in number, lent to whoever has bytes in flight, and lent again when empty.

A pipe holds bytes only between a read and the writes that follow it, so as many are in use as relays are stalled.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from proxy.model.stats import SpliceStats

MAX_PIPES: Final = 64
"""Pipes of one event loop. Who gets none copies through memory instead."""
PIPE_SIZE: Final = 1 << 20
"""Bytes; the kernel's ``fs.pipe-max-size`` allows as much to everybody. 64 of them are ``fs.pipe-user-pages-soft``."""

Pipe = tuple[int, int]
"""The ends to read from and to write to."""


class Pipes:
    """The pipes of one event loop."""

    __slots__ = ("_idle", "_open", "limit", "stats")

    def __init__(self, stats: SpliceStats, limit: int = MAX_PIPES) -> None:
        self.stats = stats
        self.limit = limit
        self._idle: list[Pipe] = []
        self._open = 0

    def take(self) -> Pipe | None:
        """An empty pipe, or ``None`` when all are lent or there are no descriptors left."""
        if self._idle:
            return self._idle.pop()
        if self._open >= self.limit:
            self.stats.pipes_exhausted += 1
            return None
        try:
            made = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self.stats.pipes_exhausted += 1
            return None
        try:
            fcntl.fcntl(made[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            # Above the user's share of pipe memory: it works at the size that it has.
            pass
        self._open += 1
        self.stats.pipes_active += 1
        return made

    def give(self, pipe: Pipe) -> None:
        """Give back an empty one."""
        self._idle.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Give back one that may hold bytes of a connection that ended: nobody else may get it."""
        self._open -= 1
        self.stats.pipes_active -= 1
        os.close(pipe[0])
        os.close(pipe[1])

    def close(self) -> None:
        """Close those that are not lent."""
        while self._idle:
            self.discard(self._idle.pop())
