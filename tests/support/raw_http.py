"""Reads HTTP/1.1 messages out of recorded bytes, for comparing: lenient about everything that a test wants to see.

It knows nothing of the proxy's own parser, so that one mistake cannot hide another.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

MASKED = frozenset((b"date", b"x-request-id", b"x-envoy-upstream-service-time"))
"""Fields whose value is another one each time."""

_chunk_size = re.compile(rb"([0-9A-Fa-f]+)[^\r\n]*\r\n").match


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``fields`` are lower-cased names with values, sorted; ``framing`` how the body is delimited.

    ``complete``: its framing says that it ended. ``end``: where in the recorded bytes.
    """

    first: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    framing: str
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    complete: bool
    end: int

    @property
    def status(self) -> int:
        """Of a response."""
        found = self.first.split(b" ")
        return int(found[1]) if len(found) > 1 and found[1].isdigit() else 0

    def field(self, name: bytes) -> bytes | None:
        return next((value for field, value in self.fields if field == name), None)

    @property
    def closes(self) -> bool:
        return self.framing == "close" or b"close" in (self.field(b"connection") or b"").lower()

    def shown(self) -> tuple[object, ...]:
        """What is compared: long bodies and values by their length and hash."""
        # RFC 9110 section 5.3: several lines of one name say the same as one line.
        joined: dict[bytes, list[bytes]] = {}
        for name, value in self.fields:
            joined.setdefault(name, []).append(value)
        fields = tuple((name, _value(name, values)) for name, values in joined.items())
        return (
            _short(self.first),
            fields,
            self.framing,
            _short(self.body),
            self.trailers,
            self.complete,
        )


def _value(name: bytes, values: list[bytes]) -> bytes:
    if name in MASKED:
        return b"*"
    value = b",".join(values).replace(b", ", b",")
    return value.lower() if name == b"transfer-encoding" else _short(value)


def _short(value: bytes) -> bytes:
    return value if len(value) < 200 else b"%d bytes, %x" % (len(value), zlib.crc32(value))


def requests(data: bytes) -> tuple[list[Message], bytes]:
    """The requests in ``data``, the last of them perhaps incomplete, and the bytes that are no request."""
    found: list[Message] = []
    at = 0
    while at < len(data):
        message = _read(data, at, response=False, is_head=False)
        if message is None:
            break
        found.append(message)
        at = message.end
        if not message.complete:
            break
    return found, data[at:]


def responses(
    data: bytes, heads: frozenset[int] = frozenset(), *, ended: bool = False
) -> tuple[list[Message], bytes]:
    """The same for responses. ``heads``: which of the final ones answer HEAD. ``ended``: nothing will follow."""
    found: list[Message] = []
    at = final = 0
    while at < len(data):
        message = _read(data, at, response=True, is_head=final in heads, ended=ended)
        if message is None:
            break
        found.append(message)
        at = message.end
        final += message.status >= 200
        if not message.complete or message.status == 101:
            break
    return found, data[at:]


def _read(data: bytes, at: int, *, response: bool, is_head: bool, ended: bool = False) -> Message | None:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        return None
    first, *lines = data[at:end].split(b"\r\n")
    fields = _fields(lines)
    named = dict(fields)
    status = int(first[9:12]) if response and first[9:12].isdigit() else 0
    at = end + 4
    bodiless = response and (is_head or status < 200 or status in (204, 304))
    if b"chunked" in named.get(b"transfer-encoding", b"").lower() and not bodiless:
        body, trailers, complete, at = _chunked(data, at)
        return Message(first, fields, "chunked", body, trailers, complete, at)
    if bodiless:
        return Message(first, fields, "none", b"", (), True, at)
    length = named.get(b"content-length", b"")
    if length.isdigit():
        size = int(length)
        body = data[at : at + size]
        return Message(first, fields, "length", body, (), len(body) == size, at + len(body))
    if response:
        return Message(first, fields, "close", data[at:], (), ended, len(data))
    return Message(first, fields, "none", b"", (), True, at)


def _fields(lines: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    pairs = (line.partition(b":") for line in lines)
    # Stable: the lines of one name stay in order.
    return tuple(
        sorted(((name.lower(), value.strip()) for name, _, value in pairs), key=lambda field: field[0])
    )


def _chunked(data: bytes, at: int) -> tuple[bytes, tuple[tuple[bytes, bytes], ...], bool, int]:
    body = b""
    while True:
        match = _chunk_size(data, at)
        if match is None:
            return body, (), False, at
        size = int(match[1], 16)
        if not size:
            at = match.end()
            if data[at : at + 2] == b"\r\n":
                return body, (), True, at + 2
            end = data.find(b"\r\n\r\n", at)
            if end < 0:
                return body, (), False, at
            return body, _fields(data[at:end].split(b"\r\n")), True, end + 4
        piece = data[match.end() : match.end() + size]
        body += piece
        at = match.end() + len(piece)
        if len(piece) < size or data[at : at + 2] != b"\r\n":
            return body, (), False, at
        at += 2
