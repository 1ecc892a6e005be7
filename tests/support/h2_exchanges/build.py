"""Short names for what the tables of HTTP/2 cases are made of."""

from __future__ import annotations

from tests.support.h2_frames import data, headers
from tests.support.h2_script import Script, Until

Field = tuple[bytes, bytes]


def fields(
    *more: Field,
    method: bytes | None = b"GET",
    scheme: bytes | None = b"http",
    path: bytes | None = b"/",
    authority: bytes | None = b"h",
) -> tuple[Field, ...]:
    """The fields of a request; without those that are None."""
    pseudo = ((b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path))
    return (*((name, value) for name, value in pseudo if value is not None), *more)


def get(*more: Field, stream: int = 1, end: bool = True, **pseudo: bytes | None) -> bytes:
    """The HEADERS of a request."""
    return headers(stream, fields(*more, **pseudo), end=end)


def post(*more: Field, stream: int = 1, body: bytes | None = None, **pseudo: bytes | None) -> bytes:
    """A POST; its body goes on unless it is given."""
    head = headers(stream, fields(*more, **{"method": b"POST", **pseudo}), end=False)
    return head if body is None else head + data(stream, body, end=True)


def asks(*sent: bytes, stream: int = 1) -> Script:
    """Send and wait for the stream's end."""
    return (*sent, Until("end", stream))


def head(stream: int, status: bytes, *more: Field, end: bool = False) -> bytes:
    """The HEADERS of a response."""
    return headers(stream, ((b":status", status), *more), end=end)


def trailers(stream: int, *more: Field) -> bytes:
    return headers(stream, more)


def ok(stream: int = 1, *more: Field, body: bytes = b"ok") -> bytes:
    """A whole response."""
    return head(stream, b"200", *more) + data(stream, body, end=True)


def plain(*lines: bytes, body: bytes = b"", status: bytes = b"200 OK") -> bytes:
    """An HTTP/1.1 response of exactly these lines."""
    return b"\r\n".join((b"HTTP/1.1 " + status, *lines, b"", b"")) + body
