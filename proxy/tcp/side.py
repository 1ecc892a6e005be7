"""One of a relay's two connections where bytes pass through this process: because of TLS, or for want of a socket."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from proxy.tcp.reset import reset
from proxy.tls.conn import Transport
from proxy.upstream.loop_state import LoopState


class Relaying(Protocol):
    """The relay, as its sides see it."""

    state: LoopState

    def opened(self, side: Side) -> None: ...
    def received(self, side: Side, data: bytes) -> None: ...
    def side_ended(self, side: Side) -> bool: ...
    def side_lost(self, side: Side, exc: Exception | None) -> None: ...
    def side_full(self, side: Side) -> None: ...
    def side_free(self, side: Side) -> None: ...


class Side(asyncio.Protocol):
    """``ended``: it sends no more; ``lost``: it is gone."""

    __slots__ = ("_held", "_relay", "ended", "lost", "principal", "transport")

    def __init__(self, relay: Relaying) -> None:
        self._relay = relay
        self._held = False
        self.ended = False
        self.lost = False
        self.principal = ""
        self.transport: Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._relay.opened(self)

    def data_received(self, data: bytes) -> None:
        self._relay.received(self, data)

    def eof_received(self) -> bool:
        self.ended = True
        return self._relay.side_ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.ended = True
        self._relay.side_lost(self, exc)

    def pause_writing(self) -> None:
        self._relay.side_full(self)

    def resume_writing(self) -> None:
        self._relay.side_free(self)

    # What the relay does with it.

    @property
    def unsent(self) -> int:
        """Bytes that its peer has not taken yet."""
        return 0 if self.lost or self.transport is None else self.transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.lost and not self.transport.is_closing():
            self.transport.write(data)

    def write_eof(self) -> None:
        if self.transport is not None and not self.lost and not self.transport.is_closing():
            self.transport.write_eof()

    def hold(self) -> None:
        """Read no more from it for now."""
        if not self.lost and self.transport is not None:
            # Also if it is held: uvloop begins to read after ``connection_made``, whatever was asked for in it.
            self._held = True
            self.transport.pause_reading()

    def free(self) -> None:
        if self._held and not self.lost and self.transport is not None:
            self._held = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def close(self) -> None:
        """Close when what was written is sent."""
        if self.transport is not None and not self.lost:
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None and not self.lost:
            self.transport.abort()

    def reset(self) -> None:
        """Close with RST."""
        if self.transport is not None and not self.lost:
            reset(self.transport)
