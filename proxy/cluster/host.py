"""One endpoint of a cluster, with what is counted about it. It owns no connection; ``idle`` is the pool's list."""

from __future__ import annotations

from typing import Any

from proxy.cluster import flags as health_flags
from proxy.model.cluster import ENDPOINT_HEALTH_CHECK
from proxy.model.connection import Address, Ends
from proxy.model.tls import UpstreamTls


class Host:
    """An upstream host.

    It keeps its identity (and so its connections and counts) while its cluster goes on to list the same address with
    the same ``tls``. ``removed`` turns true when that ends: its idle connections are to be closed, its busy ones are
    to be closed when they fall idle. ``idle`` belongs to ``proxy.upstream.pool``, as do ``http2_idle``, for
    clusters whose requests go on in the version that they came in, and ``max_streams``: how
    many streams at a time its HTTP/2 connections were allowed last, 0 = not known. With ``ends`` its
    connections are on behalf of one client alone, and ``origin`` is the host that this stands for.
    ``epoch`` rises each time that health checks have found it failed: connections of an earlier one are not kept.
    ``flags`` are those of ``proxy.cluster.flags``, changed by :meth:`mark`; ``healthy``, ``degraded`` and
    ``excluded`` are what they come to.
    """

    __slots__ = (
        "active",
        "address",
        "connect_failures",
        "cx_active",
        "degraded",
        "ends",
        "epoch",
        "excluded",
        "flags",
        "health_check",
        "healthy",
        "hostname",
        "http2_idle",
        "idle",
        "label",
        "max_streams",
        "origin",
        "priority",
        "removed",
        "rq_error",
        "rq_success",
        "rq_total",
        "tls",
        "weight",
    )

    def __init__(
        self,
        address: Address,
        *,
        weight: int = 1,
        priority: int = 0,
        healthy: bool = True,
        degraded: bool = False,
        tls: UpstreamTls | None = None,
        hostname: str = "",
    ) -> None:
        self.address = address
        self.label = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        self.hostname = hostname
        self.weight = weight
        self.priority = priority
        self.epoch = 0
        self.flags = 0
        self.healthy = True
        self.degraded = self.excluded = False
        if not healthy or degraded:
            self.mark(health_flags.FAILED_EDS_HEALTH, not healthy)
            self.mark(health_flags.DEGRADED_EDS_HEALTH, degraded)
        self.health_check = ENDPOINT_HEALTH_CHECK
        self.tls = tls
        self.active = 0
        self.connect_failures = 0
        self.cx_active = 0
        self.rq_total = 0
        self.rq_success = 0
        self.rq_error = 0
        self.idle: list[Any] = []
        self.http2_idle: list[Any] = []
        self.removed = False
        self.max_streams = 0
        self.ends: Ends | None = None
        self.origin: Host | None = None

    def mark(self, flags: int, on: bool) -> None:
        """Set or clear ``flags``; the cluster is to be refreshed."""
        self.flags = self.flags | flags if on else self.flags & ~flags
        self.healthy = not self.flags & health_flags.UNHEALTHY
        self.degraded = bool(self.flags & health_flags.DEGRADED)
        self.excluded = bool(self.flags & health_flags.EXCLUDED)

    def __repr__(self) -> str:
        return f"<Host {self.label} priority={self.priority} weight={self.weight} healthy={self.healthy}>"
