"""Clusters and endpoints (``config.cluster.v3``, ``config.endpoint.v3``)."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from proxy.model.address import BindConfig, SocketAddress
from proxy.model.frozen import dataclass
from proxy.model.health_check import HealthCheck
from proxy.model.http2 import HTTP2_DEFAULTS, Http2Options
from proxy.model.tls import UpstreamTls

HealthStatus = Literal["UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"]
DiscoveryType = Literal["STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST", "DNS_SRV"]
LbPolicy = Literal["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "CLUSTER_PROVIDED"]
UpstreamProtocol = Literal["HTTP1", "HTTP2", "AUTO", "DOWNSTREAM"]


@dataclass(frozen=True, slots=True)
class EndpointHealthCheck:
    """``Endpoint.HealthCheckConfig``: where and as whom it is checked; 0 and "" = as it is used."""

    port: int = 0
    address: str = ""
    hostname: str = ""
    disabled: bool = False


ENDPOINT_HEALTH_CHECK = EndpointHealthCheck()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``LbEndpoint``. ``transport_match`` is its ``envoy.transport_socket_match`` metadata."""

    address: SocketAddress
    hostname: str = ""
    weight: int = 1
    health_status: HealthStatus = "UNKNOWN"
    transport_match: tuple[tuple[str, str], ...] = ()
    health_check: EndpointHealthCheck = ENDPOINT_HEALTH_CHECK


@dataclass(frozen=True, slots=True)
class LocalityEndpoints:
    """``LocalityLbEndpoints``; priority 0 is tried first."""

    endpoints: tuple[Endpoint, ...]
    priority: int = 0
    weight: int = 0
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class LoadAssignment:
    """``ClusterLoadAssignment``."""

    cluster_name: str
    localities: tuple[LocalityEndpoints, ...] = ()
    overprovisioning_factor: int = 140


@dataclass(frozen=True, slots=True)
class CircuitBreakers:
    """``CircuitBreakers.Thresholds`` of the default priority, with Envoy's defaults."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3


@dataclass(frozen=True, slots=True)
class TransportSocketMatch:
    """The first whose ``match`` is contained in the endpoint's metadata applies; ``tls`` ``None`` = raw buffer."""

    name: str
    match: tuple[tuple[str, str], ...]
    tls: UpstreamTls | None


@dataclass(frozen=True, slots=True)
class DnsSrv:
    """``tulle.clusters.dns_srv.v1.DnsSrvCluster`` (RFC 2782). Times in seconds; resolvers empty = the system's."""

    srv_name: str
    resolvers: tuple[SocketAddress, ...] = ()
    min_ttl: float = 1.0
    max_ttl: float = 300.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """``Cluster``. Times in seconds; ``idle_timeout`` closes pooled connections, 0 = never.

    ``protocol``: AUTO is what the TLS handshake agrees on, DOWNSTREAM what the request came by. A connection takes no
    new request after ``max_connection_duration``, 0 = no end. ``max_http2_response_headers_kb`` is the limit on
    HTTP/2, ``max_response_headers_kb`` that on HTTP/1.1.
    ``proxy_protocol``: the version of the header that goes before everything else on a connection
    (``ProxyProtocolUpstreamTransport``), 0 = none. ``original_dst_port`` replaces the port of original destinations.
    ``health_check`` is the only one of ``health_checks``. A host that is not listed any more stays while it passes,
    unless ``ignore_health_on_host_removal``; with ``ignore_new_hosts_until_first_hc`` one counts only when it was
    checked. ``close_connections_on_host_health_failure`` is about relayed connections; those for HTTP are not kept.
    """

    name: str
    type: DiscoveryType
    lb_policy: LbPolicy = "ROUND_ROBIN"
    connect_timeout: float = 5.0
    load_assignment: LoadAssignment | None = None
    eds_service_name: str = ""
    dns_srv: DnsSrv | None = None
    dns_refresh_rate: float = 5.0
    respect_dns_ttl: bool = False
    dns_lookup_family: Literal["AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"] = "AUTO"
    dns_resolvers: tuple[SocketAddress, ...] = ()
    tls: UpstreamTls | None = None
    transport_socket_matches: tuple[TransportSocketMatch, ...] = ()
    bind_config: BindConfig = field(default_factory=BindConfig)
    circuit_breakers: CircuitBreakers = field(default_factory=CircuitBreakers)
    choice_count: int = 2
    idle_timeout: float = 3600.0
    max_connection_duration: float = 0.0
    max_requests_per_connection: int = 0
    max_response_headers_kb: int = 80
    max_http2_response_headers_kb: int = 60
    max_headers_count: int = 100
    protocol: UpstreamProtocol = "HTTP1"
    http2: Http2Options = HTTP2_DEFAULTS
    per_connection_buffer_limit_bytes: int = 1024 * 1024
    alt_stat_name: str = ""
    panic_threshold: float = 50.0
    proxy_protocol: Literal[0, 1, 2] = 0
    original_dst_port: int = 0
    health_check: HealthCheck | None = None
    ignore_health_on_host_removal: bool = False
    ignore_new_hosts_until_first_hc: bool = False
    close_connections_on_host_health_failure: bool = False
