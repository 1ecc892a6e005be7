"""Keeps the endpoints of DNS clusters current: one task per STRICT_DNS, LOGICAL_DNS or DNS_SRV cluster.

It watches configuration swaps to start and stop those tasks and hands every change to the live cluster. The
last good answer stays in use while servers fail; only an authoritative "there is none" takes endpoints away.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from proxy.discovery.answers import LookupFailed
from proxy.discovery.schedule import refresh_delay, retry_delay
from proxy.discovery.srv import address_assignment, srv_assignment
from proxy.model.cluster import Cluster, LoadAssignment

if TYPE_CHECKING:
    from proxy.discovery.resolver import Resolver

log = logging.getLogger(__name__)

DNS_TYPES = frozenset({"STRICT_DNS", "LOGICAL_DNS", "DNS_SRV"})
#: Longest pause between failed lookups, seconds.
MAX_RETRY_DELAY = 30.0


class LiveCluster(Protocol):
    """What discovery needs of a running cluster."""

    name: str
    config: Cluster

    def set_endpoints(self, assignment: LoadAssignment) -> None: ...


def set_endpoints(cluster: LiveCluster, assignment: LoadAssignment) -> None:
    """Give an answer to the cluster itself."""
    cluster.set_endpoints(assignment)


class LookupStats:
    """Envoy's ``cluster.<name>.update_*`` counters."""

    __slots__ = ("attempt", "empty", "failure", "success")

    def __init__(self) -> None:
        self.attempt = 0
        self.success = 0
        self.failure = 0
        self.empty = 0


class Discovery:
    """Runs the lookups of a sidecar's DNS clusters on ``loop``; ``mark`` goes onto every socket.

    ``publish`` is called with every answer that differs from the one before.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        mark: int = 0,
        resolver_factory: Callable[[Cluster, int], Resolver] | None = None,
        jitter: Callable[[], float] = random.random,
        publish: Callable[[LiveCluster, LoadAssignment], None] = set_endpoints,
    ) -> None:
        self._loop = loop
        self._publish = publish
        self._mark = mark
        self._make_resolver = resolver_factory or make_resolver
        self._jitter = jitter
        self._tasks: dict[str, tuple[LiveCluster, Cluster, asyncio.Task[None]]] = {}
        self.stats: dict[str, LookupStats] = {}

    def reconcile(self, clusters: dict[str, LiveCluster]) -> None:
        """Start lookups of new or changed DNS clusters, stop those of clusters that went. Call after each swap."""
        for name in [name for name in self._tasks if name not in clusters]:
            self._tasks.pop(name)[2].cancel()
            self.stats.pop(name, None)
        for name, cluster in clusters.items():
            if cluster.config.type not in DNS_TYPES:
                continue
            running = self._tasks.get(name)
            if running is not None:
                if running[0] is cluster and running[1] == cluster.config:
                    continue
                running[2].cancel()
            self.stats.setdefault(name, LookupStats())
            task = self._loop.create_task(self._refresh(cluster), name=f"discovery {name}")
            self._tasks[name] = (cluster, cluster.config, task)

    async def stop(self) -> None:
        """Cancel all lookups and wait for them to end."""
        tasks = [task for _, _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, cluster: LiveCluster) -> None:
        config = cluster.config
        resolver = self._make_resolver(config, self._mark)
        stats = self.stats[cluster.name]
        failures = 0
        last: LoadAssignment | None = None
        while True:
            stats.attempt += 1
            try:
                assignment, ttl = await lookup(config, resolver)
            except LookupFailed as error:
                failures += 1
                stats.failure += 1
                kept = "" if last is None else "; the last good answer stays in use"
                log.warning("cluster %s: %s%s", cluster.name, error, kept)
                await asyncio.sleep(
                    retry_delay(failures, min(1.0, config.dns_refresh_rate), MAX_RETRY_DELAY, self._jitter())
                )
                continue
            failures = 0
            stats.success += 1
            if not any(locality.endpoints for locality in assignment.localities):
                stats.empty += 1
            if assignment != last:
                self._publish(cluster, assignment)
                last = assignment
            await asyncio.sleep(self._delay(config, ttl))

    def _delay(self, config: Cluster, ttl: float) -> float:
        if config.dns_srv is not None:
            return refresh_delay(ttl, config.dns_srv.min_ttl, config.dns_srv.max_ttl, self._jitter())
        if config.respect_dns_ttl:
            return refresh_delay(ttl, 1.0, 3600.0, self._jitter())
        return config.dns_refresh_rate


def make_resolver(config: Cluster, mark: int) -> Resolver:
    """The resolver for a cluster: its own servers, else the system's."""
    # dnspython costs start-up time that only sidecars with DNS clusters should pay.
    from proxy.discovery.resolver import Resolver

    servers = config.dns_srv.resolvers if config.dns_srv is not None else config.dns_resolvers
    return Resolver(servers, mark=mark)


async def lookup(config: Cluster, resolver: Resolver) -> tuple[LoadAssignment, float]:
    """One round of lookups for ``config``: its endpoints and for how many seconds they hold.

    Raises :class:`LookupFailed` if no server gave a usable answer for one of the names.
    """
    if config.dns_srv is not None:
        answer = await resolver.srv(config.dns_srv.srv_name)
        return srv_assignment(config.name, answer), answer.ttl
    template = config.load_assignment or LoadAssignment(cluster_name=config.name)
    hosts = sorted(
        {e.address.host for loc in template.localities for e in loc.endpoints if not _is_ip(e.address.host)}
    )
    ipv4 = config.dns_lookup_family != "V6_ONLY"
    ipv6 = config.dns_lookup_family != "V4_ONLY"
    found = await asyncio.gather(*(resolver.addresses(host, ipv4=ipv4, ipv6=ipv6) for host in hosts))
    answers = dict(zip(hosts, found, strict=True))
    ttl = min((a.ttl for a in found), default=float("inf"))
    return address_assignment(template, answers, logical=config.type == "LOGICAL_DNS"), ttl


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
