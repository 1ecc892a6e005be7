"""Read server name and ALPN from the first bytes of a connection, without consuming them (RFC 8446, 6066, 7301).

Pure; the answer does not depend on how the bytes were split, and a client that sends them one by one costs linear
time. It validates nothing beyond what it reads: the handshake does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MAX_BYTES: Final = 16 * 1024
"""The longest ClientHello that is looked at unless told otherwise (Envoy's limit)."""

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
    """The bytes begin as TLS does and then break its rules, or (``too_large``) go on for too long."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class Inspector:
    """Is shown the growing beginning of a connection; each byte is looked at once."""

    __slots__ = ("_at", "_max", "_message")

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max = max_bytes
        self._at = 0
        self._message = bytearray()

    def look(self, early: bytearray) -> Inspection | None:
        """What the connection is; ``None`` = more bytes are needed. Raises ``InspectionError``."""
        if not early:
            return None
        if early[0] != _HANDSHAKE:
            return RAW
        # 0x16 alone could begin anything; TLS goes on with version 3.x.
        if len(early) < 2:
            return None
        if early[1] != 3:
            return RAW
        if not self._reassemble(early):
            if len(early) >= self._max:
                raise self._too_large()
            return None
        try:
            return _client_hello(bytes(self._message))
        except IndexError:
            raise InspectionError("ClientHello: cut short") from None

    def _reassemble(self, early: bytearray) -> bool:
        """Take the records that are complete; whether they hold the first handshake message, now in ``_message``."""
        message = self._message
        size = len(early)
        while self._at + 5 <= size:
            at = self._at
            if early[at] != _HANDSHAKE or early[at + 1] != 3:
                raise InspectionError("ClientHello: interrupted by another record type")
            length = int.from_bytes(early[at + 3 : at + 5], "big")
            if not 0 < length <= 1 << 14:
                raise InspectionError(f"TLS record of {length} bytes")
            end = at + 5 + length
            if at >= self._max:
                raise self._too_large()
            if not message and size > at + 5 and early[at + 5] != _CLIENT_HELLO:
                raise InspectionError("the first handshake message is not a ClientHello")
            if end > size:
                return False
            message += early[at + 5 : end]
            self._at = end
            if len(message) >= 4:
                need = int.from_bytes(message[1:4], "big") + 4
                if need > MAX_BYTES + 4:
                    raise InspectionError("the first handshake message is longer than any ClientHello")
                if len(message) >= need:
                    if end > self._max:
                        raise self._too_large()
                    del message[need:]
                    del message[:4]
                    return True
        return False

    def _too_large(self) -> InspectionError:
        return InspectionError(f"ClientHello larger than {self._max} bytes", too_large=True)


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
    session = reader.vector(1)
    ciphers = reader.vector(2)
    compressions = reader.vector(1)
    if len(session) > 32 or not ciphers or len(ciphers) % 2 or not compressions:
        raise InspectionError("ClientHello: a vector of impossible length")
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
        if reader.more():
            raise InspectionError("ClientHello: bytes after the extensions")
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
