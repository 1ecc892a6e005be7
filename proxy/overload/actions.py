"""The actions in force, as the data path reads them: plain numbers from 0 (off) to 1 (always).

They are set by ``proxy.overload.manager``; here nothing is decided.
"""

from __future__ import annotations

from random import random

from proxy.model.overload import TimerScale, TimerType
from proxy.overload.pressure import shortened


class OverloadActions:
    """``reject_connections``, ``stop_requests``, ``disable_keepalive``: the share that is hit, 0 to 1."""

    __slots__ = (
        "_reduce",
        "_timers",
        "disable_keepalive",
        "reject_connections",
        "stop_accepting",
        "stop_requests",
    )

    def __init__(self, timers: tuple[TimerScale, ...] = ()) -> None:
        self.stop_accepting = False
        self.reject_connections = 0.0
        self.stop_requests = 0.0
        self.disable_keepalive = 0.0
        self._reduce = 0.0
        self._timers: dict[TimerType, TimerScale] = {rule.timer: rule for rule in timers}

    @property
    def concerns_requests(self) -> bool:
        """Whether a request has to look at them at all."""
        return bool(self.stop_requests or self.disable_keepalive)

    @property
    def concerns_timeouts(self) -> bool:
        return bool(self._reduce)

    def reduce_timeouts(self, by: float) -> None:
        self._reduce = by

    def timeout(self, timer: TimerType, seconds: float) -> float:
        """What a timeout of ``seconds`` (0 = off) is now."""
        return shortened(seconds, self._timers.get(timer), self._reduce)


def hit(share: float) -> bool:
    """Whether this one is among the ``share`` that an action hits."""
    return share >= 1.0 or (share > 0.0 and random() < share)
