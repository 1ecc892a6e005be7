"""``HealthCheck``: how the hosts of a cluster are checked. What is not implemented is refused, not ignored."""

from __future__ import annotations

from typing import Any

from proxy.model.config import ConfigError
from proxy.model.health_check import GrpcCheck, HealthCheck, HttpCheck, StatusRange, TcpCheck
from proxy.xds.decode import headers, matcher
from proxy.xds.decode.endpoint import labels
from proxy.xds.decode.fields import check, duration, enum, forbid, known, required, wrapped

_CHECK = known(
    "timeout",
    "interval",
    "initial_jitter",
    "interval_jitter",
    "interval_jitter_percent",
    "unhealthy_threshold",
    "healthy_threshold",
    "reuse_connection",
    "http_health_check",
    "tcp_health_check",
    "grpc_health_check",
    "no_traffic_interval",
    "no_traffic_healthy_interval",
    "unhealthy_interval",
    "unhealthy_edge_interval",
    "healthy_edge_interval",
    "tls_options",
    "transport_socket_match_criteria",
    without_effect={
        "always_log_health_check_failures": "there is no log of health check events",
        "always_log_health_check_success": "there is no log of health check events",
    },
)
_HTTP = known(
    "host",
    "path",
    "send",
    "receive",
    "response_buffer_size",
    "request_headers_to_add",
    "request_headers_to_remove",
    "expected_statuses",
    "retriable_statuses",
    "codec_client_type",
    "service_name_matcher",
    "method",
)
_TCP = known("send", "receive")
_GRPC = known("service_name", "authority", "initial_metadata")
_TLS = known("alpn_protocols")
_PAYLOAD = known("text", "binary")
_RANGE = known("start", "end")
_METHODS = {"METHOD_UNSPECIFIED": "GET"} | {
    name: name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")
}
_BODILESS = frozenset(("GET", "HEAD", "DELETE", "TRACE"))
_CODECS = {"HTTP1": False, "HTTP2": True}


def health_check(message: Any, path: str, *, http2: bool) -> HealthCheck:
    """A ``HealthCheck``. ``http2``: the cluster's hosts speak that, as gRPC needs."""
    check(message, path, _CHECK)
    kind = message.WhichOneof("health_checker")
    at = f"{path}.{kind}"
    what: HttpCheck | TcpCheck | GrpcCheck
    if kind == "http_health_check":
        what = _http(message.http_health_check, at)
    elif kind == "tcp_health_check":
        what = _tcp(message.tcp_health_check, at)
    elif kind == "grpc_health_check":
        forbid(not http2, at, "needs a cluster with http2_protocol_options")
        what = _grpc(message.grpc_health_check, at)
    else:
        raise ConfigError(path, "set http_health_check, tcp_health_check or grpc_health_check")
    interval = _positive(message, path, "interval", None)
    no_traffic = _positive(message, path, "no_traffic_interval", 60.0)
    unhealthy = _positive(message, path, "unhealthy_interval", interval)
    tls = f"{path}.tls_options"
    check(message.tls_options, tls, _TLS)
    return HealthCheck(
        check=what,
        timeout=_positive(message, path, "timeout", None),
        interval=interval,
        unhealthy_threshold=_threshold(message, path, "unhealthy_threshold"),
        healthy_threshold=_threshold(message, path, "healthy_threshold"),
        no_traffic_interval=no_traffic,
        no_traffic_healthy_interval=_positive(message, path, "no_traffic_healthy_interval", no_traffic),
        unhealthy_interval=unhealthy,
        unhealthy_edge_interval=_positive(message, path, "unhealthy_edge_interval", unhealthy),
        healthy_edge_interval=_positive(message, path, "healthy_edge_interval", interval),
        initial_jitter=duration(message, path, "initial_jitter", 0.0),
        interval_jitter=duration(message, path, "interval_jitter", 0.0),
        interval_jitter_percent=message.interval_jitter_percent,
        reuse_connection=wrapped(message, "reuse_connection", True),
        alpn_protocols=tuple(
            required(name, f"{tls}.alpn_protocols[{n}]")
            for n, name in enumerate(message.tls_options.alpn_protocols)
        ),
        transport_match=labels(
            message.transport_socket_match_criteria, f"{path}.transport_socket_match_criteria"
        ),
    )


def _positive(message: Any, path: str, name: str, default: float | None) -> float:
    found = duration(message, path, name, default)
    if found is None:
        raise ConfigError(f"{path}.{name}", "is required")
    forbid(found <= 0, f"{path}.{name}", "must be above 0")
    return found


def _threshold(message: Any, path: str, name: str) -> int:
    forbid(not message.HasField(name), f"{path}.{name}", "is required")
    value: int = getattr(message, name).value
    return value


def _http(message: Any, path: str) -> HttpCheck:
    check(message, path, _HTTP)
    _clean(message.path, f"{path}.path")
    _clean(message.host, f"{path}.host")
    method = enum(message, path, "method", _METHODS)
    send = b""
    if message.HasField("send"):
        forbid(method in _BODILESS, f"{path}.send", f"{method} has no body")
        send = _payload(message.send, f"{path}.send")
    receive = _payloads(message.receive, f"{path}.receive")
    size = wrapped(message, "response_buffer_size", 1024)
    total = sum(len(piece) for piece in receive)
    forbid(
        bool(size) and total > size, f"{path}.response_buffer_size", f"is below the {total} bytes of receive"
    )
    service = None
    if message.HasField("service_name_matcher"):
        service = matcher.string(message.service_name_matcher, f"{path}.service_name_matcher")
    return HttpCheck(
        required(message.path, f"{path}.path"),
        message.host,
        method,
        send,
        receive,
        size,
        headers.added(message.request_headers_to_add, f"{path}.request_headers_to_add"),
        headers.removed(message.request_headers_to_remove, f"{path}.request_headers_to_remove"),
        _ranges(message.expected_statuses, f"{path}.expected_statuses") or ((200, 201),),
        _ranges(message.retriable_statuses, f"{path}.retriable_statuses"),
        enum(message, path, "codec_client_type", _CODECS),
        service,
    )


def _tcp(message: Any, path: str) -> TcpCheck:
    check(message, path, _TCP)
    send = _payload(message.send, f"{path}.send") if message.HasField("send") else b""
    return TcpCheck(send, _payloads(message.receive, f"{path}.receive"))


def _grpc(message: Any, path: str) -> GrpcCheck:
    check(message, path, _GRPC)
    _clean(message.authority, f"{path}.authority")
    return GrpcCheck(
        message.service_name,
        message.authority,
        headers.added(message.initial_metadata, f"{path}.initial_metadata"),
    )


def _payloads(messages: Any, path: str) -> tuple[bytes, ...]:
    return tuple(_payload(item, f"{path}[{n}]") for n, item in enumerate(messages))


def _payload(message: Any, path: str) -> bytes:
    """Bytes, which ``text`` has in hexadecimal."""
    check(message, path, _PAYLOAD)
    kind = message.WhichOneof("payload")
    if kind == "binary":
        made: bytes = message.binary
        return made
    if kind is None:
        raise ConfigError(path, "set text or binary")
    text = required(message.text, f"{path}.text")
    try:
        if not text.isalnum():
            # ``fromhex`` would take blanks.
            raise ValueError
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigError(f"{path}.text", f"{text!r} is not hexadecimal") from None


def _ranges(messages: Any, path: str) -> tuple[StatusRange, ...]:
    found = []
    for n, item in enumerate(messages):
        at = f"{path}[{n}]"
        check(item, at, _RANGE)
        first, end = item.start, item.end
        forbid(
            not 100 <= first < end <= 600,
            at,
            f"from {first} to {end} is no range of statuses between 100 and 600",
        )
        found.append((first, end))
    return tuple(found)


def _clean(text: str, path: str) -> None:
    forbid(any(ord(char) <= 32 or ord(char) == 127 for char in text), path, "holds white space")
