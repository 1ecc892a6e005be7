"""GRPCRoutes as Envoy routes, each with its place among all of a virtual host.

A call is ``POST /<package.Service>/<Method>``, so a match is one of the path, and of gRPC requests alone. Precedence
is Gateway API's: more characters in the service, then in the method; more headers; the older route; namespace and
name; the rule's place. A regular expression comes after all names and before none at all: how many characters it
matches is not known beforehand. This module must not know nodes.
"""

from __future__ import annotations

import re
from typing import Any

from envoy.config.route.v3 import route_components_pb2

from control_plane.api.kinds import GRPCRoute
from control_plane.api.kinds.grpc_route import GRPCMethodMatch, GRPCRouteMatch
from control_plane.registry.entry import Entry
from control_plane.translate.routes import (
    Backend,
    RankedRoute,
    edit,
    forward,
    heed_grpc_timeout,
    match_headers,
)

_ANY_NAME = "[^/]+"
_FLAGS = re.compile(r"(?:\(\?[a-zA-Z]+\))+")


def ranked_grpc_routes(
    entry: Entry, backends: tuple[tuple[Backend, ...], ...], attempts: int
) -> tuple[RankedRoute, ...]:
    """All rules of a GRPCRoute; ``backends`` in the order of the rules."""
    model: GRPCRoute = entry.model
    found = []
    for index, rule in enumerate(model.spec.rules_):
        name = f"{entry.key.namespace}.{entry.key.name}.{rule.name or index}"
        for position, match in enumerate(rule.matches or (GRPCRouteMatch(),)):
            route = route_components_pb2.Route(name=name, match=_match(match))
            # To a gRPC client 503 is UNAVAILABLE, which Gateway API wants of an invalid backend.
            forward(route, backends[index], attempts, invalid=503)
            if route.HasField("route"):
                heed_grpc_timeout(route.route)
            edit(route, rule.filters)
            found.append(RankedRoute(_rank(match, entry, index, position), route))
    return tuple(found)


def _rank(match: GRPCRouteMatch, entry: Entry, rule: int, position: int) -> tuple[Any, ...]:
    method = match.method or GRPCMethodMatch.model_construct()
    return (
        _specificity(method.type, method.service),
        _specificity(method.type, method.method),
        -len(match.headers),
        entry.age,
        rule,
        position,
    )


def _specificity(kind: str, name: str | None) -> tuple[int, int]:
    """Smaller is more specific."""
    if not name:
        return (2, 0)
    return (0 if kind == "Exact" else 1, -len(name))


def _match(match: GRPCRouteMatch) -> Any:
    found = route_components_pb2.RouteMatch(grpc=route_components_pb2.RouteMatch.GrpcRouteMatchOptions())
    _match_path(found, match.method)
    match_headers(found, match.headers)
    return found


def _match_path(found: Any, method: GRPCMethodMatch | None) -> None:
    if method is None:
        found.prefix = "/"
    elif method.type == "RegularExpression":
        found.safe_regex.regex = f"/{_part(method.service)}/{_part(method.method)}"
    elif method.service and method.method:
        found.path = f"/{method.service}/{method.method}"
    elif method.service:
        found.prefix = f"/{method.service}/"
    else:
        found.safe_regex.regex = f"/{_ANY_NAME}/{method.method}"


def _part(pattern: str | None) -> str:
    """``pattern`` as a part of a larger one: its alternatives and flags must not reach over its ends."""
    if not pattern:
        return _ANY_NAME
    flags = _FLAGS.match(pattern)
    if flags is None:
        return f"(?:{pattern})"
    letters = "".join(dict.fromkeys(letter for letter in flags[0] if letter.isalpha()))
    return f"(?{letters}:{pattern[flags.end() :]})"
