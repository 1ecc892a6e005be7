"""What the routes of all kinds have in common: where they lead, what they edit, and the route of who has none.

This module must not know a kind of route, nor nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from control_plane.api.kinds.gateway import BackendRef, HeaderMatch, HTTPHeaderFilter, RouteFilter
from control_plane.translate import names
from control_plane.translate.pack import duration, uint32


@dataclass(frozen=True, slots=True)
class Backend:
    """A resolved ``backendRef``: the cluster, or ``None`` when the reference is invalid."""

    cluster: str | None
    ref: BackendRef


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


def heed_grpc_timeout(action: Any) -> None:
    """End a gRPC call, whose client says how long it will wait, when that time has passed."""
    action.max_stream_duration.grpc_timeout_header_max.CopyFrom(duration(0))


def default_route(cluster: str, attempts: int, *, grpc: bool = False) -> Any:
    """Everything to one cluster, however long it takes. ``grpc``: but calls of gRPC no longer than they may."""
    made = route_components_pb2.Route(
        name="default",
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(
            cluster=cluster, timeout=duration(0), retry_policy=retry_policy(attempts)
        ),
    )
    if grpc:
        heed_grpc_timeout(made.route)
    return made


def direct_response(name: str, status: int) -> Any:
    """An answer of the sidecar itself to everything."""
    return route_components_pb2.Route(
        name=name,
        match=route_components_pb2.RouteMatch(prefix="/"),
        direct_response=route_components_pb2.DirectResponseAction(status=status),
    )


def string_matcher(kind: str, value: str) -> Any:
    """A matcher of Gateway API: ``RegularExpression``, of the whole string, or ``Exact``."""
    if kind == "RegularExpression":
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=value))
    return string_pb2.StringMatcher(exact=value)


def match_headers(match: Any, headers: Iterable[HeaderMatch]) -> None:
    """Add to an Envoy ``RouteMatch`` the headers that must be there."""
    for header in headers:
        match.headers.add(name=header.name.lower(), string_match=string_matcher(header.type, header.value))


def forward(route: Any, backends: Iterable[Backend], attempts: int, invalid: Literal[500, 503]) -> None:
    """Set the action, without a timeout. The share of invalid backends is answered with the status ``invalid``."""
    shares = [backend for backend in backends if backend.ref.weight]
    if all(backend.cluster is None for backend in shares):
        route.direct_response.status = invalid
        return
    action = route.route
    if invalid == 500 and any(backend.cluster is None for backend in shares):
        not_found = route_components_pb2.RouteAction.INTERNAL_SERVER_ERROR
        action.cluster_not_found_response_code = not_found  # its default is 503
    if len(shares) == 1 and not shares[0].ref.filters:
        action.cluster = str(shares[0].cluster)
    else:
        for backend in shares:
            share = action.weighted_clusters.clusters.add(
                name=backend.cluster or names.INVALID_BACKEND, weight=uint32(backend.ref.weight)
            )
            edit(share, backend.ref.filters)
    action.timeout.CopyFrom(duration(0))
    action.retry_policy.CopyFrom(retry_policy(attempts))


def edit(target: Any, filters: Iterable[RouteFilter]) -> None:
    """Add the edits of headers that ``filters`` ask for to a route or a share of one."""
    for item in filters:
        if item.request_header_modifier:
            target.request_headers_to_add.extend(_options(item.request_header_modifier))
            target.request_headers_to_remove.extend(n.lower() for n in item.request_header_modifier.remove)
        if item.response_header_modifier:
            target.response_headers_to_add.extend(_options(item.response_header_modifier))
            target.response_headers_to_remove.extend(n.lower() for n in item.response_header_modifier.remove)


def _options(edits: HTTPHeaderFilter) -> list[Any]:
    # Envoy reads %NAME% in values as an operator; what the user wrote is meant literally.
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=header.name.lower(), value=header.value.replace("%", "%%")),
            append_action=action,
        )
        for headers, action in (
            (edits.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
            (edits.add, "APPEND_IF_EXISTS_OR_ADD"),
        )
        for header in headers
    ]
