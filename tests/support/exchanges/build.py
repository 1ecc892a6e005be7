"""Short names for what the tables of exchanges are made of."""

from __future__ import annotations

from tests.support.raw_exchange import Answer

GET = b"GET / HTTP/1.1"
POST = b"POST / HTTP/1.1"


def message(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """A head of exactly these lines, and ``body``."""
    return b"\r\n".join((line, *fields, b"", b"")) + body


def get(*fields: bytes, target: bytes = b"/") -> bytes:
    """A GET with a host and ``fields``."""
    return message(b"GET " + target + b" HTTP/1.1", b"host: h", *fields)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """A POST with a host and ``fields``; the framing is among these."""
    return message(POST, b"host: h", *fields, body=body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A POST whose body has chunked framing."""
    return post(b"transfer-encoding: chunked", *fields, body=body)


def ok(*fields: bytes, body: bytes = b"", line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response of exactly these lines, and ``body``."""
    return message(line, *fields, body=body)


def says(data: bytes, then: str = "keep", at: str = "request") -> tuple[Answer, ...]:
    """One answer of the backend."""
    return (Answer(data, then, at),)  # type: ignore[arg-type]


def short(data: bytes) -> str:
    """``data`` in the name of a case."""
    return repr(data) if len(data) < 60 else f"{data[:40]!r} and so on, {len(data)} bytes"
