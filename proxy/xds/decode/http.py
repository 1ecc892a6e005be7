"""The HTTP connection manager and its filters."""

from __future__ import annotations

from typing import Any, Literal

from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2

from proxy.model.address import CidrRange
from proxy.model.config import ConfigError
from proxy.model.listener import ClientCertDetails, HttpConnectionManager, SetClientCertDetails, SlashesAction
from proxy.model.rbac import Rbac
from proxy.model.route import RouteConfiguration
from proxy.xds.decode import rbac
from proxy.xds.decode.access_log import access_logs
from proxy.xds.decode.address import cidr
from proxy.xds.decode.fields import (
    check,
    duration,
    enum,
    forbid,
    known,
    only,
    required,
    unpack,
    wrapped,
)
from proxy.xds.decode.http2 import http2_options
from proxy.xds.decode.local_reply import local_reply
from proxy.xds.decode.route import route_configuration
from proxy.xds.decode.tls import require_ads

_MANAGER = known(
    "codec_type",
    "stat_prefix",
    "rds",
    "route_config",
    "http_filters",
    "common_http_protocol_options",
    "http_protocol_options",
    "http2_protocol_options",
    "server_name",
    "server_header_transformation",
    "max_request_headers_kb",
    "stream_idle_timeout",
    "request_timeout",
    "request_headers_timeout",
    "drain_timeout",
    "delayed_close_timeout",
    "access_log",
    "use_remote_address",
    "xff_num_trusted_hops",
    "skip_xff_append",
    "append_x_forwarded_port",
    "local_reply_config",
    "proxy_100_continue",
    "strip_matching_host_port",
    "strip_any_host_port",
    "strip_trailing_host_dot",
    "internal_address_config",
    "via",
    "generate_request_id",
    "preserve_external_request_id",
    "always_set_request_id_in_response",
    "forward_client_cert_details",
    "set_current_client_cert_details",
    "upgrade_configs",
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "stream_error_on_invalid_http_message",
)
_RDS = known("config_source", "route_config_name")
_COMMON = known(
    "idle_timeout",
    "max_connection_duration",
    "max_headers_count",
    "max_requests_per_connection",
    "max_stream_duration",
    "headers_with_underscores_action",
)
_HTTP1 = known("accept_http_10", "allow_absolute_url", "allow_custom_methods", "default_host_for_http_10")
_UNDERSCORES: dict[str, Literal["ALLOW", "REJECT_REQUEST", "DROP_HEADER"]] = {
    "ALLOW": "ALLOW",
    "REJECT_REQUEST": "REJECT_REQUEST",
    "DROP_HEADER": "DROP_HEADER",
}
_FILTER = known("typed_config", "is_optional", without_effect={"name": "is a label; the type URL decides"})
_ROUTER = known(
    "suppress_envoy_headers", without_effect={"dynamic_stats": "statistics of single routes are always there"}
)
_UPGRADE = known("upgrade_type", "enabled")
_INTERNAL = known(
    "cidr_ranges",
    without_effect={"unix_sockets": "there are no listeners on unix sockets, so no peer is one"},
)
_CERT_DETAILS = known("subject", "cert", "chain", "dns", "uri")

_CODECS: dict[str, Literal["AUTO", "HTTP1", "HTTP2"]] = {"AUTO": "AUTO", "HTTP1": "HTTP1", "HTTP2": "HTTP2"}
_SERVER_HEADER: dict[str, Literal["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"]] = {
    "OVERWRITE": "OVERWRITE",
    "APPEND_IF_ABSENT": "APPEND_IF_ABSENT",
    "PASS_THROUGH": "PASS_THROUGH",
}
_CLIENT_CERT: dict[str, ClientCertDetails] = {
    "SANITIZE": "SANITIZE",
    "FORWARD_ONLY": "FORWARD_ONLY",
    "APPEND_FORWARD": "APPEND_FORWARD",
    "SANITIZE_SET": "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY": "ALWAYS_FORWARD_ONLY",
}
_SLASHES: dict[str, SlashesAction] = {
    "IMPLEMENTATION_SPECIFIC_DEFAULT": "KEEP_UNCHANGED",
    "KEEP_UNCHANGED": "KEEP_UNCHANGED",
    "REJECT_REQUEST": "REJECT_REQUEST",
    "UNESCAPE_AND_REDIRECT": "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD": "UNESCAPE_AND_FORWARD",
}


def http_connection_manager(message: Any, path: str) -> HttpConnectionManager:
    """An ``HttpConnectionManager``; absent options get Envoy's defaults."""
    check(message, path, _MANAGER)
    codec = enum(message, path, "codec_type", _CODECS)
    if codec != "HTTP2":
        only(message, path, "stream_error_on_invalid_http_message", False)
    filters, suppress = _filters(message.http_filters, f"{path}.http_filters")
    common = message.common_http_protocol_options
    at = f"{path}.common_http_protocol_options"
    check(common, at, _COMMON)
    http1 = message.http_protocol_options
    check(http1, f"{path}.http_protocol_options", _HTTP1)
    only(http1, f"{path}.http_protocol_options", "allow_absolute_url", True)
    headers_kb = wrapped(message, "max_request_headers_kb", 60)
    forbid(
        not 1 <= headers_kb <= 8192, f"{path}.max_request_headers_kb", f"{headers_kb} is not from 1 to 8192"
    )
    headers_count = wrapped(common, "max_headers_count", 100)
    forbid(headers_count < 1, f"{at}.max_headers_count", "must be at least 1")
    default_host = http1.default_host_for_http_10
    forbid(
        not default_host.isprintable() or " " in default_host,
        f"{path}.http_protocol_options.default_host_for_http_10",
        "is not a host",
    )
    for name in ("server_name", "via"):
        forbid(not getattr(message, name).isprintable(), f"{path}.{name}", "holds a control character")
    return HttpConnectionManager(
        stat_prefix=required(message.stat_prefix, f"{path}.stat_prefix"),
        route=_route(message, path),
        codec_type=codec,
        http2=http2_options(
            message.http2_protocol_options,
            f"{path}.http2_protocol_options",
            wrapped(message, "stream_error_on_invalid_http_message", None),
        ),
        rbac=filters,
        access_log=access_logs(message.access_log, f"{path}.access_log"),
        generate_request_id=wrapped(message, "generate_request_id", True),
        preserve_external_request_id=message.preserve_external_request_id,
        always_set_request_id_in_response=message.always_set_request_id_in_response,
        use_remote_address=wrapped(message, "use_remote_address", False),
        skip_xff_append=message.skip_xff_append,
        xff_num_trusted_hops=message.xff_num_trusted_hops,
        append_x_forwarded_port=message.append_x_forwarded_port,
        internal_cidr_ranges=_internal(message, path),
        via=message.via,
        server_name=message.server_name or "envoy",
        server_header_transformation=enum(message, path, "server_header_transformation", _SERVER_HEADER),
        forward_client_cert_details=enum(message, path, "forward_client_cert_details", _CLIENT_CERT),
        set_current_client_cert_details=_cert_details(message, path),
        normalize_path=wrapped(message, "normalize_path", False),
        merge_slashes=message.merge_slashes,
        path_with_escaped_slashes_action=enum(message, path, "path_with_escaped_slashes_action", _SLASHES),
        max_request_headers_kb=headers_kb,
        max_headers_count=headers_count,
        stream_idle_timeout=duration(message, path, "stream_idle_timeout", 300.0),
        request_timeout=duration(message, path, "request_timeout", 0.0),
        request_headers_timeout=duration(message, path, "request_headers_timeout", 0.0),
        idle_timeout=duration(common, at, "idle_timeout", 3600.0),
        max_connection_duration=duration(common, at, "max_connection_duration", 0.0),
        max_requests_per_connection=wrapped(common, "max_requests_per_connection", 0),
        drain_timeout=duration(message, path, "drain_timeout", 5.0),
        delayed_close_timeout=duration(message, path, "delayed_close_timeout", 1.0),
        upgrade_types=_upgrades(message, path),
        accept_http_10=http1.accept_http_10,
        allow_custom_methods=http1.allow_custom_methods,
        suppress_envoy_headers=suppress,
        headers_with_underscores_action=enum(common, at, "headers_with_underscores_action", _UNDERSCORES),
        strip_port=_strip_port(message, path),
        strip_trailing_host_dot=message.strip_trailing_host_dot,
        default_host_for_http_10=http1.default_host_for_http_10,
        proxy_100_continue=message.proxy_100_continue,
        max_stream_duration=duration(common, at, "max_stream_duration", 0.0),
        local_reply=local_reply(message.local_reply_config, f"{path}.local_reply_config")
        if message.HasField("local_reply_config")
        else None,
    )


def _route(message: Any, path: str) -> RouteConfiguration | str:
    kind = message.WhichOneof("route_specifier")
    if kind == "route_config":
        return route_configuration(message.route_config, f"{path}.route_config")
    if kind == "rds":
        at = f"{path}.rds"
        check(message.rds, at, _RDS)
        require_ads(message.rds.config_source, f"{at}.config_source")
        return required(message.rds.route_config_name, f"{at}.route_config_name")
    raise ConfigError(path, "has no routes: set rds or route_config")


def _filters(messages: Any, path: str) -> tuple[tuple[Rbac, ...], bool]:
    """The RBAC filters in order, and the router's ``suppress_envoy_headers``."""
    found: list[Rbac] = []
    suppress: bool | None = None
    for index, item in enumerate(messages):
        at = f"{path}[{index}]"
        check(item, at, _FILTER)
        forbid(
            suppress is not None,
            at,
            "a filter after the router is never reached; the router must be the last",
        )
        try:
            inner = unpack(item.typed_config, f"{at}.typed_config", (rbac_pb2.RBAC, router_pb2.Router))
        except ConfigError:
            # Envoy's own rule: who sets is_optional has said that the filter may be missing.
            if item.is_optional and item.typed_config.type_url:
                continue
            raise
        if isinstance(inner, router_pb2.Router):
            check(inner, f"{at}.typed_config", _ROUTER)
            suppress = inner.suppress_envoy_headers
        else:
            rules = rbac.http_filter(inner, f"{at}.typed_config")
            if rules is not None:
                found.append(rules)
    if suppress is None:
        raise ConfigError(path, "the last filter must be envoy.extensions.filters.http.router.v3.Router")
    return tuple(found), suppress


def _cert_details(message: Any, path: str) -> SetClientCertDetails:
    details = message.set_current_client_cert_details
    check(details, f"{path}.set_current_client_cert_details", _CERT_DETAILS)
    return SetClientCertDetails(
        wrapped(details, "subject", False), details.uri, details.dns, details.cert, details.chain
    )


def _strip_port(message: Any, path: str) -> Literal["NO", "MATCHING", "ANY"]:
    any_port = message.WhichOneof("strip_port_mode") == "strip_any_host_port" and message.strip_any_host_port
    forbid(
        message.strip_matching_host_port and any_port,
        f"{path}.strip_matching_host_port",
        "set this or strip_any_host_port, not both",
    )
    if any_port:
        return "ANY"
    return "MATCHING" if message.strip_matching_host_port else "NO"


def _internal(message: Any, path: str) -> tuple[CidrRange, ...]:
    at = f"{path}.internal_address_config"
    check(message.internal_address_config, at, _INTERNAL)
    return tuple(
        cidr(item, f"{at}.cidr_ranges[{index}]")
        for index, item in enumerate(message.internal_address_config.cidr_ranges)
    )


def _upgrades(message: Any, path: str) -> tuple[str, ...]:
    found = []
    seen: set[str] = set()
    for index, item in enumerate(message.upgrade_configs):
        at = f"{path}.upgrade_configs[{index}]"
        check(item, at, _UPGRADE)
        kind = required(item.upgrade_type, f"{at}.upgrade_type")
        forbid(kind.lower() in seen, f"{at}.upgrade_type", f"{kind!r} is there twice")
        seen.add(kind.lower())
        if wrapped(item, "enabled", True):
            found.append(kind.lower())
    return tuple(found)
