"""HTTPRoute of Gateway API, bound to Services (GAMMA).

What needs a Gateway, or what the sidecar cannot do yet, is refused with its field path. This module must not look at
other objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from control_plane.api.kinds.gateway import (
    BackendRef,
    HeaderMatch,
    HeaderName,
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
from control_plane.api.kinds.schema import (
    Breach,
    Model,
    custom_error,
    duplicates,
    matching,
    not_yet,
)

_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")
Duration = Annotated[
    str,
    matching(
        r"([0-9]{1,5}(h|m|s|ms)){1,4}",
        "{value} must be a duration like 10s, 500ms or 1m30s (GEP-2257)",
    ),
]
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def milliseconds(duration: str) -> int:
    """The length of a Gateway API duration in milliseconds."""
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)(ms|h|m|s)", duration))


class HTTPPathMatch(Model):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Field(max_length=1024)] = "/"

    def rules(self) -> Iterator[Breach]:
        loc = ("value",)
        if self.type == "RegularExpression":
            message = regex_breach(self.value) if self.value else "must not be empty"
            if message:
                yield Breach(loc, message)
            return
        if not self.value.startswith("/"):
            yield Breach(loc, f"{self.value!r} must be absolute and start with '/'")
        for bad in ("//", "/./", "/../", "%2f", "%2F", "#"):
            if bad in self.value:
                yield Breach(loc, f"must not contain {bad!r}")
        for bad in ("/..", "/."):
            if self.value.endswith(bad):
                yield Breach(loc, f"must not end with {bad!r}")
        if "#" not in self.value and not _PATH.fullmatch(self.value):
            yield Breach(loc, f"{self.value!r} has characters that a path cannot have (percent-encode them)")


class HTTPQueryParamMatch(Model):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=1024)]

    def rules(self) -> Iterator[Breach]:
        if self.type == "RegularExpression" and (message := regex_breach(self.value)):
            yield Breach(("value",), message)


def _method(value: Any) -> Any:
    if value == "CONNECT":
        raise custom_error(Reason.FORBIDDEN, "CONNECT is not supported yet")
    return value


class HTTPRouteMatch(Model):
    """All that is given must hold."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=16)] = ()
    query_params: Annotated[tuple[HTTPQueryParamMatch, ...], Field(max_length=16)] = ()
    method: (
        Annotated[
            Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"],
            BeforeValidator(_method),
        ]
        | None
    ) = None

    def rules(self) -> Iterator[Breach]:
        yield from header_match_breaches(self.headers)
        for index in duplicates(q.name for q in self.query_params):
            name = self.query_params[index].name
            yield Breach(("queryParams", index, "name"), f"{name!r} is matched twice", Reason.DUPLICATE)


class HTTPRouteFilter(RouteFilter):
    type: Annotated[
        Literal["RequestHeaderModifier", "ResponseHeaderModifier"],
        refused_filters(
            "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExternalAuth", "ExtensionRef"
        ),
    ]
    request_redirect: Any = None
    url_rewrite: Any = None
    cors: Any = None
    external_auth: Any = None


class HTTPBackendRef(BackendRef):
    filters: Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16)] = ()


class HTTPRouteTimeouts(Model):
    """``0s`` means no limit."""

    request: Duration | None = None
    backend_request: Duration | None = None

    def rules(self) -> Iterator[Breach]:
        if self.request is None or self.backend_request is None:
            return
        if 0 < milliseconds(self.request) < milliseconds(self.backend_request):
            yield Breach(("backendRequest",), "must not be longer than request")


class HTTPRouteRule(RouteRule):
    matches: Annotated[tuple[HTTPRouteMatch, ...], Field(max_length=64)] = (HTTPRouteMatch(),)
    filters: Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16)] = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Field(max_length=16)] = ()
    timeouts: HTTPRouteTimeouts = HTTPRouteTimeouts()
    retry: Annotated[Any, not_yet("retries are the mesh's default")] = None
    session_persistence: Annotated[Any, not_yet("sessions have no affinity")] = None


class HTTPRouteSpec(Model):
    parent_refs: Annotated[tuple[ParentReference, ...], Field(min_length=1, max_length=32)]
    hostnames: Annotated[Any, not_yet("a route bound to a Service has the Service's names")] = None
    use_default_gateways: Annotated[Any, not_yet("there are no Gateways")] = None
    rules_: Annotated[tuple[HTTPRouteRule, ...], Field(alias="rules", min_length=1, max_length=16)] = (
        HTTPRouteRule(),
    )

    def rules(self) -> Iterator[Breach]:
        yield from parent_breaches(self.parent_refs)
        yield from rule_breaches(self.rules_)


class HTTPRoute(Resource):
    """``gateway.networking.k8s.io/v1`` HTTPRoute."""

    spec: HTTPRouteSpec
