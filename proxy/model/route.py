"""Route configuration (``config.route.v3``)."""

from __future__ import annotations

from dataclasses import field
from typing import Literal, TypeAlias

from proxy.model.frozen import dataclass
from proxy.model.matcher import HeaderMatcher, PathMatcher, QueryParameterMatcher

AppendAction = Literal[
    "APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"
]


@dataclass(frozen=True, slots=True)
class HeaderValueOption:
    """A header to add. ``value`` may hold access-log operators, as in Envoy."""

    name: str
    value: str
    append_action: AppendAction = "APPEND_IF_EXISTS_OR_ADD"


@dataclass(frozen=True, slots=True)
class HeaderMutations:
    """What one level (route, virtual host, weighted cluster, route configuration) does to headers."""

    request_add: tuple[HeaderValueOption, ...] = ()
    request_remove: tuple[str, ...] = ()
    response_add: tuple[HeaderValueOption, ...] = ()
    response_remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All parts must match; ``grpc``: the content type is gRPC's."""

    path: PathMatcher
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``RetryPolicy``. ``retry_on`` holds Envoy's condition names; intervals are seconds."""

    retry_on: tuple[str, ...]
    num_retries: int = 1
    per_try_timeout: float | None = None
    retriable_status_codes: tuple[int, ...] = ()
    base_interval: float = 0.025
    max_interval: float = 0.25


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """One share of a split; the headers are edited only for requests that it gets."""

    name: str
    weight: int
    headers: HeaderMutations = field(default_factory=HeaderMutations)


@dataclass(frozen=True, slots=True)
class StreamDuration:
    """``MaxStreamDuration``. Seconds; ``max_stream_duration`` ``None`` = the connection manager's, 0 = no limit.

    ``grpc_timeout_header_max``: a request's ``grpc-timeout`` is the limit instead, up to this, 0 = any; ``None`` = it
    is not. ``grpc_timeout_header_offset`` is taken off it.
    """

    max_stream_duration: float | None = None
    grpc_timeout_header_max: float | None = None
    grpc_timeout_header_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class RouteAction:
    """Forward. ``clusters`` has one entry for a plain cluster, several for ``weighted_clusters``.

    ``timeout`` seconds, 0 = none (Envoy's default is 15 s, applied at decode). ``upgrades``: upgrade types (lower case)
    and whether they are enabled; ``terminates_connect``: the bytes of a CONNECT go to the cluster as they are.
    ``stream_duration``, if set, takes the place of ``timeout`` and of the deprecated ``max_grpc_timeout``, which makes
    a gRPC request's ``grpc-timeout`` its timeout (up to this, 0 = any; ``None`` = no), less ``grpc_timeout_offset``.
    """

    clusters: tuple[WeightedCluster, ...]
    cluster_not_found_response_code: int = 503
    prefix_rewrite: str = ""
    host_rewrite_literal: str = ""
    timeout: float = 15.0
    idle_timeout: float | None = None
    retry_policy: RetryPolicy | None = None
    upgrades: tuple[tuple[str, bool], ...] = ()
    terminates_connect: bool = False
    stream_duration: StreamDuration | None = None
    append_x_forwarded_host: bool = False
    max_grpc_timeout: float | None = None
    grpc_timeout_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class RedirectAction:
    """``RedirectAction``; ``None`` keeps that part of the URL."""

    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    prefix_rewrite: str | None = None
    response_code: int = 301
    strip_query: bool = False


@dataclass(frozen=True, slots=True)
class DirectResponseAction:
    """A fixed answer."""

    status: int
    body: bytes = b""


Action: TypeAlias = RouteAction | RedirectAction | DirectResponseAction


@dataclass(frozen=True, slots=True)
class RequestBuffers:
    """Bytes of a request that may be kept to send it again; ``None``: the listener's limit of a connection.

    ``per_request_buffer_limit_bytes`` can only lower that, ``request_body_buffer_limit`` takes its place.
    """

    per_request_buffer_limit_bytes: int | None = None
    request_body_buffer_limit: int | None = None

    def limit(self, connection_limit: int) -> int:
        if self.request_body_buffer_limit is not None:
            return self.request_body_buffer_limit
        if self.per_request_buffer_limit_bytes is not None:
            return min(self.per_request_buffer_limit_bytes, connection_limit)
        return connection_limit


@dataclass(frozen=True, slots=True)
class Route:
    """One route; the first of a virtual host that matches wins."""

    name: str
    match: RouteMatch
    action: Action
    headers: HeaderMutations = field(default_factory=HeaderMutations)
    buffers: RequestBuffers = field(default_factory=RequestBuffers)


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """``domains``: exact, ``*.suffix``, ``prefix.*`` or ``*``, longest first in that order of kinds."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    headers: HeaderMutations = field(default_factory=HeaderMutations)
    require_tls: Literal["NONE", "EXTERNAL_ONLY", "ALL"] = "NONE"
    include_request_attempt_count: bool = False
    include_attempt_count_in_response: bool = False


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    """A named table of virtual hosts."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    headers: HeaderMutations = field(default_factory=HeaderMutations)
    ignore_port_in_host_matching: bool = False
