"""From hosts to a function that picks one: priorities first, then the cluster's load balancing policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from proxy.cluster.host import Host
from proxy.cluster.lb.least_request import least_request
from proxy.cluster.lb.random import random_choice
from proxy.cluster.lb.round_robin import round_robin
from proxy.cluster.priority import PriorityHosts, spread
from proxy.model.cluster import Cluster
from proxy.model.stats import ClusterStats

Pick = Callable[[], Host | None]


def no_host() -> Host | None:
    """The pick of a cluster that has nothing to offer."""
    return None


def build_pick(
    config: Cluster,
    hosts: Iterable[Host],
    random: Callable[[], float],
    position: list[int],
    stats: ClusterStats,
    overprovisioning_factor: int,
) -> Pick:
    """A function that picks by priority load and policy; it must be built again when health or weights change."""
    levels: dict[int, list[Host]] = {}
    for host in hosts:
        levels.setdefault(host.priority, []).append(host)
    if not levels:
        return no_host
    ordered = [levels.get(p, []) for p in range(max(levels) + 1)]
    load = spread(
        [
            PriorityHosts(
                sum(not h.excluded for h in level),
                sum(h.healthy and not h.degraded for h in level),
                sum(h.degraded and h.healthy for h in level),
            )
            for level in ordered
        ],
        overprovisioning_factor=overprovisioning_factor,
        panic_threshold=config.panic_threshold,
    )

    shares: list[tuple[int, Pick]] = []
    for level, healthy, panic in zip(ordered, load.healthy, load.panic, strict=True):
        if healthy:
            pool = level if panic else [h for h in level if h.healthy and not h.degraded]
            pick = _policy(config, pool, random, position)
            shares.append((healthy, _counted(pick, stats) if panic else pick))
    for level, degraded in zip(ordered, load.degraded, strict=True):
        if degraded:
            shares.append(
                (degraded, _policy(config, [h for h in level if h.degraded and h.healthy], random, position))
            )
    if len(shares) == 1:
        return shares[0][1]

    def pick_by_priority() -> Host | None:
        left = random() * 100.0
        for share, pick in shares:
            left -= share
            if left < 0.0:
                return pick()
        return shares[-1][1]()

    return pick_by_priority


def _policy(config: Cluster, pool: Sequence[Host], random: Callable[[], float], position: list[int]) -> Pick:
    if not pool:
        return no_host
    if config.lb_policy == "LEAST_REQUEST":
        return least_request(pool, random, config.choice_count)
    if config.lb_policy == "RANDOM":
        return random_choice(pool, random)
    return round_robin(pool, random, position)


def _counted(pick: Pick, stats: ClusterStats) -> Pick:
    def in_panic() -> Host | None:
        stats.lb_healthy_panic += 1
        return pick()

    return in_panic
