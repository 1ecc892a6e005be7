"""Read server name and ALPN from the first bytes of a connection, without consuming them (RFC 8446, 6066, 7301).

Pure and incremental by being asked again with more bytes; the answer does not depend on how the bytes were split. It
validates nothing beyond what it reads: the handshake does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MAX_BYTES: Final = 64 * 1024
"""The longest ClientHello that is looked at (Envoy's limit); a longer one is no TLS that anybody sends."""

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ALPN = 16


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the first bytes are. ``sni`` is lower case, "" if absent; ``alpn`` as offered."""

    transport_protocol: Literal["raw_buffer", "tls"]
    sni: str = ""
    alpn: tuple[str, ...] = ()


RAW = Inspection("raw_buffer")


class InspectionError(ValueError):
    """The bytes begin as TLS does and then break its rules."""


def inspect(data: bytes | bytearray | memoryview) -> Inspection | None:
    """What ``data`` (all bytes so far) is; ``None`` = more bytes are needed. Raises ``InspectionError``."""
    if not data:
        return None
    if data[0] != _HANDSHAKE:
        return RAW
    # 0x16 alone could begin anything; TLS goes on with version 3.x.
    if len(data) < 2:
        return None
    if data[1] != 3:
        return RAW
    hello = _reassemble(bytes(data[: MAX_BYTES + 5]))
    if hello is None:
        if len(data) >= MAX_BYTES:
            raise InspectionError(f"ClientHello larger than {MAX_BYTES} bytes")
        return None
    try:
        return _client_hello(hello)
    except IndexError:
        raise InspectionError("ClientHello: cut short") from None


def _reassemble(data: bytes) -> bytes | None:
    """The body of the first handshake message, from as many records as it takes."""
    message = bytearray()
    at = 0
    size = len(data)
    while at + 5 <= size:
        if data[at] != _HANDSHAKE or data[at + 1] != 3:
            raise InspectionError("ClientHello: interrupted by another record type")
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < length <= 1 << 14:
            raise InspectionError(f"TLS record of {length} bytes")
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if message and message[0] != _CLIENT_HELLO:
            raise InspectionError("the first handshake message is not a ClientHello")
        if len(message) >= 4:
            need = 4 + int.from_bytes(message[1:4], "big")
            if need > MAX_BYTES:
                raise InspectionError(f"ClientHello larger than {MAX_BYTES} bytes")
            if len(message) >= need:
                return bytes(message[4:need])
    return None


class _Reader:
    """Vectors of the TLS presentation language. Raises ``IndexError`` beyond the end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise IndexError
        self.at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        return self.take(self.number(length_size))

    def more(self) -> bool:
        return self.at < len(self.data)


def _client_hello(body: bytes) -> Inspection:
    reader = _Reader(body)
    reader.take(2 + 32)
    reader.vector(1)
    reader.vector(2)
    reader.vector(1)
    sni = ""
    alpn: tuple[str, ...] = ()
    if reader.more():
        extensions = _Reader(reader.vector(2))
        while extensions.more():
            kind = extensions.number(2)
            content = extensions.vector(2)
            if kind == _SERVER_NAME:
                sni = _server_name(content)
            elif kind == _ALPN:
                alpn = _protocols(content)
    return Inspection("tls", sni, alpn)


def _server_name(content: bytes) -> str:
    if not content:
        return ""
    names = _Reader(_Reader(content).vector(2))
    while names.more():
        kind = names.number(1)
        name = names.vector(2)
        if kind == 0:
            return name.decode("latin-1").lower()
    return ""


def _protocols(content: bytes) -> tuple[str, ...]:
    names = _Reader(_Reader(content).vector(2))
    found = []
    while names.more():
        found.append(names.vector(1).decode("latin-1"))
    return tuple(found)
