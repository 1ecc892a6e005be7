"""The kinds of resource that come over xDS: type URL, message, decoder, name, and what each one refers to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf.message import DecodeError

from proxy.model.cluster import Cluster, LoadAssignment
from proxy.model.config import ConfigError
from proxy.model.listener import HttpConnectionManager, Listener
from proxy.model.route import RouteConfiguration
from proxy.model.tls import CommonTls, Secret
from proxy.xds.decode import cluster, endpoint, listener, route, tls

_PREFIX = "type.googleapis.com/"
LISTENER = f"{_PREFIX}envoy.config.listener.v3.Listener"
ROUTE = f"{_PREFIX}envoy.config.route.v3.RouteConfiguration"
CLUSTER = f"{_PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINT = f"{_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = f"{_PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret"

Resource: TypeAlias = Listener | RouteConfiguration | Cluster | LoadAssignment | Secret
Reference: TypeAlias = tuple[str, str]
"""Type URL and name of a resource that another one needs."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of resource. ``label`` is what error messages call it."""

    type_url: str
    label: str
    message: Any
    decode: Callable[[Any], Resource]
    name_field: str = "name"


KINDS: dict[str, Kind] = {
    kind.type_url: kind
    for kind in (
        Kind(CLUSTER, "cluster", cluster_pb2.Cluster, cluster.cluster),
        Kind(
            ENDPOINT,
            "load_assignment",
            endpoint_pb2.ClusterLoadAssignment,
            endpoint.load_assignment,
            "cluster_name",
        ),
        Kind(SECRET, "secret", secret_pb2.Secret, tls.secret),
        Kind(LISTENER, "listener", listener_pb2.Listener, listener.listener),
        Kind(ROUTE, "route_config", route_pb2.RouteConfiguration, route.route_configuration),
    )
}


def decode(kind: Kind, name: str, type_url: str, value: bytes) -> Resource:
    """The resource ``name`` from an ``Any``'s type URL and bytes. Raises :class:`ConfigError`."""
    path = f"{kind.label}[{name}]"
    if type_url != kind.type_url:
        raise ConfigError(path, f"is a {type_url or 'resource without a type'}, not a {kind.type_url}")
    try:
        message = kind.message.FromString(value)
    except DecodeError as error:
        raise ConfigError(path, f"not a {kind.type_url}: {error}") from error
    inner = getattr(message, kind.name_field)
    if inner != name:
        raise ConfigError(path, f"its {kind.name_field} is {inner!r}")
    return kind.decode(message)


def references(resource: Resource) -> tuple[Reference, ...]:
    """What must be fetched for ``resource``: routes, endpoints, secrets from ADS. In order, without repetition."""
    if isinstance(resource, Listener):
        return tuple(dict.fromkeys(_of_listener(resource)))
    if isinstance(resource, Cluster):
        return tuple(dict.fromkeys(_of_cluster(resource)))
    return ()


def _of_listener(resource: Listener) -> Iterator[Reference]:
    chains = resource.filter_chains
    if resource.default_filter_chain is not None:
        chains = (*chains, resource.default_filter_chain)
    for chain in chains:
        if chain.tls is not None:
            yield from _of_tls(chain.tls.common)
        if isinstance(chain.terminal, HttpConnectionManager) and isinstance(chain.terminal.route, str):
            yield ROUTE, chain.terminal.route


def _of_cluster(resource: Cluster) -> Iterator[Reference]:
    if resource.type == "EDS":
        yield ENDPOINT, resource.eds_service_name or resource.name
    for context in (resource.tls, *(match.tls for match in resource.transport_socket_matches)):
        if context is not None:
            yield from _of_tls(context.common)


def _of_tls(common: CommonTls) -> Iterator[Reference]:
    for ref in (*common.certificate_secrets, common.validation_secret):
        if ref is not None and ref.from_ads:
            yield SECRET, ref.name
