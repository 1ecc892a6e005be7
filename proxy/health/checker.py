"""Follows the clusters: a session for each host that is to be checked, from when it comes until it goes.

Results are gathered for a turn of the loop, since a cluster builds its balancer anew for each change. It neither asks
nor judges.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from proxy.cluster.cluster import Cluster
from proxy.cluster.health_answer import compile_http
from proxy.cluster.host import Host
from proxy.health.answer import GrpcAnswer
from proxy.health.connection import Line
from proxy.health.http import HttpProber
from proxy.health.outcome import Prober
from proxy.health.request import grpc_request, http_request
from proxy.health.session import HostSession
from proxy.health.tcp import TcpProber
from proxy.model.cluster import CircuitBreakers
from proxy.model.cluster import Cluster as ClusterConfig
from proxy.model.connection import Address
from proxy.model.health_check import HealthCheck, HttpCheck, TcpCheck
from proxy.model.stats import HealthCheckStats
from proxy.runtime.compile.health_check import request_edits
from proxy.upstream.loop_state import LoopState

Publish = Callable[[str, Mapping[Address, int]], None]


class HealthChecker:
    """The checks of a sidecar. ``publish(cluster, flags by address)`` is called with what has changed;
    ``traffic(cluster)`` says whether a cluster was ever connected to for a request."""

    def __init__(
        self,
        state: LoopState,
        publish: Publish,
        traffic: Callable[[str], bool],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._state = state
        self._publish = publish
        self._traffic = traffic
        self._chance = chance
        self._clusters: dict[str, tuple[Cluster, dict[Host, HostSession]]] = {}
        self._found: dict[str, dict[Address, int]] = {}
        self._started = False
        self._warm = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> int:
        """Hosts that are being checked."""
        return sum(len(sessions) for _, sessions in self._clusters.values())

    @property
    def warm(self) -> bool:
        """Whether each host has been checked once, of those whose secrets are there."""
        return not any(one.pending for _, sessions in self._clusters.values() for one in sessions.values())

    def start(self) -> None:
        """Ask from now on."""
        self._started = True
        self.secrets_changed()

    def secrets_changed(self) -> None:
        """Begin with those that waited for a secret: a host is not to fail for what it has no part in."""
        if not self._started:
            return
        for _, sessions in self._clusters.values():
            for session in sessions.values():
                session.start(self._state.loop)

    async def first_round(self) -> None:
        """Wait until each host has been checked once. That takes as long as the longest timeout."""
        while not self.warm:
            self._warm.clear()
            await self._warm.wait()

    def reconcile(self, clusters: Mapping[str, Cluster]) -> None:
        """Follow a swap."""
        for name in [name for name in self._clusters if name not in clusters]:
            self._forget(name)
        for cluster in clusters.values():
            self.follow(cluster)
        self.secrets_changed()

    def follow(self, cluster: Cluster) -> None:
        """Follow a cluster, whose configuration or hosts may have changed."""
        check = cluster.config.health_check
        known = self._clusters.get(cluster.name)
        if check is None:
            if known is not None:
                self._forget(cluster.name)
                cluster.stats.health_check = None
            return
        stats = cluster.stats.health_check
        if stats is None:
            stats = cluster.stats.health_check = HealthCheckStats()
        before: dict[Host, HostSession] = {}
        if known is not None:
            before = known[1]
            if known[0] is not cluster and not _checked_alike(known[0], cluster):
                self._stop(before)
                before = {}
        sessions: dict[Host, HostSession] = {}
        for host in cluster.hosts:
            if not cluster.checks(host):
                continue
            session = before.get(host)
            if session is not None and session.endpoint == (host.health_check, host.hostname):
                sessions[host] = before.pop(host)
                session.cluster = cluster
                continue
            sessions[host] = session = self._session(cluster, host, check, stats)
            if self._started:
                session.start(self._state.loop)
        self._clusters[cluster.name] = cluster, sessions
        self._stop(before)

    async def stop(self) -> None:
        """End all checks and wait until they have ended."""
        for name in list(self._clusters):
            self._forget(name)
        self._found.clear()
        if self._ending:
            await asyncio.wait(self._ending)

    # Inside.

    def _forget(self, name: str) -> None:
        self._stop(self._clusters.pop(name)[1])
        self._found.pop(name, None)

    def _stop(self, sessions: dict[Host, HostSession]) -> None:
        for session in sessions.values():
            task = session.stop()
            if task is not None and not task.done():
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
        if sessions:
            # Nobody waits for the first check of a host that is gone.
            self._warm.set()

    def _session(
        self, cluster: Cluster, host: Host, check: HealthCheck, stats: HealthCheckStats
    ) -> HostSession:
        return HostSession(
            cluster,
            host,
            check,
            stats,
            self._prober(cluster, host, check, stats),
            random=self._chance,
            traffic=self._traffic,
            tell=self._tell,
        )

    def _prober(self, cluster: Cluster, host: Host, check: HealthCheck, stats: HealthCheckStats) -> Prober:
        line = Line(self._state, cluster, host, check)
        what = check.check
        reuse = check.reuse_connection
        if isinstance(what, TcpCheck):
            return TcpProber(line, what, reuse=reuse)
        field = f"cluster[{cluster.name}].health_checks[0]"
        edits = request_edits(check, field)
        name = host.health_check.hostname
        if isinstance(what, HttpCheck):

            def verified() -> None:
                stats.verify_cluster += 1

            request = http_request(what, edits, name or what.host or cluster.name, tls=line.tls)
            judge = compile_http(what, f"{field}.http_health_check", verified)
            answer = (judge, what.response_buffer_size, bool(what.receive))
            return HttpProber(line, request, answer, http2=what.http2, reuse=reuse)
        request = grpc_request(check, what, edits, name or what.authority or cluster.name, tls=line.tls)
        return HttpProber(line, request, GrpcAnswer, http2=True, reuse=reuse)

    def _tell(self, session: HostSession) -> None:
        if not self._found:
            self._state.loop.call_soon(self._flush)
        self._found.setdefault(session.cluster.name, {})[session.host.address] = session.flags
        self._warm.set()

    def _flush(self) -> None:
        found, self._found = self._found, {}
        for name, flags in found.items():
            self._publish(name, flags)


def _checked_alike(one: Cluster, other: Cluster) -> bool:
    """Whether the same questions go the same way: then nothing is asked anew because of a change elsewhere."""
    return _relevant(one) == _relevant(other)


def _relevant(cluster: Cluster) -> ClusterConfig:
    return replace(cluster.config, load_assignment=None, circuit_breakers=CircuitBreakers())
