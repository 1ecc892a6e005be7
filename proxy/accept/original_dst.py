"""Where a captured connection was going before the kernel redirected it (``SO_ORIGINAL_DST``)."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

from proxy.model.connection import Address

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; linux/netfilter_ipv6/ip6_tables.h has the same number
_SOL_IPV6 = 41
_IN = struct.Struct("!2xH4s8x")
_IN6 = struct.Struct("!2xH4x16s4x")


class Socket(Protocol):
    """The part of a socket that is asked."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes: ...


def original_destination(sock: Socket, local: str) -> Address | None:
    """The address that the client dialled, ``None`` if the connection was not redirected.

    ``local`` is the socket's own address: v4-mapped peers of a dual-stack socket have their entry in the IPv4 table.
    """
    four = ":" not in local or local.startswith("::ffff:")
    try:
        if four:
            port, packed = _IN.unpack(sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, _IN.size))
            return socket.inet_ntop(socket.AF_INET, packed), port
        port, packed = _IN6.unpack(sock.getsockopt(_SOL_IPV6, _SO_ORIGINAL_DST, _IN6.size))
        return socket.inet_ntop(socket.AF_INET6, packed), port
    except OSError:
        # ENOENT: no connection tracking entry; ENOPROTOOPT: no connection tracking at all.
        return None


def plain(address: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """A socket's address without scope, a v4-mapped one as IPv4."""
    host = address[0].partition("%")[0]
    return (host[7:] if host.startswith("::ffff:") else host), address[1]
