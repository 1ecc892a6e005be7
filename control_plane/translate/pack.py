"""Small protobuf forms that every other module of translate uses: Any, Duration, addresses, ADS as source."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import address_pb2, config_source_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2

ADS = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(),
    resource_api_version="V3",
)


def packed(message: Any) -> any_pb2.Any:
    """``message`` in an Any, with the same bytes every time."""
    wrapped = any_pb2.Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration, to the millisecond."""
    milliseconds = round(seconds * 1000)
    return duration_pb2.Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def boolean(value: bool) -> wrappers_pb2.BoolValue:
    return wrappers_pb2.BoolValue(value=value)


def uint32(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)


def socket_address(host: str, port: int, *, ipv4_compat: bool = False) -> Any:
    """A TCP socket address."""
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port, ipv4_compat=ipv4_compat)
    )


def wildcard(ipv6: bool, port: int) -> Any:
    """All addresses of the host: one dual-stack socket where there is IPv6, else an IPv4 one."""
    return socket_address("::", port, ipv4_compat=True) if ipv6 else socket_address("0.0.0.0", port)
