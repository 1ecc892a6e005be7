"""Heads of HTTP/2: lists of fields to ``Head``, and any ``Head`` to lists of fields or to a block of HTTP/1.1.

Who reads a ``Head`` (routes, policy, logs) does not see which version it came in: extended CONNECT (RFC 8441) looks
like the ``upgrade`` of HTTP/1.1, ``:authority`` like ``host``, and crumbs of ``cookie`` are joined. The codec has
checked names, values and pseudo-fields before; nothing is decided here about routes or policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from operator import itemgetter
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


class Head(http1.Head):
    """The head of a message that came by HTTP/2. ``fields``: all but pseudo-fields, as received.

    ``scheme`` is ``:scheme``; ``raw`` is empty.
    """

    __slots__ = ("fields", "scheme", "shape")

    fields: Sequence[Field]
    scheme: bytes
    shape: _Shape

    @property
    def size(self) -> int:
        """Bytes of all names and values, decoded, pseudo-fields included (Envoy's ``HeaderMap::byteSize``)."""
        # One join is cheaper than as many calls of ``len``.
        named = b"".join(self.names.values())
        return self.shape.size + len(named) + len(self.method) + len(self.target) + len(self.scheme)

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
            if self.status:
                first = b"HTTP/1.1 %d %b\r\n" % (self.status, _REASONS.get(self.status, b""))
            else:
                first = b"%b %b HTTP/1.1\r\n" % (self.method, self.target)
        lines = [first]
        if self.host is not None and not strip & HAS_HOST:
            lines.append(b"host: %b\r\n" % self.host)
        cookies = []
        for name, value in self.left(strip, also):
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

    def left(self, strip: int, also: frozenset[bytes]) -> Sequence[Field]:
        """The fields but those to leave out."""
        shape = self.shape
        if shape.present & strip or also or shape.host:
            return shape.keep(strip | HAS_HOST, also)(self.fields)
        return self.fields


class _Shape:
    """What follows from the names of a head alone; clients and servers send few of them.

    ``pseudo``: how many pseudo-fields it begins with; ``size``: bytes of the names; ``present`` and ``flags`` as
    ``Head`` has them; ``host``: it has that field. ``kept`` remembers what to pass on, by what to leave out.
    """

    __slots__ = ("flags", "host", "kept", "names", "present", "pseudo", "size")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = names
        self.size = sum(map(len, names))
        self.pseudo = sum(name[:1] == b":" for name in names)
        self.present = 0
        self.flags = 0
        for name in names:
            if _is_internal(name):
                self.present |= HAS_INTERNAL
                self.flags |= INTERNAL
            else:
                self.present |= KNOWN.get(name, 0)
        if b"expect" in names:
            self.flags |= EXPECT
        self.host = b"host" in names
        self.kept: dict[tuple[int, frozenset[bytes]], Callable[[Sequence[Field]], Sequence[Field]]] = {}

    def keep(self, strip: int, also: frozenset[bytes]) -> Callable[[Sequence[Field]], Sequence[Field]]:
        """What picks, from fields with these names, those that are not left out."""
        found = self.kept.get((strip, also))
        if found is None:
            if len(self.kept) >= _MAX_KEPT:
                self.kept.clear()
            gone = names_of(strip) | also
            internal = strip & HAS_INTERNAL
            left = [
                at
                for at, name in enumerate(self.names[self.pseudo :])
                if name not in gone and not (internal and _is_internal(name))
            ]
            found = self.kept[strip, also] = _picker(left)
        return found


_MAX_SHAPES: Final = 1000
_MAX_KEPT: Final = 16
_MAX_SHAPE_FIELDS: Final = 64
"""Bounds of what is remembered, as peers choose their names."""
_shapes: dict[tuple[bytes, ...], _Shape] = {}


def _shape(names: tuple[bytes, ...]) -> _Shape:
    found = _shapes.get(names)
    if found is None:
        found = _Shape(names)
        if len(names) <= _MAX_SHAPE_FIELDS:
            if len(_shapes) >= _MAX_SHAPES:
                _shapes.clear()
            _shapes[names] = found
    return found


def _picker(places: list[int]) -> Callable[[Sequence[Field]], Sequence[Field]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda fields: [fields[at] for at in places]


def read_request(received: Sequence[Field]) -> Head:
    """The head of a request. Raises ``ProtocolError`` for what the codec lets pass and nobody may see."""
    head = _begun(received)
    names = head.names
    shape = head.shape
    head.status = 0
    head.method = method = names.pop(b":method", b"")
    head.target = target = names.pop(b":path", b"")
    head.scheme = names.pop(b":scheme", b"")
    authority = names.pop(b":authority", None)
    head.fields = received[shape.pseudo :]
    head.present = shape.present | HAS_HOST
    head.flags = flags = shape.flags
    if authority is None:
        authority = names.get(b"host")
        if authority is None:
            head.present &= ~HAS_HOST
    if authority is not None:
        names[b"host"] = authority
    head.host = authority
    if method == b"CONNECT":
        protocol = names.pop(b":protocol", None)
        if protocol is None:
            head.target = authority or b""
            return head
        # As in Envoy: policy and routes see what HTTP/1.1 would say.
        head.method = method = b"GET"
        names[b"upgrade"] = protocol
        names[b"connection"] = b"upgrade"
        head.present |= HAS_HOP_BY_HOP
        head.flags = flags = flags | UPGRADE
    if authority is not None and method in _COMMON and is_plain_target(target) and is_host(authority):
        head.flags = flags | PLAIN
    return head


def read_response(received: Sequence[Field]) -> Head:
    """The head of a response, final or not. Raises ``ProtocolError``."""
    head = _begun(received)
    names = head.names
    shape = head.shape
    head.method = head.target = head.scheme = b""
    head.host = None
    status = names.pop(b":status", b"")
    if len(status) != 3 or not status.isdigit():
        raise ProtocolError("a response without a status of three digits")
    head.status = int(status)
    head.fields = received[1:]
    head.present = shape.present
    head.flags = shape.flags
    return head


def _begun(received: Sequence[Field]) -> Head:
    """What heads of both kinds have. ``names`` has the pseudo-fields still."""
    head = Head()
    head.names = names = dict(received)
    if len(names) == len(received):
        head.repeated = False
        head.shape = _shape(tuple(names))
    else:
        head.repeated = True
        head.shape = _Shape(tuple([name for name, _ in received]))
        _join(names, received)
    head.raw = b""
    head.added = None
    head.minor = 1
    head.end = head.fields_at = 0
    length = names.get(b"content-length")
    if length is None:
        head.length = -1
    elif length.isdigit() and len(length) <= 18:
        head.length = int(length)
    else:
        raise ProtocolError("content-length is not a number of at most 18 digits")
    return head


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
    made += left(head, strip, also)
    if head.repeated and isinstance(head, Head) and b"cookie" in head.names:
        made = _whole_cookie(made)
    if extra:
        made += own_lines(extra)
    return made


def _whole_cookie(fields: list[Field]) -> list[Field]:
    """``fields`` with the crumbs of ``cookie`` joined (RFC 9113 section 8.2.3)."""
    crumbs = [value for name, value in fields if name == b"cookie"]
    if len(crumbs) < 2:
        return fields
    return [*(field for field in fields if field[0] != b"cookie"), (b"cookie", b"; ".join(crumbs))]


def response_fields(
    head: http1.Head, status: int, *, strip: int, extra: bytes, also: frozenset[bytes]
) -> list[Field]:
    """A response's fields for HTTP/2."""
    made: list[Field] = [(b":status", b"%d" % status)]
    made += left(head, strip, also)
    if extra:
        made += own_lines(extra)
    return made


def left(head: http1.Head, strip: int, also: frozenset[bytes]) -> Sequence[Field]:
    """The fields of a head of either version that stay, as HTTP/2 has them."""
    if isinstance(head, Head):
        return head.left(strip, also)
    block = head.emit(b"", strip | HAS_HOST, b"", also)
    return [field for field in lines(block[:-2]) if field[0] not in _HOP_BY_HOP]


_MAX_BLOCKS: Final = 1000
_MAX_BLOCK_SIZE: Final = 500
_blocks: dict[bytes, list[Field]] = {}
_ID: Final = b"x-request-id: "


def lines(block: bytes) -> list[Field]:
    """The fields of lines that end in CRLF."""
    made = []
    for line in block[:-2].split(b"\r\n") if block else ():
        name, _, value = line.partition(b":")
        made.append((name.lower(), value.strip(b" \t")))
    return made


def own_lines(block: bytes) -> list[Field]:
    """The same for the lines that the proxy adds. Many messages have the same ones, so they are remembered; but the
    ID of a request, with which they begin if it was made here, is no other's."""
    if not block.startswith(_ID):
        return _remembered(block)
    end = block.index(b"\r\n")
    return [(b"x-request-id", block[len(_ID) : end]), *_remembered(block[end + 2 :])]


def _remembered(block: bytes) -> list[Field]:
    found = _blocks.get(block)
    if found is None:
        found = lines(block)
        if len(block) <= _MAX_BLOCK_SIZE:
            if len(_blocks) >= _MAX_BLOCKS:
                _blocks.clear()
            _blocks[block] = found
    return found
