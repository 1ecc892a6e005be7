"""Route configurations, virtual hosts and routes (``config.route.v3``)."""

from __future__ import annotations

import re
from typing import Any, Literal

from proxy.model.config import ConfigError
from proxy.model.matcher import PathMatcher
from proxy.model.route import (
    Action,
    DirectResponseAction,
    RedirectAction,
    RequestBuffers,
    RetryPolicy,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from proxy.xds.decode import headers, matcher
from proxy.xds.decode.fields import UNSUPPORTED, check, enum, forbid, known, only, required, wrapped
from proxy.xds.decode.route_action import retry_policy, route_action

_METADATA = {"metadata": "carries information for other readers of the configuration"}
_ROUTE_CONFIGURATION = known(
    "name",
    "virtual_hosts",
    "validate_clusters",
    "ignore_port_in_host_matching",
    "max_direct_response_body_size_bytes",
    *headers.FIELDS,
    without_effect=_METADATA,
)
_BUFFERS = ("per_request_buffer_limit_bytes", "request_body_buffer_limit")
_VIRTUAL_HOST = known(
    "name",
    "domains",
    "routes",
    "require_tls",
    "retry_policy",
    "include_request_attempt_count",
    "include_attempt_count_in_response",
    *_BUFFERS,
    *headers.FIELDS,
    without_effect=_METADATA,
)
_ROUTE = known(
    "name",
    "match",
    "route",
    "redirect",
    "direct_response",
    *_BUFFERS,
    *headers.FIELDS,
    without_effect=_METADATA
    | {
        "decorator": "names the span of a trace",
        "stat_prefix": "names more statistics, it changes no request",
    },
)
_MATCH = known(
    "prefix",
    "path",
    "safe_regex",
    "path_separated_prefix",
    "connect_matcher",
    "case_sensitive",
    "headers",
    "query_parameters",
    "grpc",
)
_REDIRECT = known(
    "https_redirect",
    "scheme_redirect",
    "host_redirect",
    "port_redirect",
    "path_redirect",
    "prefix_rewrite",
    "response_code",
    "strip_query",
)
_EMPTY = known()
_DIRECT_RESPONSE = known("status", "body")
_BODY = known("inline_string", "inline_bytes")

_TLS_REQUIREMENTS: dict[str, Literal["NONE", "EXTERNAL_ONLY", "ALL"]] = {
    "NONE": "NONE",
    "EXTERNAL_ONLY": "EXTERNAL_ONLY",
    "ALL": "ALL",
}
_REDIRECT_CODES = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}
_SEPARATED_PREFIX = re.compile(r"/[^?#]*[^?#/]")


def route_configuration(message: Any, path: str = "") -> RouteConfiguration:
    """A ``RouteConfiguration``; ``path`` is where it stands when it stands inside a listener."""
    path = path or f"route_config[{message.name}]"
    check(message, path, _ROUTE_CONFIGURATION)
    only(message, path, "validate_clusters", False)
    longest_body: int = wrapped(message, "max_direct_response_body_size_bytes", 4096)
    seen: dict[str, str] = {}
    hosts = []
    for index, item in enumerate(message.virtual_hosts):
        at = f"{path}.virtual_hosts[{index}]"
        host = _virtual_host(item, at, longest_body)
        for number, domain in enumerate(host.domains):
            key = domain.lower()
            forbid(
                key in seen,
                f"{at}.domains[{number}]",
                f"{domain!r} stands in virtual host {seen.get(key)!r} already",
            )
            seen[key] = host.name
        hosts.append(host)
    return RouteConfiguration(
        message.name, tuple(hosts), headers.mutations(message, path), message.ignore_port_in_host_matching
    )


def _virtual_host(message: Any, path: str, longest_body: int) -> VirtualHost:
    check(message, path, _VIRTUAL_HOST)
    required(message.name, f"{path}.name")
    forbid(not message.domains, f"{path}.domains", "is empty")
    for index, domain in enumerate(message.domains):
        at = f"{path}.domains[{index}]"
        forbid(not domain, at, "is empty")
        inner = domain[1:] if domain.startswith("*") else domain.removesuffix("*")
        forbid("*" in inner, at, f"{domain!r}: '*' may only be the first or the last character")
    inherited = None
    if message.HasField("retry_policy"):
        inherited = retry_policy(message.retry_policy, f"{path}.retry_policy")
    buffers = _buffers(message, path, RequestBuffers())
    return VirtualHost(
        message.name,
        tuple(message.domains),
        tuple(
            _route(item, f"{path}.routes[{index}]", inherited, buffers, longest_body)
            for index, item in enumerate(message.routes)
        ),
        headers.mutations(message, path),
        enum(message, path, "require_tls", _TLS_REQUIREMENTS),
        message.include_request_attempt_count,
        message.include_attempt_count_in_response,
    )


def _buffers(message: Any, path: str, inherited: RequestBuffers) -> RequestBuffers:
    """The limits of this level, or those of the level above if it has none."""
    if not any(message.HasField(name) for name in _BUFFERS):
        return inherited
    forbid(
        all(message.HasField(name) for name in _BUFFERS),
        f"{path}.per_request_buffer_limit_bytes",
        "and request_body_buffer_limit exclude each other",
    )
    return RequestBuffers(*(wrapped(message, name, None) for name in _BUFFERS))


def _route(
    message: Any, path: str, inherited: RetryPolicy | None, buffers: RequestBuffers, longest_body: int
) -> Route:
    check(message, path, _ROUTE)
    forbid(not message.HasField("match"), f"{path}.match", "is required")
    match = _match(message.match, f"{path}.match")
    kind = message.WhichOneof("action")
    action: Action
    if kind == "route":
        action = route_action(message.route, f"{path}.route", inherited)
    elif kind == "redirect":
        action = _redirect(message.redirect, f"{path}.redirect")
    elif kind == "direct_response":
        action = _direct_response(message.direct_response, f"{path}.direct_response", longest_body)
    else:
        raise ConfigError(path, "has no action: set route, redirect or direct_response")
    return Route(
        message.name, match, action, headers.mutations(message, path), _buffers(message, path, buffers)
    )


def _match(message: Any, path: str) -> RouteMatch:
    check(message, path, _MATCH)
    check(message.grpc, f"{path}.grpc", _EMPTY)
    case_sensitive = wrapped(message, "case_sensitive", True)
    kind = message.WhichOneof("path_specifier")
    if kind is None:
        raise ConfigError(path, "has no path: set prefix, path, path_separated_prefix or safe_regex")
    if kind == "safe_regex":
        found = PathMatcher("safe_regex", matcher.regex(message.safe_regex, f"{path}.safe_regex"), True)
    elif kind == "connect_matcher":
        check(message.connect_matcher, f"{path}.connect_matcher", _EMPTY)
        found = PathMatcher("connect_matcher", "")
    else:
        value: str = getattr(message, kind)
        if kind == "path_separated_prefix":
            forbid(
                _SEPARATED_PREFIX.fullmatch(value) is None,
                f"{path}.{kind}",
                f"{value!r} must begin with '/', not end with it, and hold neither '?' nor '#'",
            )
        found = PathMatcher(kind, value, case_sensitive)
    return RouteMatch(
        found,
        matcher.headers(message.headers, f"{path}.headers"),
        tuple(
            matcher.query_parameter(item, f"{path}.query_parameters[{index}]")
            for index, item in enumerate(message.query_parameters)
        ),
        message.HasField("grpc"),
    )


def _redirect(message: Any, path: str) -> RedirectAction:
    check(message, path, _REDIRECT)
    scheme: str | None = None
    if message.WhichOneof("scheme_rewrite_specifier") == "scheme_redirect":
        scheme = message.scheme_redirect or None
        forbid(scheme not in (None, "http", "https"), f"{path}.scheme_redirect", f"{scheme!r} {UNSUPPORTED}")
    elif message.https_redirect:
        scheme = "https"
    rewrite = message.WhichOneof("path_rewrite_specifier")
    forbid(message.port_redirect > 65535, f"{path}.port_redirect", f"{message.port_redirect} is not a port")
    for name in ("host_redirect", "path_redirect", "prefix_rewrite"):
        text = getattr(message, name)
        forbid(
            any(ord(char) <= 32 or ord(char) == 127 for char in text), f"{path}.{name}", "holds white space"
        )
    return RedirectAction(
        scheme,
        message.host_redirect or None,
        message.port_redirect or None,
        message.path_redirect if rewrite == "path_redirect" else None,
        message.prefix_rewrite if rewrite == "prefix_rewrite" else None,
        enum(message, path, "response_code", _REDIRECT_CODES),
        message.strip_query,
    )


def _direct_response(message: Any, path: str, longest_body: int) -> DirectResponseAction:
    check(message, path, _DIRECT_RESPONSE)
    forbid(not 200 <= message.status < 600, f"{path}.status", f"{message.status} is not from 200 to 599")
    check(message.body, f"{path}.body", _BODY)
    kind = message.body.WhichOneof("specifier")
    body: bytes = b""
    if kind is not None:
        value = getattr(message.body, kind)
        body = value.encode() if isinstance(value, str) else value
    forbid(
        len(body) > longest_body,
        f"{path}.body",
        f"{len(body)} bytes; max_direct_response_body_size_bytes allows {longest_body}",
    )
    return DirectResponseAction(message.status, body)
