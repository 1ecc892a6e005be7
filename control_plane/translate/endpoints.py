"""Load assignments: the endpoints of one port of a service, grouped by locality.

They depend on no node at all. This module must not know clusters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import struct_pb2

from control_plane.registry.service import MeshEndpoint
from control_plane.translate.pack import socket_address, uint32

MATCH_METADATA = "envoy.transport_socket_match"
TLS_MODE = struct_pb2.Struct(fields={"tlsMode": struct_pb2.Value(string_value="tulle")})


def load_assignment(name: str, endpoints: Iterable[MeshEndpoint]) -> Any:
    """The endpoints of cluster ``name``; a locality weighs as much as its endpoints together."""
    localities: defaultdict[str, list[MeshEndpoint]] = defaultdict(list)
    for endpoint in endpoints:
        localities[endpoint.locality].append(endpoint)
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[_locality(place, localities[place]) for place in sorted(localities)],
    )


def _locality(place: str, endpoints: list[MeshEndpoint]) -> Any:
    region, _, rest = place.partition("/")
    zone, _, sub_zone = rest.partition("/")
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=region, zone=zone, sub_zone=sub_zone),
        lb_endpoints=[_endpoint(endpoint) for endpoint in endpoints],
        load_balancing_weight=uint32(sum(endpoint.weight for endpoint in endpoints)),
    )


def _endpoint(endpoint: MeshEndpoint) -> Any:
    metadata = base_pb2.Metadata(filter_metadata={MATCH_METADATA: TLS_MODE}) if endpoint.sidecar else None
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=socket_address(endpoint.address, endpoint.port)),
        metadata=metadata,
        load_balancing_weight=uint32(endpoint.weight),
    )
