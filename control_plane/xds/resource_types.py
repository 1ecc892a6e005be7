"""The resource types that are served, in the order in which changes of them are pushed.

Source: "Eventual consistency considerations" of Envoy's xDS protocol document: what is referred to comes
before what refers to it.
"""

from __future__ import annotations

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

PUSH_ORDER = (CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET)

FULL_STATE = frozenset({CLUSTER, LISTENER})
"""In state-of-the-world a response of these types carries everything; what is absent is deleted. They are
also the types whose first request may leave out all names and means ``*`` then."""

SHORT_NAMES = {CLUSTER: "CDS", ENDPOINT: "EDS", LISTENER: "LDS", ROUTE: "RDS", SECRET: "SDS"}

_NAME_FIELDS = {ENDPOINT: "cluster_name"}


def short_name(type_url: str) -> str:
    """``CDS`` and so on, or the message's name for a type that has no such name."""
    return SHORT_NAMES.get(type_url) or type_url.rpartition(".")[2]


def name_field(type_url: str) -> str:
    """The message field that holds a resource's name."""
    return _NAME_FIELDS.get(type_url, "name")
