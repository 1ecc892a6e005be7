"""Chunked bodies (RFC 9112 section 7.1): follow the framing, strictly, and give the bytes to pass on.

What comes out is canonical framing: chunk extensions are dropped and trailer fields that could be mistaken for
framing, routing or identity are left out (RFC 9110 section 6.5.1). No size line is passed on before all of it has
come and been checked. It holds at most one unfinished line and the trailer section.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.http1.errors import ProtocolError

MAX_LINE: Final = 60 * 1024
"""Bytes of a chunk's size line, and of the whole trailer section, unless said otherwise."""

_SIZE, _DATA, _END_OF_DATA, _TRAILERS, _DONE = range(5)

_match_size = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?\r\n").fullmatch
# The first 18 bytes of a line that has not ended yet.
_match_size_start = re.compile(rb"[0-9A-Fa-f]{1,16}(?:\Z|[ \t;]|\r\Z)").match
_match_trailer = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[\t\x20-\x7e\x80-\xff]*+\r\n").fullmatch
_find_control = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search

_FORBIDDEN_TRAILERS = frozenset(
    (
        b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-length", b"content-range",
        b"content-type", b"cookie", b"expect", b"forwarded", b"host", b"keep-alive", b"max-forwards",
        b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"set-cookie", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"www-authenticate", b"x-request-id",
    )
)  # fmt: skip
_FORBIDDEN_PREFIXES = (b"x-forwarded-", b"x-envoy-", b"x-tulle-")


class ChunkedBody:
    """One chunked body on its way through.

    ``done`` turns true with the last byte of the trailer section. ``payload`` counts the body's bytes without framing.
    With ``decode`` the framing is left out of what ``feed`` returns, and trailers are in ``trailers``. ``limit``:
    bytes of a chunk's size line, extensions and CRLF included, and of the trailer section: what a head may have.
    """

    __slots__ = ("_decode", "_left", "_limit", "_line", "_state", "_trailers", "done", "payload")

    def __init__(self, *, decode: bool = False, limit: int = MAX_LINE) -> None:
        self.done = False
        self.payload = 0
        self._decode = decode
        self._limit = limit
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._trailers: list[bytes] = []

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Take ``data`` from ``start`` on.

        Returns what is to be passed on and where in ``data`` the body ended (``len(data)`` unless ``done``). Raises
        ``ProtocolError``.
        """
        out: list[bytes] = []
        keep_from = pos = start
        size = len(data)
        while pos < size:
            if self._state == _DATA:
                take = min(self._left, size - pos)
                if self._decode:
                    out.append(data[pos : pos + take])
                self._left -= take
                self.payload += take
                pos += take
                if not self._left:
                    self._state = _END_OF_DATA
                continue
            end = data.find(b"\n", pos) + 1
            if not end:
                self._hold(data[pos:])
                if not self._decode:
                    out.append(data[keep_from:pos])
                keep_from = pos = size
                break
            line = data[pos:end]
            held = self._line
            if held:
                self._line = b""
                line = held + line
            canonical = self._take_line(line)
            if held or canonical != line:
                if not self._decode:
                    out += (data[keep_from:pos], canonical)
                keep_from = end
            pos = end
            if self._state == _DONE:
                self.done = True
                break
        if self._decode:
            return b"".join(out), pos
        if not out:
            return (data if keep_from == 0 and pos == size else data[keep_from:pos]), pos
        out.append(data[keep_from:pos])
        return b"".join(out), pos

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The trailer fields that may be passed on, names in lower case."""
        fields = (line[:-2].partition(b":") for line in self._trailers if line != b"\r\n")
        return [(name.lower(), value.strip(b" \t")) for name, _, value in fields]

    def _hold(self, rest: bytes) -> None:
        self._line += rest
        if self._state == _END_OF_DATA:
            if self._line != b"\r":
                raise ProtocolError("a chunk does not end in CRLF")
        elif self._state == _SIZE and _match_size_start(self._line[:18]) is None:
            raise ProtocolError("bad chunk size line")
        if len(self._line) > self._limit:
            raise self._too_long()

    def _take_line(self, line: bytes) -> bytes:
        """Judge one line; give what is to be passed on for it."""
        state = self._state
        if state == _SIZE:
            if len(line) > self._limit:
                raise self._too_long()
            match = _match_size(line)
            if match is None:
                raise ProtocolError("bad chunk size line")
            digits = match[1]
            self._left = int(digits, 16)
            if self._left >= 1 << 62:
                raise ProtocolError("chunk too large")
            self._state = _DATA if self._left else _TRAILERS
            return digits + b"\r\n"
        if state == _END_OF_DATA:
            if line != b"\r\n":
                raise ProtocolError("a chunk does not end in CRLF")
            self._state = _SIZE
            return line
        return self._take_trailer(line)

    def _take_trailer(self, line: bytes) -> bytes:
        if line == b"\r\n":
            self._state = _DONE
            self._trailers.append(line)
            return b"".join(self._trailers)
        match = _match_trailer(line)
        if match is None:
            bad = "http1.invalid_characters" if _find_control(line) else "http1.codec_error"
            raise ProtocolError("bad trailer field", details=bad)
        # What is left out counts too, so that the section is bounded on the wire.
        self._left += len(line)
        if self._left > self._limit:
            raise self._too_long()
        if may_trail(match[1].lower()):
            self._trailers.append(line)
        return b""

    def _too_long(self) -> ProtocolError:
        if self._state == _TRAILERS:
            return ProtocolError(
                f"the trailer section is larger than {self._limit} bytes",
                details="http1.headers_too_large",
                status=431,
            )
        return ProtocolError(f"a chunk's size line is larger than {self._limit} bytes")


def may_trail(name: bytes) -> bool:
    """Whether a trailer field of that name (lower case) is passed on (RFC 9110 section 6.5.1)."""
    return name not in _FORBIDDEN_TRAILERS and not name.startswith(_FORBIDDEN_PREFIXES)


def chunk(data: bytes) -> bytes:
    """``data`` (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
