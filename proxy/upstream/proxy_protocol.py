"""Making the PROXY protocol's header for an upstream connection, versions 1 and 2.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Pure bytes; ``proxy.upstream.connect`` sends them.
"""

from __future__ import annotations

import socket
from typing import Any, Final, Protocol

from proxy.model.connection import Address, Ends

V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_PROXY_COMMAND: Final = b"\x21"
_STREAM: Final = {False: b"\x11\x00\x0c", True: b"\x21\x00\x24"}

LOCAL: Final = V2_SIGNATURE + b"\x20\x00\x00\x00"
"""Version 2 of a connection that the proxy makes for itself."""


class _Socket(Protocol):
    def getsockname(self) -> Any: ...
    def getpeername(self) -> Any: ...


def header(version: int, client: Ends | None, sock: _Socket) -> bytes:
    """What to send on ``sock`` on behalf of ``client``; ``None``: of nobody in particular (a pool's connection)."""
    if version == 2:
        return LOCAL if client is None else version_2(*client)
    if client is None:
        # Version 1 has no word for that: Envoy gives the connection's own addresses.
        client = sock.getsockname()[:2], sock.getpeername()[:2]
    return version_1(*client)


def version_1(source: Address, destination: Address) -> bytes:
    """The line for a connection from ``source`` to ``destination``; families that differ are UNKNOWN to it."""
    six = ":" in source[0]
    if six != (":" in destination[0]):
        return b"PROXY UNKNOWN\r\n"
    return (
        f"PROXY TCP{6 if six else 4} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()
    )


def version_2(source: Address, destination: Address) -> bytes:
    """The same in binary. Where the families differ, IPv4 addresses are written as IPv4-mapped IPv6."""
    six = ":" in source[0] or ":" in destination[0]
    packed = b"".join(_pack(address[0], six=six) for address in (source, destination))
    ports = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    return V2_SIGNATURE + _PROXY_COMMAND + _STREAM[six] + packed + ports


def _pack(host: str, *, six: bool) -> bytes:
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host)
    packed = socket.inet_pton(socket.AF_INET, host)
    return b"\x00" * 10 + b"\xff\xff" + packed if six else packed
