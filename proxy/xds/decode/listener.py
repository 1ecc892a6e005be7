"""Listeners, filter chains and network filters (``config.listener.v3``)."""

from __future__ import annotations

from typing import Any, Literal

from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from proxy.model.config import ConfigError
from proxy.model.listener import (
    ConnectionLimit,
    FilterChain,
    FilterChainMatch,
    Listener,
    TerminalFilter,
)
from proxy.model.rbac import Rbac
from proxy.xds.decode import address, rbac, tls
from proxy.xds.decode.access_log import access_logs
from proxy.xds.decode.fields import (
    UNSUPPORTED,
    check,
    duration,
    enum,
    forbid,
    known,
    required,
    unpack,
    wrapped,
)
from proxy.xds.decode.http import http_connection_manager
from proxy.xds.decode.listener_filter import listener_filter
from proxy.xds.decode.tcp_proxy import tcp_proxy

_LISTENER = known(
    "name",
    "address",
    "additional_addresses",
    "stat_prefix",
    "filter_chains",
    "default_filter_chain",
    "use_original_dst",
    "per_connection_buffer_limit_bytes",
    "listener_filters",
    "listener_filters_timeout",
    "continue_on_listener_filters_timeout",
    "traffic_direction",
    "access_log",
    "tcp_backlog_size",
    "bind_to_port",
    without_effect={
        "metadata": "carries information for other readers of the configuration",
        "enable_reuse_port": "how sockets are shared between workers changes no outcome",
        "max_connections_to_accept_per_socket_event": "is a hint on scheduling",
    },
)
_ADDITIONAL = known("address")
_CHAIN = known(
    "name",
    "filter_chain_match",
    "filters",
    "transport_socket",
    "transport_socket_connect_timeout",
    without_effect={"metadata": "carries information for other readers of the configuration"},
)
_MATCH = known(
    "destination_port",
    "prefix_ranges",
    "direct_source_prefix_ranges",
    "source_prefix_ranges",
    "source_ports",
    "server_names",
    "transport_protocol",
    "application_protocols",
)
_CONNECTION_LIMIT = known("stat_prefix", "max_connections", "delay", "runtime_enabled")
_FLAG = known("default_value", without_effect={"runtime_key": "there are no runtime overrides"})
_FILTER = known("typed_config", without_effect={"name": "is a label; the type URL decides"})
_DIRECTIONS: dict[str, Literal["UNSPECIFIED", "INBOUND", "OUTBOUND"]] = {
    "UNSPECIFIED": "UNSPECIFIED",
    "INBOUND": "INBOUND",
    "OUTBOUND": "OUTBOUND",
}
_TRANSPORTS: dict[str, Literal["", "raw_buffer", "tls"]] = {"": "", "raw_buffer": "raw_buffer", "tls": "tls"}


def listener(message: Any) -> Listener:
    """A ``Listener``."""
    path = f"listener[{message.name}]"
    check(message, path, _LISTENER)
    required(message.name, f"{path}.name")
    forbid(not message.HasField("address"), f"{path}.address", "is required")
    bound, ipv4_compat = address.listen_address(message.address, f"{path}.address")
    more = []
    for index, item in enumerate(message.additional_addresses):
        at = f"{path}.additional_addresses[{index}]"
        check(item, at, _ADDITIONAL)
        more.append(address.address(item.address, f"{at}.address"))
    default = None
    if message.HasField("default_filter_chain"):
        default = _chain(message.default_filter_chain, f"{path}.default_filter_chain")
    forbid(not message.filter_chains and default is None, f"{path}.filter_chains", "is empty")
    backlog: int = wrapped(message, "tcp_backlog_size", 4096)
    forbid(not 1 <= backlog < 2**31, f"{path}.tcp_backlog_size", f"{backlog} is not from 1 to 2147483647")
    buffer: int = wrapped(message, "per_connection_buffer_limit_bytes", 1024 * 1024)
    return Listener(
        name=message.name,
        address=bound,
        filter_chains=tuple(
            _chain(item, f"{path}.filter_chains[{index}]") for index, item in enumerate(message.filter_chains)
        ),
        default_filter_chain=default,
        additional_addresses=tuple(more),
        ipv4_compat=ipv4_compat,
        bind_to_port=wrapped(message, "bind_to_port", True),
        use_original_dst=wrapped(message, "use_original_dst", False),
        listener_filters=tuple(
            listener_filter(item, f"{path}.listener_filters[{index}]")
            for index, item in enumerate(message.listener_filters)
        ),
        listener_filters_timeout=duration(message, path, "listener_filters_timeout", 15.0),
        continue_on_listener_filters_timeout=message.continue_on_listener_filters_timeout,
        per_connection_buffer_limit_bytes=buffer,
        tcp_backlog_size=backlog,
        traffic_direction=enum(message, path, "traffic_direction", _DIRECTIONS),
        access_log=access_logs(message.access_log, f"{path}.access_log"),
        stat_prefix=message.stat_prefix,
    )


def _chain(message: Any, path: str) -> FilterChain:
    check(message, path, _CHAIN)
    secured = None
    if message.HasField("transport_socket"):
        secured = tls.downstream(message.transport_socket, f"{path}.transport_socket")
    rules, limits, terminal = _filters(message.filters, f"{path}.filters")
    return FilterChain(
        message.name,
        terminal,
        _match(message.filter_chain_match, f"{path}.filter_chain_match"),
        secured,
        rules,
        duration(message, path, "transport_socket_connect_timeout", 0.0),
        limits,
    )


def _filters(
    messages: Any, path: str
) -> tuple[tuple[Rbac, ...], tuple[ConnectionLimit, ...], TerminalFilter]:
    rules: list[Rbac] = []
    limits: list[ConnectionLimit] = []
    terminal: TerminalFilter | None = None
    kinds = (
        http_connection_manager_pb2.HttpConnectionManager,
        tcp_proxy_pb2.TcpProxy,
        rbac_pb2.RBAC,
        connection_limit_pb2.ConnectionLimit,
    )
    for index, item in enumerate(messages):
        at = f"{path}[{index}]"
        check(item, at, _FILTER)
        forbid(terminal is not None, at, "a filter after a terminal filter is never reached")
        at = f"{at}.typed_config"
        inner = unpack(item.typed_config, at, kinds)
        if isinstance(inner, rbac_pb2.RBAC):
            found = rbac.network_filter(inner, at)
            if found is not None:
                rules.append(found)
        elif isinstance(inner, connection_limit_pb2.ConnectionLimit):
            limit = _connection_limit(inner, at)
            if limit is not None:
                limits.append(limit)
        elif isinstance(inner, tcp_proxy_pb2.TcpProxy):
            terminal = tcp_proxy(inner, at)
        else:
            terminal = http_connection_manager(inner, at)
    if terminal is None:
        raise ConfigError(path, "the last filter must be HttpConnectionManager or TcpProxy")
    return tuple(rules), tuple(limits), terminal


def _connection_limit(message: Any, path: str) -> ConnectionLimit | None:
    """``None`` when it is switched off."""
    check(message, path, _CONNECTION_LIMIT)
    if message.HasField("runtime_enabled"):
        check(message.runtime_enabled, f"{path}.runtime_enabled", _FLAG)
        if not wrapped(message.runtime_enabled, "default_value", True):
            return None
    most: int = wrapped(message, "max_connections", 0)
    forbid(most < 1, f"{path}.max_connections", "must be at least 1")
    prefix = required(message.stat_prefix, f"{path}.stat_prefix")
    return ConnectionLimit(prefix, most, duration(message, path, "delay", 0.0))


def _match(message: Any, path: str) -> FilterChainMatch:
    check(message, path, _MATCH)
    port = message.destination_port.value if message.HasField("destination_port") else None
    forbid(port is not None and not 1 <= port <= 65535, f"{path}.destination_port", f"{port} is not a port")
    transport = message.transport_protocol
    forbid(transport not in _TRANSPORTS, f"{path}.transport_protocol", f"{transport!r} {UNSUPPORTED}")
    for index, name in enumerate(message.server_names):
        wildcard = "*" in (name[1:] if name.startswith("*.") else name)
        forbid(
            not name or wildcard,
            f"{path}.server_names[{index}]",
            f"{name!r}: only a leading '*.' is a wildcard",
        )
    return FilterChainMatch(
        port,
        address.cidrs(message.prefix_ranges, f"{path}.prefix_ranges"),
        tuple(message.server_names),
        _TRANSPORTS[transport],
        tuple(message.application_protocols),
        address.cidrs(message.direct_source_prefix_ranges, f"{path}.direct_source_prefix_ranges"),
        address.cidrs(message.source_prefix_ranges, f"{path}.source_prefix_ranges"),
        tuple(message.source_ports),
    )
