"""Heads of HTTP/2: lists of fields to ``Head``, and any ``Head`` to lists of fields or to a block of HTTP/1.1.

Who reads a ``Head`` (routes, policy, logs) does not see which version it came in: extended CONNECT (RFC 8441) looks
like the ``upgrade`` of HTTP/1.1, ``:authority`` like ``host``, and crumbs of ``cookie`` are joined. The codec has
checked names, values and pseudo-fields before; nothing is decided here about routes or policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from proxy.http1 import head as http1
from proxy.http1.errors import ProtocolError
from proxy.http1.fields import (
    COMMON_METHODS,
    EXPECT,
    HAS_HOP_BY_HOP,
    HAS_HOST,
    HAS_INTERNAL,
    INTERNAL,
    INTERNAL_PREFIXES,
    KNOWN,
    PLAIN,
    UPGRADE,
)
from proxy.http1.pure import is_host, is_plain_target, separator

Field = tuple[bytes, bytes]

_COLON: Final = ord(":")
_COMMON: Final = frozenset(COMMON_METHODS)
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host")
)
"""Fields that no message of HTTP/2 has (RFC 9113 section 8.2.2), and ``host``, whose place ``:authority`` takes."""
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_KNOWN: Final = KNOWN.keys()
_ENVOY, _TULLE = INTERNAL_PREFIXES


class Head(http1.Head):
    """The head of a message that came by HTTP/2. ``fields``: all but pseudo-fields and ``host``, as received.

    ``scheme`` is ``:scheme``. ``raw`` is, of a response, the status line that HTTP/1.1 would have, else empty.
    """

    __slots__ = ("fields", "scheme")

    fields: Sequence[Field]
    scheme: bytes

    def values(self, name: bytes, /) -> tuple[bytes, ...]:
        joined = self.get(name)
        if joined is None:
            return ()
        if not self.repeated:
            return (joined,)
        lines = tuple(value for field, value in self.fields if field == name)
        # Otherwise it is not what was received: the proxy says something else for it.
        return lines if separator(name).join(lines) == joined else (joined,)

    def emit(
        self, first: bytes | None, strip: int, extra: bytes, also: frozenset[bytes] = frozenset(), /
    ) -> bytes:
        if first is None:
            first = self.raw or b"%b %b HTTP/1.1\r\n" % (self.method, self.target)
        lines = [first]
        if self.host is not None and not strip & HAS_HOST:
            lines.append(b"host: %b\r\n" % self.host)
        cookies = []
        for name, value in self._left(strip, also):
            if name == b"cookie":
                cookies.append(value)
            else:
                lines.append(b"%b: %b\r\n" % (name, value))
        if cookies:
            # RFC 9113 section 8.2.3.
            lines.append(b"cookie: %b\r\n" % b"; ".join(cookies))
        lines.append(extra)
        lines.append(b"\r\n")
        return b"".join(lines)

    def _left(self, strip: int, also: frozenset[bytes]) -> Iterable[Field]:
        """The fields but those to leave out."""
        fields = self.fields
        if self.present & strip:
            gone = names_of(strip)
            if strip & HAS_INTERNAL:
                fields = [field for field in fields if field[0] not in gone and not _is_internal(field[0])]
            else:
                fields = [field for field in fields if field[0] not in gone]
        if also:
            fields = [field for field in fields if field[0] not in also]
        return fields


def read_request(received: Sequence[Field]) -> Head:
    """The head of a request. Raises ``ProtocolError`` for what the codec lets pass and nobody may see."""
    head = Head()
    head.method = head.target = head.scheme = head.raw = b""
    authority = protocol = None
    count = 0
    for name, value in received:
        if name[0] != _COLON:
            break
        count += 1
        if name == b":path":
            head.target = value
        elif name == b":method":
            head.method = value
        elif name == b":authority":
            authority = value
        elif name == b":scheme":
            head.scheme = value
        elif name == b":protocol":
            protocol = value
    head.status = 0
    _read_fields(head, received[count:])
    names = head.names
    if b"host" in names:
        head.fields = [field for field in head.fields if field[0] != b"host"]
    if authority is None:
        authority = names.get(b"host")
    head.host = authority
    if authority is not None:
        names[b"host"] = authority
        head.present |= HAS_HOST
    if protocol is not None:
        # As in Envoy: policy and routes see what HTTP/1.1 would say.
        head.method = b"GET"
        names[b"upgrade"] = protocol
        names[b"connection"] = b"upgrade"
        head.present |= HAS_HOP_BY_HOP
        head.flags |= UPGRADE
    elif head.method == b"CONNECT":
        head.target = authority or b""
    if (
        authority is not None
        and head.method in _COMMON
        and is_plain_target(head.target)
        and is_host(authority)
    ):
        head.flags |= PLAIN
    return head


def read_response(received: Sequence[Field]) -> Head:
    """The head of a response, final or not. Raises ``ProtocolError``."""
    head = Head()
    head.method = head.target = head.scheme = b""
    head.host = None
    status = received[0][1]
    if received[0][0] != b":status" or len(status) != 3 or not status.isdigit():
        raise ProtocolError("a response without a status of three digits")
    head.status = int(status)
    head.raw = b"HTTP/1.1 %b %b\r\n" % (status, _REASONS.get(head.status, b""))
    _read_fields(head, received[1:])
    return head


def _read_fields(head: Head, fields: Sequence[Field]) -> None:
    head.added = None
    head.minor = 1
    head.end = 0
    head.fields_at = len(head.raw)
    head.fields = fields
    head.names = names = dict(fields)
    head.repeated = len(names) != len(fields)
    if head.repeated:
        _join(names, fields)
    flags = present = 0
    for name in names.keys() & _KNOWN:
        present |= KNOWN[name]
    every = b"\n".join(names)
    # Nearly no request has one: look at all names at once, and at each only if that finds something.
    if (_ENVOY in every or _TULLE in every) and any(map(_is_internal, names)):
        present |= HAS_INTERNAL
        flags = INTERNAL
    if b"expect" in names:
        flags |= EXPECT
    head.present = present
    length = names.get(b"content-length")
    if length is None:
        head.length = -1
    elif length.isdigit() and len(length) <= 18:
        head.length = int(length)
    else:
        raise ProtocolError("content-length is not a number of at most 18 digits")
    head.flags = flags


def _join(names: dict[bytes, bytes], fields: Iterable[Field]) -> None:
    names.clear()
    for name, value in fields:
        before = names.get(name)
        if before is None:
            names[name] = value
        elif name == b"content-length" or name == b"host":
            raise ProtocolError(f"more than one {name.decode()} field")
        else:
            names[name] = before + separator(name) + value


def _is_internal(name: bytes) -> bool:
    return name.startswith(INTERNAL_PREFIXES) and name not in KNOWN


@lru_cache(maxsize=256)
def names_of(bits: int) -> frozenset[bytes]:
    """The names of fields of ``HAS_…`` bits, but those that have only a prefix."""
    return frozenset(name for name, bit in KNOWN.items() if bit & bits)


def request_fields(
    head: http1.Head,
    *,
    scheme: bytes,
    target: bytes,
    authority: bytes,
    strip: int,
    extra: bytes,
    also: frozenset[bytes],
    protocol: bytes | None = None,
) -> list[Field]:
    """A request's fields for HTTP/2. ``protocol``: of extended CONNECT (RFC 8441)."""
    method = head.method
    if protocol is not None:
        made = [
            (b":method", b"CONNECT"),
            (b":protocol", protocol),
            (b":scheme", scheme),
            (b":path", target),
            (b":authority", authority),
        ]
    elif method == b"CONNECT":
        made = [(b":method", method), (b":authority", authority)]
    else:
        made = [(b":method", method), (b":scheme", scheme), (b":path", target), (b":authority", authority)]
    made += left(head, strip | HAS_HOST, also)
    if extra:
        made += lines(extra)
    return made


def response_fields(
    head: http1.Head, status: int, *, strip: int, extra: bytes, also: frozenset[bytes]
) -> list[Field]:
    """A response's fields for HTTP/2."""
    made: list[Field] = [(b":status", b"%d" % status)]
    made += left(head, strip, also)
    if extra:
        made += lines(extra)
    return made


def left(head: http1.Head, strip: int, also: frozenset[bytes]) -> Iterable[Field]:
    """The fields of a head of either version that stay, as HTTP/2 has them."""
    if isinstance(head, Head):
        return head._left(strip, also)
    block = head.emit(b"", strip, b"", also)
    return [field for field in lines(block[:-2]) if field[0] not in _HOP_BY_HOP]


def lines(block: bytes) -> list[Field]:
    """The fields of lines that end in CRLF."""
    made = []
    for line in block.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            made.append((name.lower(), value.strip(b" \t")))
    return made
