"""Gateway API kinds: HTTPRoute, bound to Services (GAMMA).

The limits and rules are those of the published CRD. What needs a Gateway, or what the sidecar cannot do yet, is
refused with its field path. This module must not look at other objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from control_plane.api.kinds.meta import Resource
from control_plane.api.kinds.problem import Reason
from control_plane.api.kinds.schema import (
    Breach,
    DnsLabel,
    DnsSubdomain,
    Int,
    Model,
    Port,
    checked,
    custom_error,
    duplicates,
    matching,
    not_yet,
)

GROUP = "gateway.networking.k8s.io"
ISTIO_GROUP = "networking.istio.io"

BACKENDS = frozenset({("", "Service"), (ISTIO_GROUP, "Hostname"), (ISTIO_GROUP, "ServiceEntry")})
"""Groups and kinds that traffic can be sent to; any other is an invalid reference (500), as the API says."""

MATCHES_LIMIT = 128
"""Matches of all rules of one route together."""

_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")
_NOT_IN_RE2 = re.compile(r"\(\?(?:[=!#>]|<[=!]|P=|\()|(?<!\\)(?:\\\\)*\\[1-9Z]")
_UNTOUCHABLE = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
)

HeaderName = Annotated[
    str,
    Field(max_length=256),
    matching(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+", "{value} must be a header name (an RFC 9110 token)"),
]
ObjectName = Annotated[DnsSubdomain, Field(min_length=1)]
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


def _value_is_clean(value: str) -> bool:
    return (
        not any((ord(c) < 0x20 and c != "\t") or ord(c) == 0x7F for c in value)
        and value.strip(" \t") == value
    )


HeaderValue = Annotated[
    str,
    Field(min_length=1, max_length=4096),
    checked(_value_is_clean, "{value} must have no control characters and no white space around it"),
]


def regex_breach(pattern: str) -> str | None:
    """Why ``pattern`` cannot be used as a regular expression by every data plane (RE2's syntax), or ``None``."""
    if _NOT_IN_RE2.search(pattern):
        return f"{pattern!r} uses look-around or back references, which RE2 does not have"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"{pattern!r} is not a regular expression: {error}"
    return None


class ParentReference(Model):
    """What the route is bound to: a Service, or a ServiceEntry, in any namespace."""

    group: str = GROUP
    kind: str = "Gateway"
    namespace: DnsLabel | None = None
    name: ObjectName
    section_name: Annotated[DnsSubdomain, Field(min_length=1)] | None = None
    port: Port | None = None

    def rules(self) -> Iterator[Breach]:
        if (self.group, self.kind) == (GROUP, "Gateway"):
            message = (
                'there are no Gateways here: bind the route to a Service with group: "" and kind: Service'
            )
            yield Breach(("kind",), message, Reason.NOT_SUPPORTED)
        elif (self.group, self.kind) not in (("", "Service"), (ISTIO_GROUP, "ServiceEntry")):
            message = f"{self.kind!r} of group {self.group!r} cannot be a parent: use Service or ServiceEntry"
            yield Breach(("kind",), message, Reason.NOT_SUPPORTED)


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


class HTTPHeaderMatch(Model):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=4096)]

    def rules(self) -> Iterator[Breach]:
        if self.type == "RegularExpression" and (message := regex_breach(self.value)):
            yield Breach(("value",), message)


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
    headers: Annotated[tuple[HTTPHeaderMatch, ...], Field(max_length=16)] = ()
    query_params: Annotated[tuple[HTTPQueryParamMatch, ...], Field(max_length=16)] = ()
    method: (
        Annotated[
            Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"],
            BeforeValidator(_method),
        ]
        | None
    ) = None

    def rules(self) -> Iterator[Breach]:
        for index in duplicates(h.name.lower() for h in self.headers):
            name = self.headers[index].name
            yield Breach(("headers", index, "name"), f"header {name!r} is matched twice", Reason.DUPLICATE)
        for index in duplicates(q.name for q in self.query_params):
            name = self.query_params[index].name
            yield Breach(("queryParams", index, "name"), f"{name!r} is matched twice", Reason.DUPLICATE)


class HTTPHeader(Model):
    name: HeaderName
    value: HeaderValue


class HTTPHeaderFilter(Model):
    """Edits of headers; names compare without case."""

    set: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    add: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    remove: Annotated[tuple[HeaderName, ...], Field(max_length=16)] = ()

    def rules(self) -> Iterator[Breach]:
        for field, names in (
            ("set", [h.name for h in self.set]),
            ("add", [h.name for h in self.add]),
            ("remove", list(self.remove)),
        ):
            tail: tuple[str, ...] = () if field == "remove" else ("name",)
            for index in duplicates(name.lower() for name in names):
                yield Breach((field, index, *tail), f"{names[index]!r} is listed twice", Reason.DUPLICATE)
            for index, name in enumerate(names):
                if name.lower() in _UNTOUCHABLE:
                    message = (
                        f"{name!r} belongs to the connection or the message's framing and cannot be edited"
                    )
                    yield Breach((field, index, *tail), message, Reason.FORBIDDEN)


_FILTER_FIELDS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
}
_FILTERS_NOT_YET = frozenset(
    {"RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExternalAuth", "ExtensionRef"}
)


def _filter_type(value: Any) -> Any:
    if value in _FILTERS_NOT_YET:
        raise custom_error(Reason.FORBIDDEN, f"filter {value} is not supported yet")
    return value


class HTTPRouteFilter(Model):
    type: Annotated[
        Literal["RequestHeaderModifier", "ResponseHeaderModifier"],
        BeforeValidator(_filter_type),
    ]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: Any = None
    request_redirect: Any = None
    url_rewrite: Any = None
    cors: Any = None
    external_auth: Any = None
    extension_ref: Any = None

    def rules(self) -> Iterator[Breach]:
        wanted = _FILTER_FIELDS[self.type]
        for name, info in type(self).model_fields.items():
            if name == "type":
                continue
            field = str(info.alias)
            present = getattr(self, name) is not None
            if field == wanted and not present:
                yield Breach((field,), f"is required for type {self.type}", Reason.REQUIRED)
            elif field != wanted and present:
                yield Breach((field,), f"must be absent for type {self.type}", Reason.FORBIDDEN)


def _filter_rules(filters: tuple[HTTPRouteFilter, ...]) -> Iterator[Breach]:
    for index in duplicates(f.type for f in filters):
        message = f"filter {filters[index].type} must not be repeated"
        yield Breach(("filters", index, "type"), message, Reason.DUPLICATE)


class HTTPBackendRef(Model):
    """Where requests go, and with which share: ``weight`` over the sum of the rule's weights."""

    group: str = ""
    kind: str = "Service"
    namespace: DnsLabel | None = None
    name: ObjectName
    port: Port | None = None
    weight: Annotated[Int, Field(ge=0, le=1_000_000)] = 1
    filters: Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16)] = ()

    def rules(self) -> Iterator[Breach]:
        if self.port is None and (self.group, self.kind) in BACKENDS:
            yield Breach(("port",), f"is required for a {self.kind}", Reason.REQUIRED)
        yield from _filter_rules(self.filters)


class HTTPRouteTimeouts(Model):
    """``0s`` means no limit."""

    request: Duration | None = None
    backend_request: Duration | None = None

    def rules(self) -> Iterator[Breach]:
        if self.request is None or self.backend_request is None:
            return
        if 0 < milliseconds(self.request) < milliseconds(self.backend_request):
            yield Breach(("backendRequest",), "must not be longer than request")


class HTTPRouteRule(Model):
    name: Annotated[DnsSubdomain, Field(min_length=1)] | None = None
    matches: Annotated[tuple[HTTPRouteMatch, ...], Field(max_length=64)] = (HTTPRouteMatch(),)
    filters: Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16)] = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Field(max_length=16)] = ()
    timeouts: HTTPRouteTimeouts = HTTPRouteTimeouts()
    retry: Annotated[Any, not_yet("retries are the mesh's default")] = None
    session_persistence: Annotated[Any, not_yet("sessions have no affinity")] = None

    def rules(self) -> Iterator[Breach]:
        yield from _filter_rules(self.filters)


class HTTPRouteSpec(Model):
    parent_refs: Annotated[tuple[ParentReference, ...], Field(min_length=1, max_length=32)]
    hostnames: Annotated[Any, not_yet("a route bound to a Service has the Service's names")] = None
    use_default_gateways: Annotated[Any, not_yet("there are no Gateways")] = None
    rules_: Annotated[tuple[HTTPRouteRule, ...], Field(alias="rules", min_length=1, max_length=16)] = (
        HTTPRouteRule(),
    )

    def rules(self) -> Iterator[Breach]:
        parents = [(p.group, p.kind, p.namespace, p.name, p.section_name, p.port) for p in self.parent_refs]
        for index in duplicates(parents):
            message = "names the same parent, section and port as an earlier one"
            yield Breach(("parentRefs", index), message, Reason.DUPLICATE)
        matches = sum(len(rule.matches) for rule in self.rules_)
        if matches > MATCHES_LIMIT:
            message = f"all rules together have {matches} matches, more than {MATCHES_LIMIT}"
            yield Breach(("rules",), message, Reason.TOO_MANY)
        for index in duplicates((r.name, None if r.name else i) for i, r in enumerate(self.rules_)):
            message = f"{self.rules_[index].name!r} is used twice"
            yield Breach(("rules", index, "name"), message, Reason.DUPLICATE)


class HTTPRoute(Resource):
    """``gateway.networking.k8s.io/v1`` HTTPRoute."""

    spec: HTTPRouteSpec
