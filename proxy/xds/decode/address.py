"""Addresses, ranges, socket options, bind configuration (``config.core.v3``)."""

from __future__ import annotations

import ipaddress
from typing import Any

from proxy.model.address import BindConfig, CidrRange, SocketAddress, SocketOption
from proxy.model.config import ConfigError
from proxy.xds.decode.fields import UNSUPPORTED, check, enum, forbid, known, required

_ADDRESS = known("socket_address")
_SOCKET_ADDRESS = known("protocol", "address", "port_value")
_LISTEN_ADDRESS = known("protocol", "address", "port_value", "ipv4_compat")
_CIDR = known("address_prefix", "prefix_len")
_SOCKET_OPTION = known(
    "level", "name", "int_value", "state", without_effect={"description": "is a comment for people"}
)
_BIND_CONFIG = known("source_address", "socket_options", "extra_source_addresses")
_EXTRA_SOURCE = known("address")


def address(message: Any, path: str, *, names: bool = False) -> SocketAddress:
    """An ``Address``: a TCP socket address with a numeric port. A host name is refused unless ``names``."""
    check(message, path, _ADDRESS)
    forbid(not message.HasField("socket_address"), f"{path}.socket_address", "is required")
    return socket_address(message.socket_address, f"{path}.socket_address", names=names)


def listen_address(message: Any, path: str) -> tuple[SocketAddress, bool]:
    """A listener's ``Address`` and its ``ipv4_compat``."""
    check(message, path, _ADDRESS)
    forbid(not message.HasField("socket_address"), f"{path}.socket_address", "is required")
    inner = message.socket_address
    found = socket_address(inner, f"{path}.socket_address", allowed=_LISTEN_ADDRESS)
    return found, inner.ipv4_compat


def socket_address(
    message: Any, path: str, *, names: bool = False, allowed: frozenset[str] = _SOCKET_ADDRESS
) -> SocketAddress:
    """A ``SocketAddress``; see :func:`address`."""
    check(message, path, allowed)
    enum(message, path, "protocol", {"TCP": None})
    host = required(message.address, f"{path}.address")
    if not is_ip(host):
        forbid(not names, f"{path}.address", f"{host!r} is not an IP address")
        forbid(
            ":" in host or "/" in host,
            f"{path}.address",
            f"{host!r} is neither an IP address nor a host name",
        )
    port: int = message.port_value
    forbid(port > 65535, f"{path}.port_value", f"{port} is not a port")
    return SocketAddress(host, port)


def is_ip(text: str) -> bool:
    """Whether ``text`` is an IPv4 or IPv6 literal. One with a scope (``fe80::1%eth0``) is not: it means nothing
    outside the host that wrote it."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def cidr(message: Any, path: str) -> CidrRange:
    """A ``CidrRange``; an absent ``prefix_len`` is 0, as in Envoy."""
    check(message, path, _CIDR)
    prefix: str = message.address_prefix
    forbid(not is_ip(prefix), f"{path}.address_prefix", f"{prefix!r} is not an IP address")
    length = message.prefix_len.value if message.HasField("prefix_len") else 0
    longest = 128 if ":" in prefix else 32
    forbid(length > longest, f"{path}.prefix_len", f"{length} is longer than {longest}")
    return CidrRange(prefix, length)


def cidrs(messages: Any, path: str) -> tuple[CidrRange, ...]:
    return tuple(cidr(message, f"{path}[{index}]") for index, message in enumerate(messages))


def bind_config(message: Any, path: str) -> BindConfig:
    """A ``BindConfig`` of upstream connections."""
    check(message, path, _BIND_CONFIG)
    source = None
    if message.HasField("source_address"):
        source = socket_address(message.source_address, f"{path}.source_address")
    extra = []
    for index, item in enumerate(message.extra_source_addresses):
        at = f"{path}.extra_source_addresses[{index}]"
        check(item, at, _EXTRA_SOURCE)
        extra.append(socket_address(item.address, f"{at}.address"))
    options = tuple(
        _socket_option(item, f"{path}.socket_options[{index}]")
        for index, item in enumerate(message.socket_options)
    )
    return BindConfig(source, tuple(extra), options)


def _socket_option(message: Any, path: str) -> SocketOption:
    check(message, path, _SOCKET_OPTION)
    if message.WhichOneof("value") != "int_value":
        raise ConfigError(f"{path}.int_value", "is required")
    enum(message, path, "state", {"STATE_PREBIND": None})
    for name in ("level", "name", "int_value"):
        value = getattr(message, name)
        forbid(not -(2**31) <= value < 2**31, f"{path}.{name}", f"{value} {UNSUPPORTED}: not a C int")
    return SocketOption(message.level, message.name, message.int_value)
