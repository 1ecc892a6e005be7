"""The judge of inbound frames: floods are seen in the frames' heads, before the codec spends anything on them.

It walks the 9 bytes before each payload and looks into no payload but for the length of padding. It knows nothing of
the engine, answers nothing and does not check the protocol: what is no frame at all is the codec's to refuse. Whoever
feeds it ends the connection when it says so.

The limits and the names are Envoy's. Envoy ends the connection without GOAWAY and counts ``http2.<name>``:

- ``inbound_empty_frames_flood``: HEADERS, CONTINUATION or DATA without payload or END_STREAM, one after another;
- ``inbound_priority_frames_flood``: PRIORITY, per stream opened;
- ``inbound_window_update_frames_flood``: WINDOW_UPDATE, per stream opened and DATA frame sent;
- ``header_overflow``: a header block above ``max_header_block_size``, or cut into more CONTINUATION frames than any
  sender needs. (Envoy leaves that to its codec; the name is that of a header list too large.)
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from proxy.http2.limits import FloodLimits

Flood: TypeAlias = Literal[
    "inbound_empty_frames_flood",
    "inbound_priority_frames_flood",
    "inbound_window_update_frames_flood",
    "header_overflow",
]

PREFACE_SIZE: Final = 24
_CONTINUATIONS: Final = 8
"""What nghttp2 takes for one header block; more only as the block may be larger."""
_SMALL_FRAME: Final = 1024
"""No sender cuts a large block into smaller frames than this."""

_DATA, _HEADERS, _PRIORITY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 2, 8, 9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8


class FrameInspector:
    """Follows the frames of one connection through however its bytes are cut."""

    __slots__ = (
        "_block_frames", "_block_size", "_empty", "_head", "_left", "_limits", "_max_continuations",
        "_priorities", "_server", "_window_updates", "data_frames_sent", "flood", "last_stream", "opened_streams",
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
        self.last_stream = 0
        """A server's: the highest number of a stream so far."""
        self.opened_streams = 0
        """Streams so far: a server's are counted here, a client adds one for each request that it sends."""
        self.data_frames_sent = 0
        """For the connection to keep up to date."""
        self.flood: Flood | None = None
        """The limit that was passed; nothing is looked at after that."""

    def inspect(self, data: bytes | bytearray | memoryview) -> Flood | None:
        """Look at what came: the limit that was passed, if one was."""
        left = self._left
        size = len(data)
        if left >= size:
            self._left = left - size
            return self.flood
        flood = self.flood
        if flood is not None:
            return flood
        if self._head:
            data = self._head + bytes(data)
            size = len(data)
            self._head = b""
        at = left
        while at + 9 <= size:
            kind = data[at + 3]
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if kind == _DATA:
                if length and not data[at + 4] & _PADDED:
                    self._empty = 0
                elif length and at + 9 == size:
                    # How much of it is padding is yet to come.
                    break
                elif self._is_flood_of_empty(data, at, length):
                    return self.flood
            elif kind in (_HEADERS, _CONTINUATION):
                if kind == _HEADERS and length and data[at + 4] & _PADDED and at + 9 == size:
                    break
                if self._is_flood_of_headers(data, at, kind, length):
                    return self.flood
            elif kind == _WINDOW_UPDATE:
                self._window_updates += 1
                if self._window_updates > 5 and self._is_flood_of_window_updates():
                    return self.flood
            elif kind == _PRIORITY:
                self._priorities += 1
                if self._priorities > self._limits.max_inbound_priority_frames_per_stream * (
                    1 + self.opened_streams
                ):
                    self.flood = "inbound_priority_frames_flood"
                    return self.flood
            at += 9 + length
        if at < size:
            self._head = bytes(data[at:])
            self._left = 0
        else:
            self._left = at - size
        return None

    def _is_flood_of_empty(self, data: bytes | bytearray | memoryview, at: int, length: int) -> bool:
        flags = data[at + 4]
        if length and flags & _PADDED and data[at + 3] != _CONTINUATION:
            length -= 1 + data[at + 9]
        if length > 0 or (flags & _END_STREAM and data[at + 3] != _CONTINUATION):
            self._empty = 0
            return False
        self._empty += 1
        if self._empty <= self._limits.max_consecutive_inbound_frames_with_empty_payload:
            return False
        self.flood = "inbound_empty_frames_flood"
        return True

    def _is_flood_of_headers(
        self, data: bytes | bytearray | memoryview, at: int, kind: int, length: int
    ) -> bool:
        if length and not data[at + 4] & _PADDED:
            self._empty = 0
        elif self._is_flood_of_empty(data, at, length):
            return True
        if kind == _HEADERS:
            self._block_size = length
            self._block_frames = 0
            if self._server:
                stream_id = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
                if stream_id > self.last_stream:
                    self.last_stream = stream_id
                    self.opened_streams += 1
        else:
            self._block_size += length
            self._block_frames += 1
        if (
            self._block_size > self._limits.max_header_block_size
            or self._block_frames > self._max_continuations
        ):
            self.flood = "header_overflow"
            return True
        return False

    def _is_flood_of_window_updates(self) -> bool:
        allowed = self._limits.max_inbound_window_update_frames_per_data_frame_sent * self.data_frames_sent
        if self._window_updates <= 5 + 2 * (self.opened_streams + allowed):
            return False
        self.flood = "inbound_window_update_frames_flood"
        return True
