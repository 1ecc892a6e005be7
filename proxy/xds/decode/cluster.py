"""Clusters (``config.cluster.v3``)."""

from __future__ import annotations

from typing import Any, Literal

from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2

from proxy.model.address import BindConfig, SocketAddress
from proxy.model.cluster import (
    CircuitBreakers,
    Cluster,
    DiscoveryType,
    LbPolicy,
    LoadAssignment,
    TransportSocketMatch,
)
from proxy.model.health_check import HealthCheck
from proxy.model.tls import UpstreamTls
from proxy.xds.decode import address, tls
from proxy.xds.decode.dns_srv import dns_srv
from proxy.xds.decode.endpoint import labels, load_assignment
from proxy.xds.decode.fields import (
    check,
    duration,
    enum,
    forbid,
    known,
    required,
    unpack,
    wrapped,
)
from proxy.xds.decode.health_check import health_check
from proxy.xds.decode.protocol_options import OLD_FIELDS, ProtocolOptions, protocol_options
from proxy.xds.decode.upstream_proxy_protocol import transport_socket

_CLUSTER = known(
    "name",
    "alt_stat_name",
    "type",
    "cluster_type",
    "eds_cluster_config",
    "connect_timeout",
    "per_connection_buffer_limit_bytes",
    "lb_policy",
    "load_assignment",
    "circuit_breakers",
    "max_requests_per_connection",
    "typed_extension_protocol_options",
    *OLD_FIELDS,
    "dns_refresh_rate",
    "respect_dns_ttl",
    "dns_lookup_family",
    "dns_resolvers",
    "typed_dns_resolver_config",
    "upstream_bind_config",
    "common_lb_config",
    "least_request_lb_config",
    "round_robin_lb_config",
    "original_dst_lb_config",
    "transport_socket",
    "transport_socket_matches",
    "health_checks",
    "ignore_health_on_host_removal",
    "close_connections_on_host_health_failure",
    without_effect={"metadata": "carries information for other readers of the configuration"},
)
_EDS = known("eds_config", "service_name")
_BREAKERS = known("thresholds")
_THRESHOLDS = known("priority", "max_connections", "max_pending_requests", "max_requests", "max_retries")
_COMMON_LB = known("healthy_panic_threshold", "ignore_new_hosts_until_first_hc")
_PERCENT = known("value")
_LEAST_REQUEST = known("choice_count")
_SOCKET_MATCH = known("name", "match", "transport_socket")
_RESOLVER = known("typed_config", without_effect={"name": "is a label; the type URL decides"})
_CARES = known("resolvers")
_ORIGINAL_DST = known("upstream_port_override")
_EMPTY = known()

_TYPES: dict[str, DiscoveryType] = {
    "STATIC": "STATIC",
    "STRICT_DNS": "STRICT_DNS",
    "LOGICAL_DNS": "LOGICAL_DNS",
    "EDS": "EDS",
    "ORIGINAL_DST": "ORIGINAL_DST",
}
_POLICIES: dict[str, LbPolicy] = {
    "ROUND_ROBIN": "ROUND_ROBIN",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "RANDOM": "RANDOM",
    "CLUSTER_PROVIDED": "CLUSTER_PROVIDED",
}
_FAMILIES = {name: name for name in ("AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL")}
_DNS = ("STRICT_DNS", "LOGICAL_DNS")


def cluster(message: Any) -> Cluster:
    """A ``Cluster``."""
    path = f"cluster[{message.name}]"
    check(message, path, _CLUSTER)
    required(message.name, f"{path}.name")
    srv = dns_srv(message.cluster_type, f"{path}.cluster_type") if message.HasField("cluster_type") else None
    kind: DiscoveryType = "DNS_SRV" if srv is not None else enum(message, path, "type", _TYPES)
    policy = enum(message, path, "lb_policy", _POLICIES)
    forbid(
        (policy == "CLUSTER_PROVIDED") != (kind == "ORIGINAL_DST"),
        f"{path}.lb_policy",
        f"{policy} does not go with type {kind}: CLUSTER_PROVIDED and ORIGINAL_DST belong together",
    )
    timeout = duration(message, path, "connect_timeout", 5.0)
    forbid(timeout <= 0, f"{path}.connect_timeout", "must be above 0")
    refresh = duration(message, path, "dns_refresh_rate", 5.0)
    forbid(refresh <= 0.001, f"{path}.dns_refresh_rate", "must be above 1 ms")
    protocol = protocol_options(message, path)
    bind = BindConfig()
    if message.HasField("upstream_bind_config"):
        bind = address.bind_config(message.upstream_bind_config, f"{path}.upstream_bind_config")
    secured: UpstreamTls | None = None
    header: Literal[0, 1, 2] = 0
    if message.HasField("transport_socket"):
        secured, header = transport_socket(message.transport_socket, f"{path}.transport_socket")
    forbid(
        bool(header and message.transport_socket_matches),
        f"{path}.transport_socket_matches",
        "does not go with the PROXY protocol",
    )
    matches = tuple(
        _socket_match(item, f"{path}.transport_socket_matches[{index}]")
        for index, item in enumerate(message.transport_socket_matches)
    )
    _check_negotiable(protocol, secured, matches)
    return Cluster(
        name=message.name,
        type=kind,
        lb_policy=policy,
        connect_timeout=timeout,
        load_assignment=_endpoints(message, path, kind),
        eds_service_name=_eds(message, path, kind),
        dns_srv=srv,
        dns_refresh_rate=refresh,
        respect_dns_ttl=message.respect_dns_ttl,
        dns_lookup_family=enum(message, path, "dns_lookup_family", _FAMILIES),  # type: ignore[arg-type]
        dns_resolvers=_resolvers(message, path),
        tls=secured,
        transport_socket_matches=matches,
        bind_config=bind,
        circuit_breakers=_circuit_breakers(message, path),
        choice_count=_choice_count(message, path),
        idle_timeout=protocol.idle_timeout,
        max_connection_duration=protocol.max_connection_duration,
        max_requests_per_connection=protocol.max_requests_per_connection,
        max_response_headers_kb=protocol.max_response_headers_kb,
        max_http2_response_headers_kb=protocol.max_http2_response_headers_kb,
        max_headers_count=protocol.max_headers_count,
        protocol=protocol.protocol,
        http2=protocol.http2,
        per_connection_buffer_limit_bytes=wrapped(message, "per_connection_buffer_limit_bytes", 1024 * 1024),
        alt_stat_name=message.alt_stat_name,
        panic_threshold=_panic_threshold(message, path),
        proxy_protocol=header,
        original_dst_port=_original_dst_port(message, path),
        health_check=_health_check(message, path, kind, http2=protocol.protocol != "HTTP1"),
        ignore_health_on_host_removal=message.ignore_health_on_host_removal,
        close_connections_on_host_health_failure=message.close_connections_on_host_health_failure,
        ignore_new_hosts_until_first_hc=message.common_lb_config.ignore_new_hosts_until_first_hc,
    )


def _endpoints(message: Any, path: str, kind: DiscoveryType) -> LoadAssignment | None:
    if kind not in ("STATIC", *_DNS):
        forbid(
            message.HasField("load_assignment"), f"{path}.load_assignment", f"does not go with type {kind}"
        )
        return None
    at = f"{path}.load_assignment"
    forbid(not message.HasField("load_assignment"), at, f"is required with type {kind}")
    found = load_assignment(message.load_assignment, at, names=kind in _DNS)
    count = sum(len(locality.endpoints) for locality in found.localities)
    forbid(kind == "LOGICAL_DNS" and count != 1, at, f"LOGICAL_DNS needs exactly one endpoint, not {count}")
    return found


def _eds(message: Any, path: str, kind: DiscoveryType) -> str:
    at = f"{path}.eds_cluster_config"
    if kind != "EDS":
        forbid(message.HasField("eds_cluster_config"), at, f"does not go with type {kind}")
        return ""
    forbid(not message.HasField("eds_cluster_config"), at, "is required with type EDS")
    check(message.eds_cluster_config, at, _EDS)
    tls.require_ads(message.eds_cluster_config.eds_config, f"{at}.eds_config")
    name: str = message.eds_cluster_config.service_name
    return name


def _circuit_breakers(message: Any, path: str) -> CircuitBreakers:
    path = f"{path}.circuit_breakers"
    check(message.circuit_breakers, path, _BREAKERS)
    thresholds = message.circuit_breakers.thresholds
    if not thresholds:
        return CircuitBreakers()
    forbid(len(thresholds) > 1, f"{path}.thresholds", "only one entry, of priority DEFAULT, is supported")
    first = thresholds[0]
    at = f"{path}.thresholds[0]"
    check(first, at, _THRESHOLDS)
    enum(first, at, "priority", {"DEFAULT": None})
    return CircuitBreakers(
        wrapped(first, "max_connections", 1024),
        wrapped(first, "max_pending_requests", 1024),
        wrapped(first, "max_requests", 1024),
        wrapped(first, "max_retries", 3),
    )


def _check_negotiable(
    protocol: ProtocolOptions, secured: UpstreamTls | None, matches: tuple[TransportSocketMatch, ...]
) -> None:
    """As Envoy: without TLS there is nothing that could agree on a protocol."""
    plain = secured is None or any(match.tls is None for match in matches)
    forbid(
        protocol.protocol == "AUTO" and plain, protocol.path, "needs TLS on every connection, for its ALPN"
    )


def _resolvers(message: Any, path: str) -> tuple[SocketAddress, ...]:
    listed, at = message.dns_resolvers, f"{path}.dns_resolvers"
    if message.HasField("typed_dns_resolver_config"):
        at = f"{path}.typed_dns_resolver_config"
        check(message.typed_dns_resolver_config, at, _RESOLVER)
        at = f"{at}.typed_config"
        kinds = (cares_dns_resolver_pb2.CaresDnsResolverConfig,)
        cares = unpack(message.typed_dns_resolver_config.typed_config, at, kinds)
        check(cares, at, _CARES)
        listed, at = cares.resolvers, f"{at}.resolvers"
    found = []
    for index, item in enumerate(listed):
        # Resolvers are asked over UDP first, and so Envoy's examples write them.
        inner = type(item)()
        inner.CopyFrom(item)
        inner.socket_address.protocol = 0
        found.append(address.address(inner, f"{at}[{index}]"))
    return tuple(found)


def _choice_count(message: Any, path: str) -> int:
    check(message.round_robin_lb_config, f"{path}.round_robin_lb_config", _EMPTY)
    at = f"{path}.least_request_lb_config"
    check(message.least_request_lb_config, at, _LEAST_REQUEST)
    count: int = wrapped(message.least_request_lb_config, "choice_count", 2)
    forbid(count < 2, f"{at}.choice_count", "must be at least 2")
    return count


def _health_check(message: Any, path: str, kind: DiscoveryType, *, http2: bool) -> HealthCheck | None:
    if not message.health_checks:
        return None
    at = f"{path}.health_checks"
    forbid(len(message.health_checks) > 1, at, "only one is supported")
    forbid(kind == "ORIGINAL_DST", at, "does not go with type ORIGINAL_DST, whose hosts nobody lists")
    return health_check(message.health_checks[0], f"{at}[0]", http2=http2)


def _original_dst_port(message: Any, path: str) -> int:
    """The port that original destinations are connected at, 0 = their own."""
    path = f"{path}.original_dst_lb_config"
    config = message.original_dst_lb_config
    check(config, path, _ORIGINAL_DST)
    port: int = wrapped(config, "upstream_port_override", 0)
    forbid(
        config.HasField("upstream_port_override") and not 1 <= port <= 65535,
        f"{path}.upstream_port_override",
        f"{port} is not a port",
    )
    return port


def _panic_threshold(message: Any, path: str) -> float:
    path = f"{path}.common_lb_config"
    check(message.common_lb_config, path, _COMMON_LB)
    if not message.common_lb_config.HasField("healthy_panic_threshold"):
        return 50.0
    at = f"{path}.healthy_panic_threshold"
    check(message.common_lb_config.healthy_panic_threshold, at, _PERCENT)
    value: float = message.common_lb_config.healthy_panic_threshold.value
    forbid(not 0 <= value <= 100, f"{at}.value", f"{value:g} is not from 0 to 100")
    return value


def _socket_match(message: Any, path: str) -> TransportSocketMatch:
    check(message, path, _SOCKET_MATCH)
    return TransportSocketMatch(
        required(message.name, f"{path}.name"),
        labels(message.match, f"{path}.match"),
        tls.upstream(message.transport_socket, f"{path}.transport_socket"),
    )
