"""HTTPRoutes as Envoy routes, each with its place among all of a virtual host.

Precedence is Gateway API's: exact paths, regular expressions, then prefixes, longest first; a method; more headers;
more query parameters; the older route; namespace and name; the rule's place. This module must not know nodes.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import string_pb2

from control_plane.api.kinds import HTTPRoute
from control_plane.api.kinds.http_route import HTTPRouteMatch, HTTPRouteTimeouts, milliseconds
from control_plane.registry.entry import Entry
from control_plane.translate.pack import duration
from control_plane.translate.routes import (
    Backend,
    RankedRoute,
    edit,
    forward,
    match_headers,
    string_matcher,
)

_RANKS = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}


def ranked_http_routes(
    entry: Entry, backends: tuple[tuple[Backend, ...], ...], attempts: int
) -> tuple[RankedRoute, ...]:
    """All rules of an HTTPRoute; ``backends`` in the order of the rules."""
    model: HTTPRoute = entry.model
    found = []
    for index, rule in enumerate(model.spec.rules_):
        name = f"{entry.key.namespace}.{entry.key.name}.{rule.name or index}"
        for position, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
            route = route_components_pb2.Route(name=name, match=_match(match))
            forward(route, backends[index], attempts, invalid=500)
            if route.HasField("route"):
                _limit(route.route, rule.timeouts)
            edit(route, rule.filters)
            found.append(RankedRoute(_rank(match, entry, index, position), route))
    return tuple(found)


def _rank(match: HTTPRouteMatch, entry: Entry, rule: int, position: int) -> tuple[Any, ...]:
    return (
        _RANKS[match.path.type],
        -len(_trimmed(match.path.value)),
        match.method is None,
        -len(match.headers),
        -len(match.query_params),
        entry.age,
        rule,
        position,
    )


def _trimmed(prefix: str) -> str:
    """A prefix counts whole path segments: a slash at its end says nothing more."""
    return prefix.rstrip("/") or "/"


def _match(match: HTTPRouteMatch) -> Any:
    found = route_components_pb2.RouteMatch()
    value = match.path.value
    if match.path.type == "Exact":
        found.path = value
    elif match.path.type == "RegularExpression":
        found.safe_regex.regex = value
    elif (prefix := _trimmed(value)) == "/":
        found.prefix = "/"
    else:
        found.path_separated_prefix = prefix
    if match.method:
        found.headers.add(name=":method", string_match=string_pb2.StringMatcher(exact=match.method))
    match_headers(found, match.headers)
    for query in match.query_params:
        found.query_parameters.add(name=query.name, string_match=string_matcher(query.type, query.value))
    return found


def _limit(action: Any, limits: HTTPRouteTimeouts) -> None:
    if limits.request:
        action.timeout.CopyFrom(duration(milliseconds(limits.request) / 1000))
    if limits.backend_request and (limit := milliseconds(limits.backend_request)):
        action.retry_policy.per_try_timeout.CopyFrom(duration(limit / 1000))
