"""When one end of a connection asks with PING whether the other is still there (``KeepaliveSettings``).

It decides only. It reads no clock and sends nothing: time and chance are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal

from proxy.model.http2 import Http2Keepalive


class Keepalive:
    """One connection's. An answer that is late behind other frames is no sign of loss: any of them counts."""

    __slots__ = ("_heard", "_options", "_ping_at", "_pong_by", "_random")

    def __init__(self, options: Http2Keepalive, now: float, random: Callable[[], float]) -> None:
        """``random`` gives floats in [0, 1)."""
        self._options = options
        self._random = random
        self._heard = now
        self._pong_by = inf
        self._ping_at = inf
        self._plan(now)

    def heard(self, now: float) -> None:
        """Something came."""
        self._heard = now
        if self._pong_by != inf:
            self._pong_by = now + self._options.timeout

    def answered(self, now: float) -> None:
        """A PING was acknowledged."""
        self._pong_by = inf
        self._plan(now)

    def due(self, now: float) -> Literal["", "ping", "lost"]:
        """What is to be done: nothing, send a PING, or take the other end for gone."""
        if now >= self._pong_by:
            return "lost"
        if now < self._ping_at:
            return ""
        self._ping_at = inf
        return self._asked(now)

    def before_stream(self, now: float) -> Literal["", "ping"]:
        """The same when a stream is to be opened: nothing has come for ``connection_idle_interval``."""
        idle = self._options.connection_idle_interval
        return self._asked(now) if idle and now - self._heard > idle else ""

    def _asked(self, now: float) -> Literal["", "ping"]:
        if self._pong_by != inf:
            return ""
        self._pong_by = now + self._options.timeout
        return "ping"

    def _plan(self, now: float) -> None:
        options = self._options
        if options.interval:
            self._ping_at = now + options.interval * (1 + self._random() * options.interval_jitter / 100)
