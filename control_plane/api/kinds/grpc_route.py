"""GRPCRoute of Gateway API, bound to Services (GAMMA).

``hostnames`` are checked, and have no effect for a route that is bound to a Service (GEP-1426), which its status
says. What the sidecar cannot do yet is refused with its field path. This module must not look at other objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from control_plane.api.kinds.gateway import (
    BackendRef,
    HeaderMatch,
    ParentReference,
    RouteFilter,
    RouteRule,
    header_match_breaches,
    parent_breaches,
    refused_filters,
    regex_breach,
    rule_breaches,
)
from control_plane.api.kinds.meta import Resource
from control_plane.api.kinds.problem import Reason
from control_plane.api.kinds.schema import Breach, Model, checked, is_ip, matching, not_yet

_SERVICE = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")

Hostname = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matching(
        r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "{value} must be a host name in lower case, or one with the first label '*'",
    ),
    checked(lambda value: not is_ip(value), "{value} must not be an IP address"),
]


class GRPCMethodMatch(Model):
    """The service (``package.Service``) and the method; at least one of them. An absent one may be any."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str, Field(max_length=1024)] | None = None
    method: Annotated[str, Field(max_length=1024)] | None = None

    def rules(self) -> Iterator[Breach]:
        if not self.service and not self.method:
            yield Breach((), "needs a service or a method, or both", Reason.REQUIRED)
            return
        for field, value, pattern, example in (
            ("service", self.service, _SERVICE, "package.Service"),
            ("method", self.method, _METHOD, "Method"),
        ):
            if value is None:
                continue
            if self.type == "RegularExpression":
                if message := regex_breach(value):
                    yield Breach((field,), message)
            elif not pattern.fullmatch(value):
                yield Breach((field,), f"{value!r} is not the name of a {field} like {example}")


class GRPCRouteMatch(Model):
    """All that is given must hold."""

    method: GRPCMethodMatch | None = None
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()

    def rules(self) -> Iterator[Breach]:
        yield from header_match_breaches(self.headers)


class GRPCRouteFilter(RouteFilter):
    type: Annotated[
        Literal["RequestHeaderModifier", "ResponseHeaderModifier"],
        refused_filters("RequestMirror", "ExtensionRef"),
    ]


class GRPCBackendRef(BackendRef):
    filters: Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)] = ()


class GRPCRouteRule(RouteRule):
    """Without matches it holds for every gRPC request."""

    matches: Annotated[tuple[GRPCRouteMatch, ...], Field(max_length=64)] = ()
    filters: Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)] = ()
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Field(max_length=16)] = ()
    session_persistence: Annotated[Any, not_yet("sessions have no affinity")] = None


class GRPCRouteSpec(Model):
    """Without rules no request is routed: each is answered UNIMPLEMENTED."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(min_length=1, max_length=32)]
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    use_default_gateways: Annotated[Any, not_yet("there are no Gateways")] = None
    rules_: Annotated[tuple[GRPCRouteRule, ...], Field(alias="rules", max_length=16)] = ()

    def rules(self) -> Iterator[Breach]:
        yield from parent_breaches(self.parent_refs)
        yield from rule_breaches(self.rules_)


class GRPCRoute(Resource):
    """``gateway.networking.k8s.io/v1`` GRPCRoute."""

    spec: GRPCRouteSpec
