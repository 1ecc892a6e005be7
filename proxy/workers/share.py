"""Each worker's share of what is limited for the sidecar as a whole. Pure.

The shares are rounded up, and none is less than one: together the workers may let in a few more than the limit says,
never fewer; one worker may refuse while another has room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from proxy.model.cluster import CircuitBreakers, Cluster
from proxy.model.overload import FixedHeap, OverloadManager


def share(limit: int, workers: int) -> int:
    """One worker's part of ``limit``; 0 stays 0."""
    return -(-limit // workers)


def of_cluster(cluster: Cluster, workers: int) -> Cluster:
    """``cluster`` with its circuit breakers divided."""
    limits = cluster.circuit_breakers
    return replace(
        cluster,
        circuit_breakers=CircuitBreakers(
            max_connections=share(limits.max_connections, workers),
            max_pending_requests=share(limits.max_pending_requests, workers),
            max_requests=share(limits.max_requests, workers),
            max_retries=share(limits.max_retries, workers),
        ),
    )


def of_listeners(limits: Mapping[str, int], workers: int) -> dict[str, int]:
    """Connection limits of listeners."""
    return {name: share(limit, workers) for name, limit in limits.items()}


def of_overload(manager: OverloadManager | None, workers: int) -> OverloadManager | None:
    """Connections and heap divided; a control group's memory and an injected resource are seen by all alike."""
    if manager is None:
        return None
    monitors = tuple(
        replace(monitor, resource=FixedHeap(share(monitor.resource.max_heap_size_bytes, workers)))
        if isinstance(monitor.resource, FixedHeap)
        else monitor
        for monitor in manager.monitors
    )
    connections = manager.max_connections
    return replace(
        manager,
        monitors=monitors,
        max_connections=None if connections is None else share(connections, workers),
    )
