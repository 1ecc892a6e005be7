"""Endpoints (``config.endpoint.v3``)."""

from __future__ import annotations

from typing import Any

from proxy.model.cluster import (
    ENDPOINT_HEALTH_CHECK,
    Endpoint,
    EndpointHealthCheck,
    HealthStatus,
    LoadAssignment,
    LocalityEndpoints,
)
from proxy.xds.decode import address
from proxy.xds.decode.fields import check, enum, forbid, known, required, wrapped

_ASSIGNMENT = known("cluster_name", "endpoints", "policy")
_POLICY = known("overprovisioning_factor")
_LOCALITY = known(
    "locality",
    "lb_endpoints",
    "load_balancing_weight",
    "priority",
    without_effect={"metadata": "carries information for other readers of the configuration"},
)
_LOCALITY_NAME = known("region", "zone", "sub_zone")
_LB_ENDPOINT = known("endpoint", "health_status", "metadata", "load_balancing_weight")
_METADATA = known("filter_metadata")
_ENDPOINT = known("address", "hostname", "health_check_config")
_HEALTH_CHECK = known("port_value", "hostname", "address", "disable_active_health_check")

TRANSPORT_SOCKET_MATCH = "envoy.transport_socket_match"
MAX_PRIORITY = 128
_HEALTH: dict[str, HealthStatus] = {
    "UNKNOWN": "UNKNOWN",
    "HEALTHY": "HEALTHY",
    "UNHEALTHY": "UNHEALTHY",
    "DRAINING": "DRAINING",
    "TIMEOUT": "TIMEOUT",
    "DEGRADED": "DEGRADED",
}


def load_assignment(message: Any, path: str = "", *, names: bool = False) -> LoadAssignment:
    """A ``ClusterLoadAssignment``. ``names``: an endpoint may be a host name (DNS clusters)."""
    path = path or f"load_assignment[{message.cluster_name}]"
    check(message, path, _ASSIGNMENT)
    required(message.cluster_name, f"{path}.cluster_name")
    check(message.policy, f"{path}.policy", _POLICY)
    factor: int = wrapped(message.policy, "overprovisioning_factor", 140)
    forbid(factor < 1, f"{path}.policy.overprovisioning_factor", "must be at least 1")
    localities = tuple(
        _locality(item, f"{path}.endpoints[{index}]", names) for index, item in enumerate(message.endpoints)
    )
    return LoadAssignment(message.cluster_name, localities, factor)


def _locality(message: Any, path: str, names: bool) -> LocalityEndpoints:
    check(message, path, _LOCALITY)
    check(message.locality, f"{path}.locality", _LOCALITY_NAME)
    priority: int = message.priority
    forbid(priority > MAX_PRIORITY, f"{path}.priority", f"{priority} is above {MAX_PRIORITY}")
    endpoints = tuple(
        _lb_endpoint(item, f"{path}.lb_endpoints[{index}]", names)
        for index, item in enumerate(message.lb_endpoints)
    )
    where = message.locality
    weight: int = wrapped(message, "load_balancing_weight", 0)
    return LocalityEndpoints(endpoints, priority, weight, where.region, where.zone, where.sub_zone)


def _lb_endpoint(message: Any, path: str, names: bool) -> Endpoint:
    check(message, path, _LB_ENDPOINT)
    endpoint = message.endpoint
    check(endpoint, f"{path}.endpoint", _ENDPOINT)
    weight: int = wrapped(message, "load_balancing_weight", 1)
    forbid(weight < 1, f"{path}.load_balancing_weight", "must be at least 1")
    match: tuple[tuple[str, str], ...] = ()
    if message.HasField("metadata"):
        # Other namespaces than this one are information for other readers of the endpoint.
        check(message.metadata, f"{path}.metadata", _METADATA)
        if TRANSPORT_SOCKET_MATCH in message.metadata.filter_metadata:
            match = labels(
                message.metadata.filter_metadata[TRANSPORT_SOCKET_MATCH],
                f"{path}.metadata.filter_metadata[{TRANSPORT_SOCKET_MATCH}]",
            )
    return Endpoint(
        address.address(endpoint.address, f"{path}.endpoint.address", names=names),
        endpoint.hostname,
        weight,
        enum(message, path, "health_status", _HEALTH),
        match,
        _health_check(endpoint, f"{path}.endpoint.health_check_config"),
    )


def _health_check(endpoint: Any, path: str) -> EndpointHealthCheck:
    if not endpoint.HasField("health_check_config"):
        return ENDPOINT_HEALTH_CHECK
    message = endpoint.health_check_config
    check(message, path, _HEALTH_CHECK)
    port: int = message.port_value
    forbid(port > 65535, f"{path}.port_value", f"{port} is not a port")
    where = ""
    if message.HasField("address"):
        forbid(bool(port), f"{path}.address", "says the port, too: leave port_value out")
        other = address.address(message.address, f"{path}.address")
        where, port = other.host, other.port
    forbid(
        any(ord(char) <= 32 or ord(char) == 127 for char in message.hostname),
        f"{path}.hostname",
        "holds white space",
    )
    return EndpointHealthCheck(port, where, message.hostname, message.disable_active_health_check)


def labels(struct: Any, path: str) -> tuple[tuple[str, str], ...]:
    """A ``Struct`` of strings as sorted pairs."""
    found = []
    for key in sorted(struct.fields):
        value = struct.fields[key]
        forbid(value.WhichOneof("kind") != "string_value", f"{path}.{key}", "must be a string")
        found.append((key, value.string_value))
    return tuple(found)
