"""What the ``h2`` engine keeps beside h2's own state: streams, receive windows, and HPACK behind a judge.

It sends nothing and gives no events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple

from proxy.http2.events import Header, Headers

INFORMATIONAL: Final = (HeaderTuple(b":status", b"100"),)
"""What h2 is shown in the place of any informational response's head; of other heads it is shown nothing."""


class Stream:
    """One stream, from its request on until ``StreamClosed``."""

    __slots__ = (
        "body_open", "cancelled", "chunks", "ended", "expected", "final", "local_closed", "method", "offset", "own",
        "queued", "received", "refused", "remote_closed", "request", "responded", "stream_id", "trailers", "window",
    )  # fmt: skip

    def __init__(self, stream_id: int, *, own: bool, window: int) -> None:
        self.stream_id = stream_id
        self.own = own
        """Whether we opened it."""
        self.window = Window(window)
        self.request: tuple[list[Header], bool] | None = None
        """Head and ``end_stream`` of a request that waits to be sent."""
        self.cancelled: int | None = None
        """The code with which a waiting request was reset."""
        self.method = b""
        self.final = not own
        """Whether the head has come that trailers may follow: a request's, or a final response's."""
        self.expected: int | None = None
        """content-length."""
        self.received = 0
        self.remote_closed = False
        self.refused = False
        """Whether RST_STREAM waits to be sent for what the peer did; whatever it sends meanwhile is dropped."""
        self.responded = False
        self.local_closed = False
        self.body_open = False
        self.chunks: deque[bytes] = deque()
        self.offset = 0
        self.queued = 0
        self.ended = False
        self.trailers: list[Header] | None = None

    def take(self, amount: int) -> bytes:
        """The next ``amount`` bytes of the queued body."""
        parts: list[bytes] = []
        left = amount
        while left:
            chunk = self.chunks[0]
            part = chunk[self.offset : self.offset + left]
            parts.append(part)
            left -= len(part)
            self.offset += len(part)
            if self.offset == len(chunk):
                self.chunks.popleft()
                self.offset = 0
        self.queued -= amount
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Window:
    """A receive window: when what was used is given back to the peer (RFC 9113 section 6.9)."""

    __slots__ = ("size", "used", "withheld")

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self.withheld = 0
        """Bytes that are not given back, since the window was made smaller."""

    def release(self, amount: int) -> int:
        """``amount`` bytes were used: the increment to send now, or 0. Nothing is sent below half the window."""
        kept = min(amount, self.withheld)
        self.withheld -= kept
        self.used += amount - kept
        if not self.used or self.used * 2 < self.size:
            return 0
        increment, self.used = self.used, 0
        return increment

    def resize(self, size: int) -> int:
        """Make it ``size`` bytes: the increment to send now, or 0."""
        grown = size - self.size
        self.size = size
        if grown <= 0:
            self.withheld -= grown
            return 0
        kept = min(grown, self.withheld)
        self.withheld -= kept
        return grown - kept


class JudgedDecoder(Decoder):
    """HPACK decoding for h2, which never sees the fields: ``judge`` does, and says whether to show h2 an
    informational response. So malformed messages are errors of their stream, as RFC 9113 section 8.1.1 has it, where
    h2 would end the connection; and content-length is checked in one place."""

    def __init__(self, judge: Callable[[Headers], bool], max_header_list_size: int) -> None:
        super().__init__(max_header_list_size)
        self._judge = judge

    def decode(self, data: bytes, raw: bool = False) -> Sequence[HeaderTuple]:
        headers = super().decode(data, raw=True)
        return INFORMATIONAL if self._judge(tuple(headers)) else ()


class BoundedEncoder(Encoder):
    """HPACK encoding with a table of at most ``limit`` bytes, however much the peer allows."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        if limit < self.header_table_size:
            self.header_table_size = limit

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        self.header_table.maxsize = min(value, self._limit)
        if self.header_table.resized:
            self.table_size_changes.append(self.header_table.maxsize)


def for_hpack(headers: Iterable[Header]) -> list[Header]:
    """``headers`` with never-indexed fields as hpack marks them."""
    return [
        NeverIndexedHeaderTuple(*header)
        if type(header) is not tuple and type(header).__name__.startswith("NeverIndexedHeader")
        else header
        for header in headers
    ]
