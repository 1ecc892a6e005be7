"""The judge of inbound frames: floods and late frames are seen in the frames' heads, before the codec spends anything.

It walks the 9 bytes before each payload and looks into no payload but for the length of padding, the stream that
PRIORITY names and the size of a grant. It knows nothing of the engine, answers nothing and leaves the protocol to the
codec but for what codecs let pass: what is no frame at all is the codec's to refuse. Whoever feeds it ends the
connection when it says so.

The limits and the names are Envoy's. Envoy ends the connection without GOAWAY and counts ``http2.<name>``:

- ``inbound_empty_frames_flood``: HEADERS, CONTINUATION or DATA without payload or END_STREAM, one after another;
- ``inbound_priority_frames_flood``: PRIORITY, per stream opened;
- ``inbound_window_update_frames_flood``: WINDOW_UPDATE, per stream opened and DATA frame sent;
- ``header_overflow``: a header block above ``max_header_block_size``, or cut into more CONTINUATION frames than any
  sender needs. (Envoy leaves that to its codec; the name is that of a header list too large.)

What a client must not send (RFC 9113), and nghttp2 ignores:

- ``stream_closed``: DATA or HEADERS on a stream that it has ended or reset (section 5.1). What comes on a stream that
  we have reset may have been under way, and is no breach;
- ``protocol_error``: HEADERS with the number of a stream that was skipped (section 5.1.1), PRIORITY of stream 0
  (section 6.3), PRIORITY of a stream on itself (RFC 7540 section 5.3.1).

``grant`` is no breach: in ``grants`` there is WINDOW_UPDATE of 2**24 or more, which its stream's window may not take.
Of smaller ones the codec judges.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Literal, TypeAlias

from proxy.http2.limits import FloodLimits

Flood: TypeAlias = Literal[
    "inbound_empty_frames_flood",
    "inbound_priority_frames_flood",
    "inbound_window_update_frames_flood",
    "header_overflow",
]
Breach: TypeAlias = Literal["stream_closed", "protocol_error"]
Verdict: TypeAlias = Flood | Breach | Literal["grant"]

PREFACE_SIZE: Final = 24
_CONTINUATIONS: Final = 8
"""What nghttp2 takes for one header block; more only as the block may be larger."""
_SMALL_FRAME: Final = 1024
"""No sender cuts a large block into smaller frames than this."""

_MAX_OPEN: Final = 1024
"""Streams that are known to be open before all so far are forgotten: late frames of those are ignored."""

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 2, 3, 8, 9
_END_STREAM, _PADDED = 0x1, 0x8
_BLOCK: Final = (_HEADERS, _CONTINUATION)
_frame_head = Struct(">IBI").unpack_from


class FrameInspector:
    """Follows the frames of one connection through however its bytes are cut."""

    __slots__ = (
        "_block_frames", "_block_size", "_empty", "_forgotten", "_head", "_left", "_limits", "_max_continuations",
        "_open", "_priorities", "_server", "_window_updates", "data_frames_sent", "grants", "last_stream",
        "opened_streams", "verdict",
    )  # fmt: skip

    def __init__(self, limits: FloodLimits, *, server: bool) -> None:
        self._limits = limits
        self._max_continuations = _CONTINUATIONS + limits.max_header_block_size // _SMALL_FRAME
        self._server = server
        self._left = PREFACE_SIZE if server else 0
        """Bytes to come of the frame (or the preface) that began earlier."""
        self._head = b""
        """The first bytes of a frame that are too few to tell."""
        self._empty = 0
        self._priorities = 0
        self._window_updates = 0
        self._block_size = 0
        self._block_frames = 0
        self._open: set[int] = set()
        """A server's: streams that the client has opened and neither ended nor reset."""
        self._forgotten = 0
        """The highest stream of which it is not known any more."""
        self.last_stream = 0
        """A server's: the highest number of a stream so far."""
        self.opened_streams = 0
        """Streams so far: a server's are counted here, a client adds one for each request that it sends."""
        self.data_frames_sent = 0
        """For the connection to keep up to date."""
        self.grants: list[tuple[int, int, int]] = []
        """A server's: where in what was inspected last a large WINDOW_UPDATE begins (below 0: it began earlier), its
        stream and its increment."""
        self.verdict: Flood | Breach | None = None
        """The limit that was passed or the rule that was broken; nothing is looked at after that."""

    def inspect(self, data: bytes | bytearray | memoryview) -> Verdict | None:
        """Look at what came: what is wrong with it, if anything is."""
        left = self._left
        size = len(data)
        if left >= size:
            self._left = left - size
            return self.verdict
        verdict = self.verdict
        if verdict is not None:
            return verdict
        before = len(self._head)
        if before:
            data = self._head + bytes(data)
            size = len(data)
            self._head = b""
        server = self._server
        found: Verdict | None = None
        at = left
        end = at + 9
        while end <= size:
            # Length and type in one, which is quicker than byte by byte.
            length, flags, number = _frame_head(data, at)
            kind = length & 0xFF
            length >>= 8
            if kind == _DATA:
                if length and not flags & _PADDED:
                    self._empty = 0
                elif length and end == size:
                    # How much of it is padding is yet to come.
                    break
                elif self._is_flood_of_empty(kind, length, flags, data, end):
                    return self.verdict
                if server:
                    number &= 0x7FFFFFFF
                    if number not in self._open:
                        if self._is_late(number):
                            return self.verdict
                    elif flags & _END_STREAM:
                        self._open.discard(number)
            elif kind in _BLOCK:
                if kind == _HEADERS and length and flags & _PADDED and end == size:
                    break
                if length and not flags & _PADDED:
                    self._empty = 0
                elif self._is_flood_of_empty(kind, length, flags, data, end):
                    return self.verdict
                if self._is_header_overflow(kind, length):
                    return self.verdict
                if server and kind == _HEADERS and self._is_late_head(number & 0x7FFFFFFF, flags):
                    return self.verdict
            elif kind == _WINDOW_UPDATE:
                if end + 4 > size:
                    break
                self._window_updates += 1
                if self._window_updates > 5 and self._is_flood_of_window_updates():
                    return self.verdict
                if data[end] and number and server:
                    increment = int.from_bytes(data[end : end + 4], "big") & 0x7FFFFFFF
                    self.grants.append((at - before, number & 0x7FFFFFFF, increment))
                    found = "grant"
            elif kind == _PRIORITY:
                if end + 4 > size:
                    break
                on = int.from_bytes(data[end : end + 4], "big")
                if self._is_bad_priority(number & 0x7FFFFFFF, on & 0x7FFFFFFF):
                    return self.verdict
            elif kind == _RST_STREAM:
                self._open.discard(number & 0x7FFFFFFF)
            at = end + length
            end = at + 9
        if at < size:
            self._head = bytes(data[at:])
            self._left = 0
        else:
            self._left = at - size
        return found

    def _is_flood_of_empty(
        self, kind: int, length: int, flags: int, data: bytes | bytearray | memoryview, end: int
    ) -> bool:
        if length and flags & _PADDED and kind != _CONTINUATION:
            length -= 1 + data[end]
        if length > 0 or (flags & _END_STREAM and kind != _CONTINUATION):
            self._empty = 0
            return False
        self._empty += 1
        if self._empty <= self._limits.max_consecutive_inbound_frames_with_empty_payload:
            return False
        self.verdict = "inbound_empty_frames_flood"
        return True

    def _is_header_overflow(self, kind: int, length: int) -> bool:
        if kind == _HEADERS:
            self._block_size = length
            self._block_frames = 0
        else:
            self._block_size += length
            self._block_frames += 1
        if (
            self._block_size > self._limits.max_header_block_size
            or self._block_frames > self._max_continuations
        ):
            self.verdict = "header_overflow"
            return True
        return False

    def _is_flood_of_window_updates(self) -> bool:
        allowed = self._limits.max_inbound_window_update_frames_per_data_frame_sent * self.data_frames_sent
        if self._window_updates <= 5 + 2 * (self.opened_streams + allowed):
            return False
        self.verdict = "inbound_window_update_frames_flood"
        return True

    def _is_bad_priority(self, number: int, on: int) -> bool:
        self._priorities += 1
        if self._priorities > self._limits.max_inbound_priority_frames_per_stream * (1 + self.opened_streams):
            self.verdict = "inbound_priority_frames_flood"
            return True
        if not self._server or (number and number != on):
            return False
        self.verdict = "protocol_error"
        return True

    def _is_late_head(self, number: int, flags: int) -> bool:
        """HEADERS of a server's stream, which opens it, or ends it with trailers."""
        if number > self.last_stream:
            self.last_stream = number
            self.opened_streams += 1
            if not flags & _END_STREAM:
                self._open.add(number)
                if len(self._open) > _MAX_OPEN:
                    # Those that we have reset stay: nobody says when the last of their frames has come.
                    self._open.clear()
                    self._forgotten = number
        elif number not in self._open:
            return self._is_late(number, head=True)
        elif flags & _END_STREAM:
            self._open.discard(number)
        return False

    def _is_late(self, number: int, *, head: bool = False) -> bool:
        """A frame on no open stream: whether that is over, or was skipped."""
        if not (self._forgotten < number <= self.last_stream and number & 1):
            # Idle, or never the client's: the codec knows.
            return False
        skipped = self.last_stream != 2 * self.opened_streams - 1
        self.verdict = "protocol_error" if head and skipped else "stream_closed"
        return True
