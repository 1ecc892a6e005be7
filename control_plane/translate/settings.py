"""What is said of the whole mesh, outside the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

H2UpgradePolicy = Literal["DO_NOT_UPGRADE", "UPGRADE"]


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Mesh-wide choices. Times in seconds.

    ``root_namespace``: policies in it hold for all namespaces. ``outbound_policy``: what becomes of traffic to
    hosts that the mesh does not know. ``h2_upgrade_policy``: whether HTTP/1.1 requests share HTTP/2 connections between
    sidecars (Istio's ``meshConfig.h2UpgradePolicy``). ``dns_resolvers``: ``host:port`` of the DNS servers for SRV
    clusters, empty = the sidecar's system resolvers. ``max_*``: circuit-breaker thresholds of every cluster (Envoy's
    defaults).
    """

    trust_domain: str = "mesh.local"
    mesh_domain: str = "mesh.local"
    root_namespace: str = "tulle-system"
    outbound_policy: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    h2_upgrade_policy: H2UpgradePolicy = "DO_NOT_UPGRADE"
    access_log: str = "/dev/stdout"
    connect_timeout: float = 10.0
    dns_resolvers: tuple[str, ...] = ()
    srv_min_ttl: float = 1.0
    srv_max_ttl: float = 300.0
    retry_attempts: int = 2
    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    outbound_port: int = 15001
    inbound_port: int = 15006
    own_ports: tuple[int, ...] = (15000, 15053)
    """The sidecar's further ports that nobody may reach by way of its inbound listener."""
