"""The clusters and load assignments of all services, as one client class sees them.

This module must not know listeners or routes.
"""

from __future__ import annotations

from control_plane.registry.service import MeshPort, MeshService, Resolution
from control_plane.translate import names
from control_plane.translate.cache import Cache
from control_plane.translate.client import Client
from control_plane.translate.clusters import black_hole_cluster, passthrough_cluster, service_cluster
from control_plane.translate.effective import effective_endpoints, identities
from control_plane.translate.endpoints import load_assignment
from control_plane.translate.mtls import MtlsPolicies
from control_plane.translate.resources import Part
from control_plane.translate.settings import MeshSettings


def add_upstreams(
    part: Part,
    client: Client,
    services: tuple[MeshService, ...],
    mtls: MtlsPolicies,
    settings: MeshSettings,
    cache: Cache,
) -> None:
    """Add every service's clusters with their endpoints, and the two clusters of unknown traffic."""
    for service in services:
        if usable(service, client):
            for port in service.ports:
                _add(part, client, service, port, mtls, settings, cache)
    black_hole = cache.get("black hole", (), lambda: black_hole_cluster(settings))
    part.add(names.CLUSTER, names.BLACK_HOLE_CLUSTER, black_hole)
    if client.captured:
        mark = client.mark
        cluster = cache.get(("passthrough", mark), (), lambda: passthrough_cluster(mark, settings))
        part.add(names.CLUSTER, names.PASSTHROUGH_CLUSTER, cluster)


def usable(service: MeshService, client: Client) -> bool:
    """Whether the client's data plane can reach the service: it may lack SRV clusters, or what was dialled."""
    if service.resolution is Resolution.DNS_SRV:
        return client.srv
    return client.captured or service.resolution is not Resolution.PASSTHROUGH


def _add(
    part: Part,
    client: Client,
    service: MeshService,
    port: MeshPort,
    mtls: MtlsPolicies,
    settings: MeshSettings,
    cache: Cache,
) -> None:
    name = names.outbound_cluster(port.number, service.hostname)
    declared = service.endpoints_of(port.number)
    policies = tuple(
        entry
        for namespace in sorted({endpoint.namespace for endpoint in declared})
        for entry in mtls.relevant(namespace)
    )
    endpoints = cache.get(
        ("effective", name), (declared, policies), lambda: effective_endpoints(declared, mtls)
    )
    eds = service.resolution is Resolution.EDS
    cluster = cache.get(
        ("cluster", name, client.mark),
        (service.resolution, service.srv_name, port, identities(endpoints) if eds else endpoints),
        lambda: service_cluster(service, port, endpoints, client.mark, settings),
    )
    part.add(names.CLUSTER, name, cluster, service.keys)
    if eds:
        assignment = cache.get(("endpoints", name), (endpoints,), lambda: load_assignment(name, endpoints))
        part.add(names.ENDPOINTS, name, assignment, service.keys)
