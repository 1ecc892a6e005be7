"""Type URLs and the names of resources, as Istio has them."""

from __future__ import annotations

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

TYPE_URLS = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET)
"""All types that translate makes, in make-before-break order."""

PASSTHROUGH_CLUSTER = "PassthroughCluster"
INBOUND_PASSTHROUGH_CLUSTER = "InboundPassthroughCluster"
BLACK_HOLE_CLUSTER = "BlackHoleCluster"
INVALID_BACKEND = "InvalidBackend"
"""Named by routes to backends that cannot be resolved; it exists nowhere, and such routes answer 500 then."""

VIRTUAL_OUTBOUND = "virtualOutbound"
VIRTUAL_INBOUND = "virtualInbound"
EGRESS_HTTP = "egress_http"
ROOT_SECRET = "ROOTCA"
OWN_SECRET = "default"

MESH_ALPN = "tulle"
"""The protocol name (RFC 7301) by which sidecars know each other."""


def outbound_cluster(port: int, hostname: str, subset: str = "") -> str:
    return f"outbound|{port}|{subset}|{hostname}"


def inbound_cluster(port: int) -> str:
    return f"inbound|{port}||"


def wildcard_listener(port: int) -> str:
    return f"0.0.0.0_{port}"


def vip_listener(address: str, port: int) -> str:
    return f"{address}_{port}"


def host_port(host: str, port: int) -> str:
    """``host:port``, an IPv6 literal in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
