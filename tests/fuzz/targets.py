"""What must hold for any bytes, for the parsers of heads and chunked bodies (``http2`` is beside this).

- Nothing is raised but ``ProtocolError``.
- The Cython scanner and its Python twin read the same, or both refuse.
- However the bytes are cut, the reading is the same; what is refused early is refused whole.
- What is forwarded is read again as what it was read as.

A target raises ``AssertionError`` where that does not hold. The first byte says how the rest is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from proxy.http1 import head as accelerated
from proxy.http1 import pure
from proxy.http1.chunked import ChunkedBody
from proxy.http1.errors import ProtocolError
from tests.fuzz.http2 import http2

MAX_HEAD: Final = 4096
MAX_FIELDS: Final = 20

Scan: TypeAlias = Callable[..., pure.Head | None]
Reading: TypeAlias = tuple[Any, ...] | None
REFUSED: Final = ("refused",)


def request(data: bytes) -> None:
    """A request head."""
    _head(data, pure.scan_request, accelerated.scan_request)


def response(data: bytes) -> None:
    """A response head."""
    _head(data, pure.scan_response, accelerated.scan_response)


def chunked(data: bytes) -> None:
    """A chunked body."""
    cut, data = _cut(data)
    for decode in (False, True):
        whole = _feed([data], decode)
        pieces = _feed(list(_pieces(data, cut)), decode)
        assert whole == pieces, (whole, pieces)
        if whole is not REFUSED and whole[-1] and not decode:
            passed_on: bytes = whole[0]
            again = _feed([passed_on], decode)
            assert again == (passed_on, whole[1], len(passed_on), True), (whole, again)
            plain = _feed([data], True)
            assert _feed([passed_on], True)[0] == plain[0] and len(plain[0]) == whole[1]


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "request": request,
    "response": response,
    "chunked": chunked,
    "http2": http2,
}


def _cut(data: bytes) -> tuple[int, bytes]:
    return (data[0] % 40 + 1, data[1:]) if data else (1, data)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def _head(data: bytes, scan: Scan, twin: Scan) -> None:
    cut, data = _cut(data)
    whole = _read(scan, data)
    assert _read(twin, data) == whole, (whole, _read(twin, data))
    for each in (scan, twin):
        pieces = _read_in_pieces(each, data, cut)
        assert pieces == whole, (pieces, whole)
    if whole is None or whole is REFUSED:
        return
    for each in (scan, twin):
        head = each(data, max_bytes=MAX_HEAD, max_fields=MAX_FIELDS)
        assert head is not None
        forwarded = head.emit(None, 0, b"")
        again = _read(scan, forwarded)
        # Everything but where it ends: an empty line that came first is not passed on.
        assert again is not None and again[:-1] == whole[:-1], (whole, again)
        assert again[-1] == len(forwarded)


def _read(scan: Scan, data: bytes, seen: int = 0) -> Reading:
    try:
        head = scan(data, 0, seen=seen, max_bytes=MAX_HEAD, max_fields=MAX_FIELDS)
    except ProtocolError:
        return REFUSED
    if head is None:
        return None
    return (
        head.method, head.target, head.status, head.minor, head.flags, head.length, head.host,
        sorted((name, head.get(name)) for name in head.names), head.end,
    )  # fmt: skip


def _read_in_pieces(scan: Scan, data: bytes, cut: int) -> Reading:
    """As a connection does it: all that came so far, and how much of it was looked at before."""
    seen = 0
    while seen < len(data):
        size = min(seen + cut, len(data))
        reading = _read(scan, data[:size], seen)
        if reading is not None:
            return reading
        seen = size
    return _read(scan, data, 0) if not data else None


def _feed(pieces: list[bytes], decode: bool) -> tuple[Any, ...]:
    """What is passed on, the payload, how many bytes were taken, whether the body is complete; or ``REFUSED``."""
    body = ChunkedBody(decode=decode, limit=MAX_HEAD)
    out = b""
    taken = 0
    for piece in pieces:
        try:
            more, end = body.feed(piece)
        except ProtocolError:
            return REFUSED
        out += more
        taken += end
        if body.done:
            break
    return out, body.payload, taken, body.done
