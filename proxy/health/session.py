"""The checks of one host, one after the other: asks, counts, and waits for the next one.

What the results make of the host is ``proxy.cluster.health``; how it is asked, a ``Prober``'s. The cluster is told by
somebody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from proxy.cluster import flags
from proxy.cluster.cluster import Cluster
from proxy.cluster.health import HostHealth
from proxy.cluster.host import Host
from proxy.health.outcome import TIMED_OUT, Outcome, Prober
from proxy.model.health_check import HealthCheck
from proxy.model.stats import HealthCheckStats

log = logging.getLogger(__name__)


class HostSession:
    """``pending``: it asks, and there was no result yet. ``flags``: what the cluster is to be told.

    ``endpoint`` is what it was made for; ``tell(session)`` is called after the first result and when one has changed
    something.
    """

    __slots__ = (
        "_check", "_excluded", "_health", "_prober", "_stats", "_task", "_tell", "_told", "_traffic",
        "cluster", "endpoint", "host",
    )  # fmt: skip

    def __init__(
        self,
        cluster: Cluster,
        host: Host,
        check: HealthCheck,
        stats: HealthCheckStats,
        prober: Prober,
        *,
        random: Callable[[], float],
        traffic: Callable[[str], bool],
        tell: Callable[[HostSession], None],
    ) -> None:
        """``traffic(cluster)``: whether it was ever connected to for a request."""
        self.cluster = cluster
        self.host = host
        self.endpoint = (host.health_check, host.hostname)
        self._check = check
        self._stats = stats
        self._prober = prober
        self._traffic = traffic
        self._tell = tell
        self._health = HostHealth(check, random, failed=bool(host.flags & flags.FAILED_ACTIVE_HC))
        self._health.degraded = bool(host.flags & flags.DEGRADED_ACTIVE_HC)
        self._excluded = bool(host.flags & flags.EXCLUDED_VIA_IMMEDIATE_HC_FAIL)
        self._told = -1
        self._task: asyncio.Task[None] | None = None
        stats.healthy += not self._health.failed
        stats.degraded += self._health.degraded

    @property
    def pending(self) -> bool:
        return self._task is not None and self._told < 0

    @property
    def flags(self) -> int:
        health = self._health
        return (
            flags.FAILED_ACTIVE_HC * health.failed
            | flags.ACTIVE_HC_TIMEOUT * health.timed_out
            | flags.DEGRADED_ACTIVE_HC * health.degraded
            | flags.EXCLUDED_VIA_IMMEDIATE_HC_FAIL * self._excluded
        )

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask from now on, if that was not so before and the secrets that it takes are there."""
        if self._task is not None or not self._prober.ready():
            return
        self._task = loop.create_task(self._run(), name=f"health check {self.cluster.name} {self.host.label}")

    def stop(self) -> asyncio.Task[None] | None:
        """Ask no more; the task that is to be waited for where somebody does."""
        self._stats.healthy -= not self._health.failed
        self._stats.degraded -= self._health.degraded
        self._prober.close()
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _run(self) -> None:
        first = self._health.first_delay()
        if first:
            await asyncio.sleep(first)
        prober = self._prober
        while True:
            self._stats.attempt += 1
            try:
                async with asyncio.timeout(self._check.timeout):
                    outcome = await prober.ask()
            except TimeoutError:
                prober.give_up()
                outcome = TIMED_OUT
            except Exception:
                # Whatever it is, the host must not stay for ever what it was last.
                log.exception("cluster %s: %s cannot be asked", self.cluster.name, self.host.label)
                prober.close()
                outcome = Outcome("network", "cannot be asked")
            by_itself: Outcome | None = outcome
            while by_itself is not None:
                by_itself = await prober.rest(self._take(by_itself))

    def _take(self, outcome: Outcome) -> float:
        """Count it, see what it changes, say so: the seconds until the next check."""
        health, stats = self._health, self._stats
        failed, degraded = health.failed, health.degraded
        if outcome.failure is None:
            transition = health.passed(degraded=outcome.degraded)
            stats.success += 1
            self._excluded &= health.failed
        else:
            transition = health.missed(outcome.failure, retriable=outcome.retriable)
            stats.failure += 1
            stats.network_failure += outcome.failure in ("network", "network_timeout")
            self._excluded |= outcome.excluded
        stats.healthy += failed - health.failed
        stats.degraded += health.degraded - degraded
        if health.failed and (not failed or self._told < 0):
            log.warning("cluster %s: %s is unhealthy: %s", self.cluster.name, self.host.label, outcome.why)
        elif failed and not health.failed:
            log.info("cluster %s: %s is healthy", self.cluster.name, self.host.label)
        if self.flags != self._told:
            self._told = self.flags
            self._tell(self)
        return health.next_delay(
            transition, passed=outcome.failure is None, traffic=self._traffic(self.cluster.name)
        )
