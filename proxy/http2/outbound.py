"""The count of outbound frames that wait for the socket: a peer that makes us answer and does not read.

Envoy's ``ProtocolConstraints``: ``outbound_control_flood`` counts what answers the peer (PING and SETTINGS with ACK,
and RST_STREAM), ``outbound_flood`` all frames. It is told what the codec gave and how far the transport has come; it
writes nothing, and whoever feeds it ends the connection.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, TypeAlias

from proxy.http2.limits import FloodLimits

OutboundFlood: TypeAlias = Literal["outbound_flood", "outbound_control_flood"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _RST_STREAM, _SETTINGS, _PING = 0, 3, 4, 6
_ACK: Final = 0x1


class OutboundFrames:
    """Frames of one connection between the codec and the socket.

    Positions are byte counts since the connection began, in whatever unit the transport counts (a TLS layer's writes
    are longer than the codec's).
    """

    __slots__ = ("_limits", "_waiting", "control_frames", "data_frames_sent", "frames")

    def __init__(self, limits: FloodLimits) -> None:
        self._limits = limits
        self._waiting: deque[tuple[int, int, int]] = deque()
        """Where each write ended, and its frames and control frames."""
        self.frames = 0
        self.control_frames = 0
        self.data_frames_sent = 0
        """DATA frames ever, for ``FrameInspector``."""

    def wrote(self, data: bytes, end: int) -> OutboundFlood | None:
        """``data``, which is whole frames, was given to the transport, whose last byte of it is at ``end``."""
        size = len(data)
        at = len(_PREFACE) if data.startswith(_PREFACE) else 0
        frames = control = sent = 0
        while at < size:
            kind = data[at + 3]
            frames += 1
            if kind == _DATA:
                sent += 1
            elif kind == _RST_STREAM or (kind in (_PING, _SETTINGS) and data[at + 4] & _ACK):
                control += 1
            at += 9 + (data[at] << 16 | data[at + 1] << 8 | data[at + 2])
        self.data_frames_sent += sent
        self.frames += frames
        self.control_frames += control
        self._waiting.append((end, frames, control))
        return self.check()

    def taken(self, position: int) -> None:
        """The socket has taken all before ``position``."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= position:
            _, frames, control = waiting.popleft()
            self.frames -= frames
            self.control_frames -= control

    def check(self) -> OutboundFlood | None:
        """The limit that is passed, if one is. Ask after ``taken``, when it is known what still waits."""
        if self.frames > self._limits.max_outbound_frames:
            return "outbound_flood"
        if self.control_frames > self._limits.max_outbound_control_frames:
            return "outbound_control_flood"
        return None
