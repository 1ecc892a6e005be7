"""A sidecar under test that checks its hosts, as ``proxy.app`` joins the parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from proxy.health.checker import HealthChecker
from proxy.model.cluster import Cluster
from proxy.model.connection import Address
from proxy.model.health_check import GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from proxy.model.listener import Listener
from proxy.model.stats import HealthCheckStats
from proxy.tls.store import SecretStore
from proxy.upstream.loop_state import LoopState
from tests.fakes.sidecar import Sidecar, sidecar


def health_check(
    check: GrpcCheck | HttpCheck | TcpCheck, interval: float = 0.05, **options: Any
) -> HealthCheck:
    """Every ``interval`` seconds, whatever is known; two failures of the network, and two passes, are enough."""
    given = {
        "timeout": 5.0,
        "interval": interval,
        "unhealthy_threshold": 2,
        "healthy_threshold": 2,
        "no_traffic_interval": interval,
        "no_traffic_healthy_interval": interval,
        "unhealthy_interval": interval,
        "unhealthy_edge_interval": interval,
        "healthy_edge_interval": interval,
        **options,
    }
    return HealthCheck(check, **given)


@dataclass
class Checked:
    """``running`` with its ``checker``."""

    running: Sidecar
    checker: HealthChecker

    def stats(self, cluster: str = "up") -> HealthCheckStats:
        found: HealthCheckStats = self.running.cluster_stats(cluster).health_check
        return found

    def healthy(self, cluster: str = "up") -> list[bool]:
        return [host.healthy for host in self.running.hub.current.clusters[cluster].hosts]


@asynccontextmanager
async def checked(*parts: Listener | Cluster, secrets: SecretStore | None = None) -> AsyncIterator[Checked]:
    """From after the first round. At its end no task is left."""
    async with sidecar(*parts, secrets=secrets) as running:
        hub = running.hub

        def publish(name: str, found: Mapping[Address, int]) -> None:
            hub.current.clusters[name].set_health(found)
            checker.follow(hub.current.clusters[name])

        state = LoopState(asyncio.get_running_loop(), hub, running.secrets)
        checker = HealthChecker(
            state, publish, lambda name: running.cluster_stats(name).upstream_cx_total > 0
        )
        hub.subscribe(lambda old, new: checker.reconcile(new.clusters))
        checker.reconcile(hub.current.clusters)
        checker.start()
        try:
            await asyncio.wait_for(checker.first_round(), 30)
            yield Checked(running, checker)
        finally:
            await checker.stop()
            assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("health check")]
