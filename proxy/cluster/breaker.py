"""Circuit breakers: how much of a cluster may be in use at once (``config.cluster.v3.CircuitBreakers``).

The caller that was let in gives its unit back with the ``release_`` of the same name, exactly once.
"""

from __future__ import annotations

from proxy.model.cluster import CircuitBreakers
from proxy.model.stats import ClusterStats


class Breaker:
    """Limits and what is in use. It is shared by a cluster and its successors, so counts survive a swap."""

    __slots__ = ("active_connections", "active_requests", "limits", "pending", "retries", "stats")

    def __init__(self, limits: CircuitBreakers, stats: ClusterStats) -> None:
        self.limits = limits
        self.stats = stats
        self.active_connections = 0
        self.pending = 0
        self.active_requests = 0
        self.retries = 0

    def try_connection(self) -> bool:
        """Whether one more connection may be opened; counts ``upstream_cx_overflow`` if not."""
        if self.active_connections >= self.limits.max_connections:
            self.stats.upstream_cx_overflow += 1
            return False
        self.active_connections += 1
        return True

    def try_pending(self) -> bool:
        """Whether one more request may wait for a connection; counts ``upstream_rq_pending_overflow`` if not."""
        if self.pending >= self.limits.max_pending_requests:
            self.stats.upstream_rq_pending_overflow += 1
            return False
        self.pending += 1
        return True

    def try_request(self) -> bool:
        """Whether one more request may be sent; counts ``upstream_rq_active_overflow`` if not."""
        if self.active_requests >= self.limits.max_requests:
            self.stats.upstream_rq_active_overflow += 1
            return False
        self.active_requests += 1
        return True

    def try_retry(self) -> bool:
        """Whether one more retry may be under way; counts ``upstream_rq_retry_overflow`` if not."""
        if self.retries >= self.limits.max_retries:
            self.stats.upstream_rq_retry_overflow += 1
            return False
        self.retries += 1
        return True

    def release_connection(self) -> None:
        self.active_connections -= 1

    def release_pending(self) -> None:
        self.pending -= 1

    def release_request(self) -> None:
        self.active_requests -= 1

    def release_retry(self) -> None:
        self.retries -= 1
