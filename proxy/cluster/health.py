"""What the results of active health checks make of one host, and when the next check is due. Pure.

The rules are those of Envoy's ``HealthCheckerImplBase``. Who connects and asks is somebody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from proxy.model.health_check import Failure, HealthCheck

Transition = Literal["unchanged", "changed", "change_pending"]
"""What one result did: nothing, it changed what the host is, or it would after more of them."""


class HostHealth:
    """The health of one host, which is unhealthy until the first result.

    ``failed``: it gets no requests (``FAILED_ACTIVE_HC``); ``timed_out``: and the last check was not answered
    (``ACTIVE_HC_TIMEOUT``); ``degraded``: it gets some if the others are few (``DEGRADED_ACTIVE_HC``);
    ``pending``: there was no result yet (``PENDING_ACTIVE_HC``).
    """

    __slots__ = (
        "_config", "_first", "_healthy", "_random", "_unhealthy", "degraded", "failed", "pending", "timed_out",
    )  # fmt: skip

    def __init__(self, config: HealthCheck, random: Callable[[], float], *, failed: bool = True) -> None:
        """``random`` gives floats in [0, 1). ``failed``: as what the host is taken before the first result."""
        self._config = config
        self._random = random
        self._first = True
        self._healthy = 0
        self._unhealthy = 0
        self.failed = failed
        self.timed_out = False
        self.degraded = False
        self.pending = True

    def first_delay(self) -> float:
        """Seconds before the first check."""
        if not self._config.initial_jitter:
            return 0.0
        return self._jittered(0, self._config.initial_jitter) / 1000

    def passed(self, *, degraded: bool = False) -> Transition:
        """A check was passed. The first one of all makes the host healthy at once."""
        self._unhealthy = 0
        transition: Transition = "unchanged"
        if self.failed:
            if not self._first:
                self._healthy += 1
            if self._first or self._healthy == self._config.healthy_threshold:
                self.failed = self.timed_out = False
                transition = "changed"
            else:
                transition = "change_pending"
        transition = self._told(transition)
        if degraded != self.degraded:
            self.degraded = degraded
            if transition == "unchanged":
                transition = "changed"
        self._first = False
        return transition

    def missed(self, kind: Failure, *, retriable: bool = False) -> Transition:
        """A check failed. Only failures of the network, and ``retriable`` answers, have a threshold."""
        self._healthy = 0
        transition: Transition = "unchanged"
        if not self.failed:
            at_once = kind in ("active", "passive") and not retriable
            if not at_once:
                self._unhealthy += 1
            if at_once or self._unhealthy == self._config.unhealthy_threshold:
                self.failed = True
                transition = "changed"
            else:
                transition = "change_pending"
        self.timed_out = kind == "network_timeout" and self.failed
        self._first = False
        return self._told(transition)

    def next_delay(self, transition: Transition, *, passed: bool, traffic: bool) -> float:
        """Seconds to the next check after a result. ``traffic``: the cluster was connected to, ever."""
        config = self._config
        edge = transition == "change_pending"
        if not traffic:
            base = config.no_traffic_healthy_interval if passed and not edge else config.no_traffic_interval
        elif passed:
            base = config.healthy_edge_interval if edge else config.interval
        else:
            base = config.unhealthy_edge_interval if edge else config.unhealthy_interval
        return self._jittered(_milliseconds(base), config.interval_jitter) / 1000

    def _told(self, transition: Transition) -> Transition:
        """The first result is one to tell, even if it leaves the host as it was."""
        if self.pending:
            self.pending = False
            return "changed"
        return transition

    def _jittered(self, base: int, jitter: float) -> int:
        """Milliseconds, at least 1, so that checks do not follow each other without end."""
        of_percent = self._config.interval_jitter_percent * base // 100
        if of_percent:
            base += int(self._random() * of_percent)
        if jitter:
            base += int(self._random() * _milliseconds(jitter))
        return max(1, base)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
