"""Clusters: one for each port of each service, and the few that every sidecar has.

They depend on the node only by its kind of data plane, its capture mark and whether it has IPv6, so sidecars share
them. This module must not know listeners or routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, socket_option_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import struct_pb2
from xds.type.v3 import typed_struct_pb2

from control_plane.registry.service import AppProtocol, MeshEndpoint, MeshPort, MeshService, Resolution
from control_plane.translate import names
from control_plane.translate.effective import identities
from control_plane.translate.endpoints import load_assignment
from control_plane.translate.http_version import http2_to_app, http2_to_service, speak_as_client, speak_http2
from control_plane.translate.node import HostPort
from control_plane.translate.pack import ADS, duration, packed, socket_address, uint32
from control_plane.translate.settings import MeshSettings
from control_plane.translate.tls import exact, raw_buffer, spiffe_id, upstream_tls

SRV_CLUSTER = "tulle.clusters.dns_srv"
SRV_TYPE_URL = "type.googleapis.com/tulle.clusters.dns_srv.v1.DnsSrvCluster"

_SOL_SOCKET = 1
_SO_MARK = 36
_INBOUND_SOURCE_V4 = "127.0.0.6"
_INBOUND_SOURCE_V6 = "::6"


def service_cluster(
    service: MeshService,
    port: MeshPort,
    endpoints: tuple[MeshEndpoint, ...],
    mark: int,
    settings: MeshSettings,
) -> Any:
    """The cluster of one port of a service. ``endpoints`` as far as the view knows them."""
    cluster = _cluster(names.outbound_cluster(port.number, service.hostname), mark, settings)
    http2 = http2_to_service(port.protocol, endpoints, settings.h2_upgrade_policy)
    if http2:
        speak_http2(cluster)
    if service.resolution is Resolution.PASSTHROUGH:
        cluster.type = cluster_pb2.Cluster.ORIGINAL_DST
        cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
        return cluster
    cluster.lb_policy = cluster_pb2.Cluster.LEAST_REQUEST
    if service.resolution is Resolution.EDS:
        cluster.type = cluster_pb2.Cluster.EDS
        cluster.eds_cluster_config.CopyFrom(
            cluster_pb2.Cluster.EdsClusterConfig(eds_config=ADS, service_name=cluster.name)
        )
    elif service.resolution is Resolution.DNS:
        cluster.type = cluster_pb2.Cluster.STRICT_DNS
        cluster.load_assignment.CopyFrom(load_assignment(cluster.name, endpoints))
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    else:
        cluster.cluster_type.CopyFrom(_srv(service, port, settings))
        # RFC 2782 weights are shares of the traffic; least request would bend them towards idle targets.
        cluster.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
    _secure(cluster, service, endpoints, http2, settings)
    return cluster


def _secure(
    cluster: Any,
    service: MeshService,
    endpoints: tuple[MeshEndpoint, ...],
    http2: bool,
    settings: MeshSettings,
) -> None:
    """Mutual TLS to endpoints that have a sidecar, with exactly the identities that are known of them."""
    secured = identities(endpoints)
    if service.resolution is Resolution.DNS_SRV:
        # Which endpoints there are is known to the sidecar alone, so one answer holds for all of them.
        if secured:
            cluster.transport_socket.CopyFrom(_tls(service, secured, http2, settings))
    elif secured:
        match = struct_pb2.Struct(fields={"tlsMode": struct_pb2.Value(string_value="tulle")})
        cluster.transport_socket_matches.add(
            name="tlsMode-tulle", match=match, transport_socket=_tls(service, secured, http2, settings)
        )
        cluster.transport_socket_matches.add(
            name="tlsMode-disabled", match=struct_pb2.Struct(), transport_socket=raw_buffer()
        )


def _tls(
    service: MeshService, secured: Iterable[tuple[str, str]], http2: bool, settings: MeshSettings
) -> Any:
    allowed = [exact(spiffe_id(settings.trust_domain, namespace, account)) for namespace, account in secured]
    return upstream_tls(allowed, service.hostname, http2=http2)


def _srv(service: MeshService, port: MeshPort, settings: MeshSettings) -> Any:
    value: dict[str, Any] = {
        "srv_name": service.srv_name or f"_{port.name}._tcp.{service.hostname}",
        "min_ttl": f"{settings.srv_min_ttl:g}s",
        "max_ttl": f"{settings.srv_max_ttl:g}s",
    }
    if settings.dns_resolvers:
        value["resolvers"] = list(settings.dns_resolvers)
    config = typed_struct_pb2.TypedStruct(type_url=SRV_TYPE_URL)
    config.value.update(value)
    return cluster_pb2.Cluster.CustomClusterType(name=SRV_CLUSTER, typed_config=packed(config))


def passthrough_cluster(mark: int, settings: MeshSettings) -> Any:
    """Whatever the app dialled."""
    cluster = _cluster(names.PASSTHROUGH_CLUSTER, mark, settings)
    speak_as_client(cluster)
    cluster.type = cluster_pb2.Cluster.ORIGINAL_DST
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    return cluster


def black_hole_cluster(settings: MeshSettings) -> Any:
    """No endpoint, ever: connections to it are closed."""
    cluster = _cluster(names.BLACK_HOLE_CLUSTER, 0, settings)
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.cluster_name = cluster.name
    return cluster


def app_cluster(name: str, protocol: AppProtocol, mark: int, ipv6: bool, settings: MeshSettings) -> Any:
    """The app at the address that was dialled, from a source that capture leaves alone."""
    cluster = _app(name, protocol, mark, settings)
    cluster.type = cluster_pb2.Cluster.ORIGINAL_DST
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    cluster.upstream_bind_config.source_address.CopyFrom(
        address_pb2.SocketAddress(address=_INBOUND_SOURCE_V4, port_value=0)
    )
    if ipv6:
        cluster.upstream_bind_config.extra_source_addresses.add(
            address=address_pb2.SocketAddress(address=_INBOUND_SOURCE_V6, port_value=0)
        )
    return cluster


def local_cluster(
    name: str, protocol: AppProtocol, endpoint: HostPort, mark: int, settings: MeshSettings
) -> Any:
    """The app at a fixed address of this host."""
    cluster = _app(name, protocol, mark, settings)
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.CopyFrom(
        endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                endpoint_components_pb2.LocalityLbEndpoints(
                    lb_endpoints=[
                        endpoint_components_pb2.LbEndpoint(
                            endpoint=endpoint_components_pb2.Endpoint(
                                address=socket_address(endpoint.host, endpoint.port)
                            )
                        )
                    ]
                )
            ],
        )
    )
    return cluster


def _app(name: str, protocol: AppProtocol, mark: int, settings: MeshSettings) -> Any:
    cluster = _cluster(name, mark, settings)
    if http2_to_app(protocol):
        speak_http2(cluster)
    return cluster


def _cluster(name: str, mark: int, settings: MeshSettings) -> Any:
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=uint32(settings.max_connections),
        max_pending_requests=uint32(settings.max_pending_requests),
        max_requests=uint32(settings.max_requests),
        max_retries=uint32(settings.max_retries),
    )
    cluster = cluster_pb2.Cluster(
        name=name,
        connect_timeout=duration(settings.connect_timeout),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds]),
    )
    if mark:
        option = socket_option_pb2.SocketOption(
            level=_SOL_SOCKET, name=_SO_MARK, int_value=mark, state="STATE_PREBIND"
        )
        cluster.upstream_bind_config.socket_options.append(option)
    return cluster
