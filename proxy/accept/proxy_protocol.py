"""The header of the PROXY protocol, versions 1 and 2, at the beginning of a connection.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Pure; the answer does not depend on how the bytes were
split. It trusts what the header says: whom to believe is the operator's decision, made with the listener filter.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from proxy.model.connection import Address
from proxy.upstream.proxy_protocol import V2_SIGNATURE

MAX_V1: Final = 108
"""The longest version 1 line that is read, its end included."""
_V1: Final = b"PROXY "
_V2_FIXED: Final = 16
_LOCAL: Final = 0
_PROXY: Final = 1
_ADDRESS_SIZES: Final = {1: 4, 2: 16}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A complete header of ``size`` bytes. Without addresses (LOCAL, UNKNOWN) those of the connection hold.

    ``version`` 0: there is no header, and ``size`` is 0.
    """

    version: int
    size: int
    source: Address | None = None
    destination: Address | None = None


class ProxyProtocolError(ValueError):
    """The bytes are no header, or a damaged one. ``version`` is 0 where not even that is known."""

    def __init__(self, version: int, message: str) -> None:
        super().__init__(message)
        self.version = version


NONE: Final = ProxyHeader(0, 0)


class ProxyProtocolReader:
    """Is shown the growing beginning of a connection. ``optional``: there may be no header."""

    __slots__ = ("_optional", "_searched")

    def __init__(self, *, optional: bool) -> None:
        self._optional = optional
        self._searched = 0

    def look(self, early: bytearray) -> ProxyHeader | None:
        """The header; ``None`` = more bytes are needed. Raises ``ProxyProtocolError``."""
        if early.startswith(V2_SIGNATURE):
            return _version_2(early)
        if early.startswith(_V1):
            return self._version_1(early)
        if V2_SIGNATURE.startswith(early) or _V1.startswith(early):
            return None
        if self._optional:
            return NONE
        raise ProxyProtocolError(0, "no PROXY protocol header")

    def _version_1(self, early: bytearray) -> ProxyHeader | None:
        end = early.find(b"\r\n", self._searched, MAX_V1)
        if end < 0:
            if len(early) >= MAX_V1:
                raise ProxyProtocolError(1, f"the line is longer than {MAX_V1} bytes")
            # The line's end may have been split.
            self._searched = len(early) - 1
            return None
        parts = bytes(early[:end]).rstrip().split(b" ")
        if parts[1] == b"UNKNOWN":
            return ProxyHeader(1, end + 2)
        family = _FAMILIES.get(parts[1])
        if family is None or len(parts) != 6:
            raise ProxyProtocolError(1, "the line is not PROXY TCP4|TCP6|UNKNOWN, two addresses, two ports")
        source, destination = (
            (_address(family, parts[n]), _port(parts[n + 2])) for n in (2, 3)
        )  # fmt: skip
        return ProxyHeader(1, end + 2, source, destination)


_FAMILIES: Final = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}


def _address(family: socket.AddressFamily, text: bytes) -> str:
    try:
        packed = socket.inet_pton(family, text.decode("ascii"))
    except (OSError, ValueError):
        raise ProxyProtocolError(1, "an address is malformed") from None
    return _unicast(1, packed)


def _port(text: bytes) -> int:
    if not text.isdigit() or len(text) > 5 or (port := int(text)) > 65535:
        raise ProxyProtocolError(1, "a port is malformed")
    return port


def _unicast(version: int, packed: bytes) -> str:
    """The address as text. TCP runs between unicast addresses only."""
    multicast = packed[0] == 0xFF if len(packed) == 16 else packed[0] & 0xF0 == 0xE0
    if multicast or not any(packed) or packed == b"\xff\xff\xff\xff":
        raise ProxyProtocolError(version, "an address is not unicast")
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def _version_2(early: bytearray) -> ProxyHeader | None:
    if len(early) < _V2_FIXED:
        return None
    if early[12] >> 4 != 2:
        raise ProxyProtocolError(2, f"version {early[12] >> 4} in a version 2 header")
    size = _V2_FIXED + int.from_bytes(early[14:16], "big")
    command = early[12] & 0xF
    if command == _LOCAL:
        return ProxyHeader(2, size) if len(early) >= size else None
    width = _ADDRESS_SIZES.get(early[13] >> 4)
    # 1 is STREAM, 2 is DGRAM.
    if command != _PROXY or width is None or early[13] & 0xF not in (1, 2):
        raise ProxyProtocolError(2, f"command {command} with family and protocol {early[13]:#04x}")
    end = _V2_FIXED + 2 * width + 4
    if size < end:
        raise ProxyProtocolError(2, "shorter than its addresses")
    if len(early) < size:
        return None
    _check_tlvs(early, end, size)
    source = _unicast(2, bytes(early[16 : 16 + width])), int.from_bytes(early[end - 4 : end - 2], "big")
    destination = _unicast(2, bytes(early[16 + width : end - 4])), int.from_bytes(early[end - 2 : end], "big")
    return ProxyHeader(2, size, source, destination)


def _check_tlvs(early: bytearray, at: int, end: int) -> None:
    while at < end:
        value = at + 3
        at = value + int.from_bytes(early[at + 1 : value], "big")
        if value > end or at > end:
            raise ProxyProtocolError(2, "an extension (TLV) is cut short")
