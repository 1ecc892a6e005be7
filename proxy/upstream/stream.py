"""What an exchange and its upstream connection are to each other, whatever version of HTTP the connection speaks.

Protocols only. One HTTP/1.1 connection is its only stream; an HTTP/2 connection makes one for each exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proxy.http1.head import Head

Fields = Sequence[tuple[bytes, bytes]]
"""Names (lower case) and values, in order: trailers, or a head of HTTP/2."""


class Receiver(Protocol):
    """The exchange, as its upstream sees it.

    ``request_done``: all of the request was handed to ``send``. ``is_head``: the response has no body. ``upgrade``: the
    request asked for a tunnel: 101 is an answer, or (``connect``) any 2xx. ``dechunk``: the body is wanted without
    framing.
    """

    request_done: bool
    is_head: bool
    upgrade: bool

    @property
    def connect(self) -> bool: ...

    dechunk: bool

    def response_started(self, head: Head, body: bytes, payload: int, done: bool, /) -> None: ...
    def response_body(self, data: bytes, payload: int, done: bool, /) -> None: ...
    def response_trailers(self, fields: Fields, /) -> None: ...
    def informational(self, head: Head, /) -> None: ...
    def upstream_done(self) -> None:
        """The stream is over, and another request may get its place now. What came on it is said afterwards."""

    def upstream_reset(self, reason: str, message: str, /) -> None: ...
    def upstream_paused(self) -> None: ...
    def upstream_resumed(self) -> None: ...


class UpstreamStream(Protocol):
    """What carries one exchange. ``http2``: heads are fields, and bodies have no framing of their own."""

    @property
    def http2(self) -> bool: ...

    def send(self, data: bytes, done: bool, /) -> None:
        """Send more of the request; ``done``: this is the end of it."""

    def send_trailers(self, fields: Fields, /) -> None:
        """End the request with trailers."""

    def detach(self) -> None:
        """The exchange is over before its response."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def finish_tunnel(self) -> None: ...
