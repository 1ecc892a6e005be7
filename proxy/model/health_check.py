"""Active health checks (``config.core.v3.HealthCheck``). Times in seconds."""

from __future__ import annotations

from typing import Literal, TypeAlias

from proxy.model.frozen import dataclass
from proxy.model.matcher import StringMatcher
from proxy.model.route import HeaderValueOption

StatusRange: TypeAlias = tuple[int, int]
"""From the first up to, not including, the second."""


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """``HttpHealthCheck``. ``host`` "" = the cluster's name; an endpoint's own name for health checks goes before both.
    ``receive``: byte strings that the body holds, in this order, looked for in its first ``response_buffer_size`` bytes
    (0: in all of it)."""

    path: str
    host: str = ""
    method: str = "GET"
    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    response_buffer_size: int = 1024
    headers_to_add: tuple[HeaderValueOption, ...] = ()
    headers_to_remove: tuple[str, ...] = ()
    expected_statuses: tuple[StatusRange, ...] = ((200, 201),)
    retriable_statuses: tuple[StatusRange, ...] = ()
    http2: bool = False
    service_name: StringMatcher | None = None


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """``TcpHealthCheck``. Without ``send`` and ``receive`` it is enough that one can connect."""

    send: bytes = b""
    receive: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """``GrpcHealthCheck``: ``grpc.health.v1.Health/Check``. ``service_name`` "" = the server as a whole."""

    service_name: str = ""
    authority: str = ""
    initial_metadata: tuple[HeaderValueOption, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the hosts of a cluster are checked. The intervals that were not set have got Envoy's defaults at decode.

    ``edge`` intervals hold while a host has begun to change and its threshold is not reached; the ``no_traffic`` ones
    until the cluster has been connected to for the first time.
    """

    check: HttpCheck | TcpCheck | GrpcCheck
    timeout: float
    interval: float
    unhealthy_threshold: int
    healthy_threshold: int
    no_traffic_interval: float
    no_traffic_healthy_interval: float
    unhealthy_interval: float
    unhealthy_edge_interval: float
    healthy_edge_interval: float
    initial_jitter: float = 0.0
    interval_jitter: float = 0.0
    interval_jitter_percent: int = 0
    reuse_connection: bool = True
    alpn_protocols: tuple[str, ...] = ()
    transport_match: tuple[tuple[str, str], ...] = ()


Failure = Literal["active", "network", "network_timeout", "passive"]
"""``data.core.v3.HealthCheckFailureType``: the host says so, cannot be reached, does not answer in time, or told it in
the answer to somebody's request."""
