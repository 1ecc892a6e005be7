"""A compiled route and where it leads. Read-only on the way of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.cluster.cluster import Cluster
from proxy.model.reply import Reply
from proxy.model.route import RequestBuffers, RetryPolicy, RouteConfiguration, StreamDuration
from proxy.model.stats import RouteStats
from proxy.route.edits import HeaderEdits
from proxy.route.match import RouteTable

_NO_BUFFERS = RequestBuffers()


class Target:
    """Where a request goes. ``cluster`` ``None``: no such cluster; answer ``not_found`` (flag ``NC``)."""

    __slots__ = ("cluster", "cluster_name", "not_found", "request_edits", "response_edits")

    def __init__(
        self,
        cluster_name: str,
        cluster: Cluster | None,
        not_found: Reply,
        request_edits: HeaderEdits | None = None,
        response_edits: HeaderEdits | None = None,
    ) -> None:
        self.cluster_name = cluster_name
        self.cluster = cluster
        self.not_found = not_found
        self.request_edits = request_edits
        self.response_edits = response_edits


@dataclass(frozen=True, slots=True, eq=False)
class RouteEntry:
    """One route.

    Exactly one of ``direct``, ``redirect`` and ``choose`` is set.
    ``redirect(host, target, scheme)`` takes the authority, the normalised request target and ``b"http"``/``b"https"``
    and gives the reply. ``rewrite_target(target)`` gives the target to send upstream (query included), ``None`` =
    as it is; ``host_rewrite`` replaces the authority. ``timeout`` and ``idle_timeout`` are seconds, 0 = none;
    ``idle_timeout`` ``None`` = the connection manager's. ``response_edits`` is for answers made here before
    a ``Target`` is chosen, which has its own. ``upgrades``: what the route itself says of upgrade types.

    ``stream_duration``, if there: no timeout but that of the stream applies, and what it comes to is what
    ``grpc-timeout`` tells the upstream.
    ``max_grpc_timeout`` not ``None``: of gRPC requests the ``grpc-timeout`` (none = 0 = no limit), less
    ``grpc_timeout_offset`` where that is less, then at most ``max_grpc_timeout`` (0 = any), replaces ``timeout``.
    """

    name: str
    virtual_host: str
    stats: RouteStats
    direct: Reply | None = None
    redirect: Callable[[bytes, bytes, bytes], Reply] | None = None
    choose: Callable[[], Target] | None = None
    timeout: float = 15.0
    idle_timeout: float | None = None
    retry: RetryPolicy | None = None
    buffers: RequestBuffers = _NO_BUFFERS
    rewrite_target: Callable[[bytes], bytes] | None = None
    host_rewrite: bytes | None = None
    response_edits: HeaderEdits | None = None
    upgrades: Mapping[bytes, bool] | None = None
    terminates_connect: bool = False
    max_stream_duration: float | None = None
    stream_duration: StreamDuration | None = None
    max_grpc_timeout: float | None = None
    grpc_timeout_offset: float = 0.0
    counts_attempts: bool = False
    append_x_forwarded_host: bool = False


@dataclass(frozen=True, slots=True)
class CompiledTable:
    """A table, what it was made of, and the clusters it leads to as they were (``None``: there was none)."""

    config: RouteConfiguration
    clusters: tuple[tuple[str, Cluster | None], ...]
    table: RouteTable[RouteEntry]
