"""How a cluster speaks HTTP: ``HttpProtocolOptions``, or the older fields of the cluster itself.

It looks at no transport socket: that AUTO needs TLS is for who knows both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from proxy.model.cluster import UpstreamProtocol
from proxy.model.http2 import HTTP2_DEFAULTS, Http2Options
from proxy.xds.decode.fields import UNSUPPORTED, check, duration, enum, forbid, known, unpack, wrapped
from proxy.xds.decode.http2 import http2_options

OLD_FIELDS = (
    "common_http_protocol_options",
    "http_protocol_options",
    "http2_protocol_options",
    "protocol_selection",
)
"""Fields of a cluster that Envoy reads where there are no ``HttpProtocolOptions``."""

_OPTIONS = known(
    "common_http_protocol_options", "explicit_http_config", "auto_config", "use_downstream_protocol_config"
)
_COMMON = known(
    "idle_timeout",
    "max_connection_duration",
    "max_requests_per_connection",
    "max_response_headers_kb",
    "max_headers_count",
)
_EITHER = known("http_protocol_options", "http2_protocol_options")
_HTTP1 = known()

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class ProtocolOptions(NamedTuple):
    """Part of ``proxy.model.cluster.Cluster``, under its names. ``path``: where the protocol was chosen."""

    path: str
    idle_timeout: float = 3600.0
    max_connection_duration: float = 0.0
    max_requests_per_connection: int = 0
    max_response_headers_kb: int = 80
    max_http2_response_headers_kb: int = 60
    max_headers_count: int = 100
    protocol: UpstreamProtocol = "HTTP1"
    http2: Http2Options = HTTP2_DEFAULTS


def protocol_options(message: Any, path: str) -> ProtocolOptions:
    """Those of the cluster ``message``."""
    at = f"{path}.typed_extension_protocol_options"
    for key in message.typed_extension_protocol_options:
        forbid(key != _HTTP_OPTIONS, f"{at}[{key}]", UNSUPPORTED)
    requests: int = wrapped(message, "max_requests_per_connection", 0)
    if _HTTP_OPTIONS not in message.typed_extension_protocol_options:
        return _old(message, path, requests)
    for field, _ in message.ListFields():
        forbid(
            field.name in OLD_FIELDS,
            f"{path}.{field.name}",
            "nobody reads it beside typed_extension_protocol_options",
        )
    at = f"{at}[{_HTTP_OPTIONS}]"
    options = unpack(
        message.typed_extension_protocol_options[_HTTP_OPTIONS],
        at,
        (http_protocol_options_pb2.HttpProtocolOptions,),
    )
    check(options, at, _OPTIONS)
    kind = options.WhichOneof("upstream_protocol_options")
    forbid(
        kind is None,
        f"{at}.explicit_http_config",
        "is required, or auto_config, or use_downstream_protocol_config",
    )
    chosen = getattr(options, kind)
    at_chosen = f"{at}.{kind}"
    check(chosen, at_chosen, _EITHER)
    protocol: UpstreamProtocol
    if kind == "auto_config":
        protocol = "AUTO"
    elif kind == "use_downstream_protocol_config":
        protocol = "DOWNSTREAM"
    else:
        which = chosen.WhichOneof("protocol_config")
        forbid(which is None, at_chosen, "set http_protocol_options or http2_protocol_options")
        protocol = "HTTP2" if which == "http2_protocol_options" else "HTTP1"
    common = options.common_http_protocol_options
    return _made(chosen, at_chosen, common, f"{at}.common_http_protocol_options", protocol, requests)


def _old(message: Any, path: str, requests: int) -> ProtocolOptions:
    selected = enum(
        message,
        path,
        "protocol_selection",
        {"USE_CONFIGURED_PROTOCOL": False, "USE_DOWNSTREAM_PROTOCOL": True},
    )
    forbid(
        not selected and all(message.HasField(f"{name}_protocol_options") for name in ("http", "http2")),
        f"{path}.http_protocol_options",
        "and http2_protocol_options exclude each other unless protocol_selection is USE_DOWNSTREAM_PROTOCOL",
    )
    protocol: UpstreamProtocol = "HTTP1"
    if selected:
        protocol = "DOWNSTREAM"
    elif message.HasField("http2_protocol_options"):
        protocol = "HTTP2"
    common = message.common_http_protocol_options
    return _made(message, path, common, f"{path}.common_http_protocol_options", protocol, requests)


def _made(
    chosen: Any, path: str, common: Any, at: str, protocol: UpstreamProtocol, requests: int
) -> ProtocolOptions:
    """``chosen`` has ``http_protocol_options`` and ``http2_protocol_options``, each set or not."""
    check(chosen.http_protocol_options, f"{path}.http_protocol_options", _HTTP1)
    check(common, at, _COMMON)
    headers_kb: int | None = wrapped(common, "max_response_headers_kb", None)
    forbid(
        headers_kb is not None and not 1 <= headers_kb <= 8192,
        f"{at}.max_response_headers_kb",
        f"{headers_kb} is not from 1 to 8192",
    )
    headers_count = wrapped(common, "max_headers_count", 100)
    forbid(headers_count < 1, f"{at}.max_headers_count", "must be at least 1")
    return ProtocolOptions(
        path,
        duration(common, at, "idle_timeout", 3600.0),
        duration(common, at, "max_connection_duration", 0.0),
        wrapped(common, "max_requests_per_connection", requests),
        80 if headers_kb is None else headers_kb,
        60 if headers_kb is None else headers_kb,
        headers_count,
        protocol,
        http2_options(chosen.http2_protocol_options, f"{path}.http2_protocol_options"),
    )
