"""Bodies on their way from one version of HTTP to another: chunked framing is put on, or taken off.

Where both sides speak HTTP/1.1 a body keeps the framing that it came with, and nothing here is used.
"""

from __future__ import annotations

from typing import Protocol

from proxy.http1.chunked import LAST_CHUNK, ChunkedBody, chunk
from proxy.upstream.stream import Fields, UpstreamStream


class Reframe(Protocol):
    """Sends a request's body on to a stream of another version of HTTP."""

    def send(self, stream: UpstreamStream, data: bytes, done: bool, /) -> None: ...
    def send_trailers(self, stream: UpstreamStream, fields: Fields, /) -> None: ...


class Chunk:
    """From HTTP/2, without a length, to HTTP/1.1."""

    __slots__ = ()

    def send(self, stream: UpstreamStream, data: bytes, done: bool) -> None:
        framed = chunk(data) if data else b""
        stream.send(framed + LAST_CHUNK if done else framed, done)

    def send_trailers(self, stream: UpstreamStream, fields: Fields) -> None:
        stream.send(last_chunk(fields), True)


class Dechunk:
    """From chunked HTTP/1.1 to HTTP/2."""

    __slots__ = ("_body",)

    def __init__(self, limit: int) -> None:
        self._body = ChunkedBody(decode=True, limit=limit)

    def send(self, stream: UpstreamStream, data: bytes, done: bool) -> None:
        body = self._body
        payload, _ = body.feed(data)
        if body.done and body.trailers:
            if payload:
                stream.send(payload, False)
            stream.send_trailers(body.trailers)
        elif payload or done:
            stream.send(payload, done)

    def send_trailers(self, stream: UpstreamStream, fields: Fields) -> None:
        raise TypeError("the trailers of HTTP/1.1 are in its framing")


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body with ``trailers``."""
    return b"0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % field for field in trailers)
