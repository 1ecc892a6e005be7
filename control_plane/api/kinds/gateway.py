"""What the routes of Gateway API have in common: parents, backends, header matches and edits, filters.

The limits and rules are those of the published CRDs. What needs a Gateway, or what the sidecar cannot do yet, is
refused with its field path. This module must not know a kind, nor look at other objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

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
)

GROUP = "gateway.networking.k8s.io"
ISTIO_GROUP = "networking.istio.io"

BACKENDS = frozenset({("", "Service"), (ISTIO_GROUP, "Hostname"), (ISTIO_GROUP, "ServiceEntry")})
"""Groups and kinds that traffic can be sent to; any other is an invalid reference (500), as the API says."""

MATCHES_LIMIT = 128
"""Matches of all rules of one route together."""

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


class HeaderMatch(Model):
    """One header that a request must have; names compare without case."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=4096)]

    def rules(self) -> Iterator[Breach]:
        if self.type == "RegularExpression" and (message := regex_breach(self.value)):
            yield Breach(("value",), message)


def header_match_breaches(headers: Sequence[HeaderMatch]) -> Iterator[Breach]:
    """No header may be matched twice."""
    for index in duplicates(header.name.lower() for header in headers):
        message = f"header {headers[index].name!r} is matched twice"
        yield Breach(("headers", index, "name"), message, Reason.DUPLICATE)


_FILTER_FIELDS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
}


def refused_filters(*not_yet: str) -> BeforeValidator:
    """Refuses published types of filters that the sidecar does not have yet."""

    def check(value: Any) -> Any:
        if value in not_yet:
            raise custom_error(Reason.FORBIDDEN, f"filter {value} is not supported yet")
        return value

    return BeforeValidator(check)


class RouteFilter(Model):
    """The filters that all kinds of routes have. A kind says in ``type`` which ones it refuses."""

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier"]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: Any = None
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


def filter_breaches(filters: Sequence[RouteFilter]) -> Iterator[Breach]:
    """No type of filter may be repeated."""
    for index in duplicates(f.type for f in filters):
        message = f"filter {filters[index].type} must not be repeated"
        yield Breach(("filters", index, "type"), message, Reason.DUPLICATE)


class BackendRef(Model):
    """Where requests go, and with which share: ``weight`` over the sum of the rule's weights."""

    group: str = ""
    kind: str = "Service"
    namespace: DnsLabel | None = None
    name: ObjectName
    port: Port | None = None
    weight: Annotated[Int, Field(ge=0, le=1_000_000)] = 1
    filters: tuple[RouteFilter, ...] = ()

    def rules(self) -> Iterator[Breach]:
        if self.port is None and (self.group, self.kind) in BACKENDS:
            yield Breach(("port",), f"is required for a {self.kind}", Reason.REQUIRED)
        yield from filter_breaches(self.filters)


class RouteRule(Model):
    """What holds for requests that one of the kind's ``matches`` matches."""

    name: Annotated[DnsSubdomain, Field(min_length=1)] | None = None
    matches: tuple[Model, ...] = ()
    filters: tuple[RouteFilter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()

    def rules(self) -> Iterator[Breach]:
        yield from filter_breaches(self.filters)


def parent_breaches(parents: Sequence[ParentReference]) -> Iterator[Breach]:
    """Parents must be distinct."""
    known = [(p.group, p.kind, p.namespace, p.name, p.section_name, p.port) for p in parents]
    for index in duplicates(known):
        message = "names the same parent, section and port as an earlier one"
        yield Breach(("parentRefs", index), message, Reason.DUPLICATE)


def rule_breaches(rules: Sequence[RouteRule]) -> Iterator[Breach]:
    """Names of rules are unique, and matches are not too many."""
    matches = sum(len(rule.matches) for rule in rules)
    if matches > MATCHES_LIMIT:
        message = f"all rules together have {matches} matches, more than {MATCHES_LIMIT}"
        yield Breach(("rules",), message, Reason.TOO_MANY)
    for index in duplicates((rule.name, None if rule.name else i) for i, rule in enumerate(rules)):
        yield Breach(("rules", index, "name"), f"{rules[index].name!r} is used twice", Reason.DUPLICATE)
