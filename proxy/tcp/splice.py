"""Both directions between two plain sockets, moved by the kernel (``splice(2)``) without a copy into this process.

It looks at no byte. For each direction at most one pipe, or one read, is in flight: a side that does not read stops the
other from being read. Without a free pipe a direction copies through the loop's shared buffer instead. It decides
nothing about timeouts, logs or what comes after the end: its owner does.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final, Protocol

from proxy.tls.conn import Transport
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pipes import PIPE_SIZE, Pipe

_BULK: Final = 16 * 1024
"""Bytes in one read from which on the next one is spliced."""
# SPLICE_F_MOVE | SPLICE_F_NONBLOCK
_FLAGS: Final = 3


class Owner(Protocol):
    """The relay. ``upstream`` is the direction from the client to the server."""

    def moved(self, size: int, *, upstream: bool) -> None: ...
    def stalled(self, *, upstream: bool, now: bool) -> None: ...
    def splice_ended(self, *, upstream_last: bool) -> None: ...
    def splice_reset(self, *, by_client: bool) -> None: ...


class _Gone:
    """The protocol of a transport whose socket somebody else has now."""

    def connection_made(self, transport: Any) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


_GONE: Final = _Gone()


def detach(transport: Transport) -> socket.socket | None:
    """Take the socket from a paused transport that has nothing left to write; ``None`` if that is not possible."""
    raw = transport.get_extra_info("socket")
    set_protocol = getattr(transport, "set_protocol", None)
    if raw is None or set_protocol is None or transport.get_write_buffer_size():
        return None
    try:
        sock = socket.socket(fileno=os.dup(raw.fileno()))
    except OSError:
        return None
    sock.setblocking(False)
    # Closing the transport closes its descriptor; the connection lives on in the copy.
    set_protocol(_GONE)
    transport.abort()
    return sock


class _Pump:
    """One direction. ``done``: its end has been passed on."""

    __slots__ = (
        "_bulk",
        "_held",
        "_limit",
        "_pair",
        "_pending",
        "_pipe",
        "_waiting",
        "done",
        "sink",
        "source",
        "upstream",
    )

    def __init__(
        self, pair: Splice, source: socket.socket, sink: socket.socket, limit: int, *, upstream: bool
    ) -> None:
        self._pair = pair
        self._limit = limit
        self._pipe: Pipe | None = None
        # Messages cost less when copied than two splices; only reads that fill the buffer are worth a pipe.
        self._bulk = False
        self._held = 0
        self._pending: memoryview | None = None
        self._waiting = False
        self.source = source
        self.sink = sink
        self.upstream = upstream
        self.done = False

    def start(self, early: bytes) -> None:
        """Begin; ``early`` has been read already."""
        self._pair.state.loop.add_reader(self.source.fileno(), self.readable)
        if early:
            self._pending = memoryview(early)
            self._push()

    def readable(self) -> None:
        pair = self._pair
        if not self._bulk:
            self._copy()
            return
        pipe = pair.state.pipes.take()
        if pipe is None:
            pair.state.pipes.stats.copied_bytes += self._copy()
            return
        self._pipe = pipe
        try:
            size = os.splice(self.source.fileno(), pipe[1], self._limit, flags=_FLAGS)
        except BlockingIOError:
            self._release()
            return
        except OSError:
            pair.reset(by_client=self.upstream)
            return
        if not size:
            self._end()
            return
        self._held = size
        self._bulk = size >= _BULK
        pair.owner.moved(size, upstream=self.upstream)
        self._push()

    def writable(self) -> None:
        self._push()

    def close(self) -> None:
        """Give back what is lent; the sockets are the pair's."""
        pipe = self._pipe
        if pipe is not None:
            self._pipe = None
            if self._held:
                self._pair.state.pipes.discard(pipe)
            else:
                self._pair.state.pipes.give(pipe)
        self._pending = None

    def _copy(self) -> int:
        """Move what one read brings; how much it was."""
        pair = self._pair
        buffer = pair.state.buffers.read
        try:
            size = self.source.recv_into(buffer, min(len(buffer), self._limit))
        except BlockingIOError:
            return 0
        except OSError:
            pair.reset(by_client=self.upstream)
            return 0
        if not size:
            self._end()
            return 0
        self._bulk = size >= _BULK
        pair.owner.moved(size, upstream=self.upstream)
        try:
            sent = self.sink.send(buffer[:size])
        except BlockingIOError:
            sent = 0
        except OSError:
            pair.reset(by_client=not self.upstream)
            return size
        if sent < size:
            self._pending = memoryview(bytes(buffer[sent:size]))
            self._wait()
        return size

    def _push(self) -> None:
        """Write what is held, and read on when all of it is written."""
        pair = self._pair
        try:
            pending = self._pending
            while pending is not None:
                pending = pending[self.sink.send(pending) :]
                self._pending = pending = pending if len(pending) else None
            pipe = self._pipe
            if pipe is not None:
                sink = self.sink.fileno()
                while self._held:
                    self._held -= os.splice(pipe[0], sink, self._held, flags=_FLAGS)
        except BlockingIOError:
            self._wait()
            return
        except OSError:
            pair.reset(by_client=not self.upstream)
            return
        self._release()
        if self._waiting:
            self._waiting = False
            loop = pair.state.loop
            loop.remove_writer(self.sink.fileno())
            loop.add_reader(self.source.fileno(), self.readable)
            pair.owner.stalled(upstream=self.upstream, now=False)

    def _wait(self) -> None:
        """The other side takes no more for now: read no more for it."""
        if not self._waiting:
            self._waiting = True
            loop = self._pair.state.loop
            loop.remove_reader(self.source.fileno())
            loop.add_writer(self.sink.fileno(), self.writable)
            self._pair.owner.stalled(upstream=self.upstream, now=True)

    def _release(self) -> None:
        pipe = self._pipe
        if pipe is not None:
            self._pipe = None
            self._pair.state.pipes.give(pipe)

    def _end(self) -> None:
        """The source sends no more, and all that it sent has been passed on."""
        self._release()
        self._pair.state.loop.remove_reader(self.source.fileno())
        try:
            self.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._pair.reset(by_client=not self.upstream)
            return
        self.done = True
        self._pair.ended(self)


class Splice:
    """Two sockets, joined. It owns them from here."""

    __slots__ = ("_closed", "_down", "_up", "owner", "state")

    def __init__(
        self, owner: Owner, state: LoopState, client: socket.socket, server: socket.socket, limit: int
    ) -> None:
        """``limit``: bytes in flight for each direction."""
        limit = max(1, min(limit, PIPE_SIZE))
        self.owner = owner
        self.state = state
        self._closed = False
        self._up = _Pump(self, client, server, limit, upstream=True)
        self._down = _Pump(self, server, client, limit, upstream=False)

    def start(self, early: bytes) -> None:
        """Begin; ``early`` has been read from the client."""
        self._up.start(early)
        if not self._closed:
            self._down.start(b"")

    def ended(self, last: _Pump) -> None:
        """One direction has ended."""
        if self._up.done and self._down.done and not self._closed:
            self.close()
            self.owner.splice_ended(upstream_last=last.upstream)

    def reset(self, *, by_client: bool) -> None:
        """One side was reset: so will be the other."""
        if self._closed:
            return
        other = self._up.sink if by_client else self._up.source
        try:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        except OSError:
            # It was reset as well.
            pass
        self.close()
        self.owner.splice_reset(by_client=by_client)

    def close(self) -> None:
        """Close both now."""
        if self._closed:
            return
        self._closed = True
        loop = self.state.loop
        for pump in (self._up, self._down):
            descriptor = pump.source.fileno()
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
            pump.close()
        self._up.source.close()
        self._up.sink.close()
