"""Listener filters (``extensions.filters.listener``) and the ports on which they are disabled."""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from proxy.model.config import ConfigError
from proxy.model.listener import HttpInspector, ListenerFilter, ProxyProtocol, TlsInspector
from proxy.xds.decode.fields import UNSUPPORTED, check, forbid, known, unpack, wrapped

_LISTENER_FILTER = known(
    "typed_config", "filter_disabled", without_effect={"name": "is a label; the type URL decides"}
)
_TLS_INSPECTOR = known(
    "max_client_hello_size",
    "close_connection_on_client_hello_parsing_errors",
    without_effect={"initial_read_buffer_size": "is a hint on the size of reads; what is found is the same"},
)
_PROXY_PROTOCOL = known("allow_requests_without_proxy_protocol", "disallowed_versions", "stat_prefix")
_PREDICATE = known("or_match", "and_match", "not_match", "any_match", "destination_port_range")
_SET = known("rules")
_RANGE = known("start", "end")
_EMPTY = known()

_PORTS = 1 << 16
_ALL = (1 << _PORTS) - 1
_MAX_CLIENT_HELLO = 16 * 1024
_MAX_DEPTH = 20


def listener_filter(message: Any, path: str) -> ListenerFilter:
    """A ``ListenerFilter``."""
    check(message, path, _LISTENER_FILTER)
    ports = 0
    if message.HasField("filter_disabled"):
        ports = _ports(message.filter_disabled, f"{path}.filter_disabled", _MAX_DEPTH)
    at = f"{path}.typed_config"
    kinds = (
        original_dst_pb2.OriginalDst,
        tls_inspector_pb2.TlsInspector,
        http_inspector_pb2.HttpInspector,
        proxy_protocol_pb2.ProxyProtocol,
    )
    inner = unpack(message.typed_config, at, kinds)
    if isinstance(inner, tls_inspector_pb2.TlsInspector):
        return _tls_inspector(inner, at, ports)
    if isinstance(inner, proxy_protocol_pb2.ProxyProtocol):
        return _proxy_protocol(inner, at, ports)
    check(inner, at, _EMPTY)
    if isinstance(inner, http_inspector_pb2.HttpInspector):
        return HttpInspector(ports)
    forbid(ports != 0, f"{path}.filter_disabled", f"of original_dst {UNSUPPORTED}")
    return "original_dst"


def _tls_inspector(message: Any, path: str, ports: int) -> TlsInspector:
    check(message, path, _TLS_INSPECTOR)
    size: int = wrapped(message, "max_client_hello_size", _MAX_CLIENT_HELLO)
    forbid(
        not 255 < size <= _MAX_CLIENT_HELLO,
        f"{path}.max_client_hello_size",
        f"{size} is not from 256 to {_MAX_CLIENT_HELLO}",
    )
    return TlsInspector(size, message.close_connection_on_client_hello_parsing_errors, ports)


def _proxy_protocol(message: Any, path: str, ports: int) -> ProxyProtocol:
    check(message, path, _PROXY_PROTOCOL)
    versions = frozenset(number + 1 for number in message.disallowed_versions)
    forbid(
        not versions <= {1, 2}, f"{path}.disallowed_versions", f"{sorted(versions)} are not versions 1 and 2"
    )
    return ProxyProtocol(message.allow_requests_without_proxy_protocol, versions, message.stat_prefix, ports)


def _ports(message: Any, path: str, depth: int) -> int:
    """A ``ListenerFilterChainMatchPredicate`` as the set of destination ports that it matches: bit ``n`` for ``n``."""
    check(message, path, _PREDICATE)
    forbid(not depth, path, "is nested too deeply")
    kind: str | None = message.WhichOneof("rule")
    if kind is None:
        raise ConfigError(path, "is empty")
    value = getattr(message, kind)
    path = f"{path}.{kind}"
    if kind == "any_match":
        return _ALL
    if kind == "not_match":
        return _ALL ^ _ports(value, path, depth - 1)
    if kind == "destination_port_range":
        check(value, path, _RANGE)
        forbid(
            not 0 <= value.start < value.end <= _PORTS,
            path,
            f"[{value.start}, {value.end}) is no range of ports",
        )
        start: int = value.start
        end: int = value.end
        return (1 << end) - (1 << start)
    check(value, path, _SET)
    forbid(len(value.rules) < 2, f"{path}.rules", "must have at least two rules")
    found = 0 if kind == "or_match" else _ALL
    for index, item in enumerate(value.rules):
        ports = _ports(item, f"{path}.rules[{index}]", depth - 1)
        found = found | ports if kind == "or_match" else found & ports
    return found
