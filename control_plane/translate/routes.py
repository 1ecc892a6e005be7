"""HTTPRoutes, bound to services: which rules hold where, in which order, and what cannot be resolved.

Precedence is Gateway API's: exact paths, regular expressions, then prefixes, longest first; a method; more headers;
more query parameters; the older route; namespace and name; the rule's place. A route in another namespace than its
parent's is a consumer route: it holds for clients of its own namespace, and replaces the producer's there.
This module must not know nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from control_plane.api.kinds import HTTPRoute
from control_plane.api.kinds.gateway import (
    HTTPBackendRef,
    HTTPHeaderFilter,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    milliseconds,
)
from control_plane.registry.entry import Entry
from control_plane.translate import names
from control_plane.translate.pack import duration, uint32

_RANKS = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}


@dataclass(frozen=True, slots=True)
class Backend:
    """A resolved ``backendRef``: the cluster, or ``None`` when the reference is invalid."""

    cluster: str | None
    ref: HTTPBackendRef


@dataclass(frozen=True, slots=True)
class RankedRoute:
    """An Envoy route and its place among all routes of a virtual host (smaller first)."""

    rank: tuple[Any, ...]
    route: Any


def retry_policy(attempts: int) -> Any:
    """Istio's default, without its former retry of 503 responses, which repeats requests that an app has seen."""
    return route_components_pb2.RetryPolicy(
        retry_on="connect-failure,refused-stream,unavailable,cancelled", num_retries=uint32(attempts)
    )


def default_route(cluster: str, attempts: int) -> Any:
    """Everything to one cluster, however long it takes."""
    return route_components_pb2.Route(
        name="default",
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(
            cluster=cluster, timeout=duration(0), retry_policy=retry_policy(attempts)
        ),
    )


def direct_response(name: str, status: int) -> Any:
    """An answer of the sidecar itself to everything."""
    return route_components_pb2.Route(
        name=name,
        match=route_components_pb2.RouteMatch(prefix="/"),
        direct_response=route_components_pb2.DirectResponseAction(status=status),
    )


def ranked_routes(
    entry: Entry, backends: tuple[tuple[Backend, ...], ...], attempts: int
) -> tuple[RankedRoute, ...]:
    """All rules of an HTTPRoute; ``backends`` in the order of the rules."""
    model: HTTPRoute = entry.model
    found = []
    for index, rule in enumerate(model.spec.rules_):
        name = f"{entry.key.namespace}.{entry.key.name}.{rule.name or index}"
        for position, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
            route = route_components_pb2.Route(name=name, match=_match(match))
            _forward(route, rule, backends[index], attempts)
            _edit(route, rule.filters)
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
    for header in match.headers:
        found.headers.add(name=header.name.lower(), string_match=_string(header.type, header.value))
    for query in match.query_params:
        found.query_parameters.add(name=query.name, string_match=_string(query.type, query.value))
    return found


def _string(kind: str, value: str) -> Any:
    if kind == "RegularExpression":
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=value))
    return string_pb2.StringMatcher(exact=value)


def _forward(route: Any, rule: HTTPRouteRule, backends: Iterable[Backend], attempts: int) -> None:
    """Set the action. The share of invalid backends answers 500, as Gateway API wants."""
    shares = [backend for backend in backends if backend.ref.weight]
    if all(backend.cluster is None for backend in shares):
        route.direct_response.status = 500
        return
    action = route.route
    action.cluster_not_found_response_code = (
        route_components_pb2.RouteAction.INTERNAL_SERVER_ERROR
        if any(backend.cluster is None for backend in shares)
        else route_components_pb2.RouteAction.SERVICE_UNAVAILABLE
    )
    if len(shares) == 1 and not shares[0].ref.filters:
        action.cluster = str(shares[0].cluster)
    else:
        for backend in shares:
            share = action.weighted_clusters.clusters.add(
                name=backend.cluster or names.INVALID_BACKEND, weight=uint32(backend.ref.weight)
            )
            _edit(share, backend.ref.filters)
    limits = rule.timeouts
    action.timeout.CopyFrom(duration(milliseconds(limits.request) / 1000 if limits.request else 0))
    action.retry_policy.CopyFrom(retry_policy(attempts))
    if limits.backend_request and (limit := milliseconds(limits.backend_request)):
        action.retry_policy.per_try_timeout.CopyFrom(duration(limit / 1000))


def _edit(target: Any, filters: Iterable[HTTPRouteFilter]) -> None:
    for item in filters:
        if item.request_header_modifier:
            target.request_headers_to_add.extend(_options(item.request_header_modifier))
            target.request_headers_to_remove.extend(n.lower() for n in item.request_header_modifier.remove)
        if item.response_header_modifier:
            target.response_headers_to_add.extend(_options(item.response_header_modifier))
            target.response_headers_to_remove.extend(n.lower() for n in item.response_header_modifier.remove)


def _options(edit: HTTPHeaderFilter) -> list[Any]:
    # Envoy reads %NAME% in values as an operator; what the user wrote is meant literally.
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=header.name.lower(), value=header.value.replace("%", "%%")),
            append_action=action,
        )
        for headers, action in (
            (edit.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
            (edit.add, "APPEND_IF_EXISTS_OR_ADD"),
        )
        for header in headers
    ]
