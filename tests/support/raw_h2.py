"""A raw HTTP/2 peer, client or server, on a plain socket: any frame in any order, and what comes back as events.

It keeps no rules of the protocol: what it sends is bytes that a test made, right or wrong. It answers SETTINGS and
PING by itself and nothing else. Sockets and not asyncio's streams, for these forget what was read before a reset.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpack import Decoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.h2_frames import CODES, PREFACE, ping, settings

WAIT = 20.0
"""Seconds after which a peer counts as silent; never how long something takes."""
MOST = 256 << 20
"""Bytes that are read from one connection at most."""
PROBE = b"probe..."
"""What the ping that ends a conversation carries."""


def ready(
    sock: socket.socket, deadline: float, *, reads: bool = True, writes: bool = False
) -> tuple[bool, bool]:
    """Wait until one can read or write; which of both."""
    poll = select.poll()
    poll.register(sock, (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0))
    found = dict(poll.poll(max(deadline - time.monotonic(), 0) * 1000)).get(sock.fileno(), 0)
    broken = bool(found & (select.POLLERR | select.POLLHUP))
    return reads and (broken or bool(found & select.POLLIN)), writes and (
        broken or bool(found & select.POLLOUT)
    )


@dataclass(frozen=True, slots=True)
class Event:
    """One frame that came, or one whole field block. ``value``: fields, bytes, a code or a number, by ``kind``."""

    kind: str
    stream: int
    value: object = None
    end: bool = False


class Peer:
    """One connection. ``events``: what came; ``fate``: how it ended, if it did."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.events: list[Event] = []
        self.fate = ""
        self.preface = client
        self.acknowledges = True
        self._buffer = bytearray()
        self._owed = bytearray()
        self._decoder = Decoder(max_header_list_size=1 << 24)
        self._block: tuple[int, bytes, bool] | None = None
        self._total = 0
        self._refused = False

    @classmethod
    def dial(cls, port: int, host: str = "127.0.0.1") -> Peer:
        sock = socket.create_connection((host, port), timeout=WAIT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock, client=True)

    def write(self, data: bytes, deadline: float | None = None) -> bool:
        """Write all of it, reading what comes meanwhile; false if the other side is gone or takes no more."""
        deadline = deadline or time.monotonic() + WAIT
        view = memoryview(data)
        while view and not self._refused:
            readable, writable = ready(self.socket, deadline, reads=not self.fate, writes=True)
            if not readable and not writable:
                return False
            if writable:
                try:
                    view = view[self.socket.send(view[: 1 << 18]) :]
                except ConnectionError:
                    self._refused = True
            if readable:
                self._receive()
        return not view

    def until(self, met: Callable[[list[Event]], bool], wait: float = WAIT) -> bool:
        """Read until the events so far ``met`` something; false at the end of the connection or of patience."""
        deadline = time.monotonic() + wait
        while not met(self.events):
            if self.fate:
                return False
            if not self._more(deadline):
                return met(self.events)
        return True

    def pause(self, held: Callable[[], bool], wait: float = WAIT) -> bool:
        """Read until ``held``, which somebody else brings about."""
        deadline = time.monotonic() + wait
        while not held():
            if time.monotonic() > deadline:
                return False
            if self.fate:
                time.sleep(0.002)  # polls another thread
            else:
                self._more(min(deadline, time.monotonic() + 0.002), silent=False)
        return True

    def to_the_end(self, wait: float = WAIT) -> None:
        self.until(lambda _: False, wait)
        if not self.fate:
            self.fate = "silent"

    def drain(self) -> None:
        """Read what is there."""
        while not self.fate and self._more(time.monotonic(), silent=False):
            pass

    def alive(self, wait: float = WAIT) -> bool:
        """Whether a ping is answered. All that was sent before the answer has been read then."""
        self.write(ping(PROBE))
        return self.until(lambda events: Event("ping-ack", 0, PROBE) in events, wait)

    def close(self) -> None:
        self.socket.close()

    def _more(self, deadline: float, *, silent: bool = True) -> bool:
        if self._owed:
            # Answers to what was read; kept apart so that reading does not write while something is written.
            owed, self._owed = bytes(self._owed), bytearray()
            self.write(owed, deadline + WAIT)
            # Writing may have read what is waited for.
            return True
        if not ready(self.socket, deadline)[0]:
            return False
        self._receive()
        return not self.fate

    def _receive(self) -> None:
        try:
            got = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionError:
            self.fate = "closed"
            return
        if not got:
            self.fate = "closed"
            return
        self._total += len(got)
        assert self._total <= MOST, "the other side floods this one"
        self._buffer += got
        self._parse()

    def _parse(self) -> None:
        if not self.preface:
            if len(self._buffer) < len(PREFACE):
                return
            assert self._buffer.startswith(PREFACE), bytes(self._buffer[:100])
            del self._buffer[: len(PREFACE)]
            self.preface = True
        at = 0
        while len(self._buffer) - at >= 9:
            head, size = Frame.parse_frame_header(memoryview(self._buffer[at : at + 9]), strict=False)
            if len(self._buffer) - at - 9 < size:
                break
            head.parse_body(memoryview(bytes(self._buffer[at + 9 : at + 9 + size])))
            at += 9 + size
            self._take(head)
        del self._buffer[:at]

    def _take(self, got: Frame) -> None:
        stream = got.stream_id
        match got:
            case HeadersFrame():
                self._fragment(stream, got.data, "END_STREAM" in got.flags, "END_HEADERS" in got.flags)
            case ContinuationFrame():
                assert self._block is not None and self._block[0] == stream
                self._fragment(stream, self._block[1] + got.data, self._block[2], "END_HEADERS" in got.flags)
            case DataFrame():
                self._event("data", stream, bytes(got.data), end="END_STREAM" in got.flags)
            case RstStreamFrame():
                self._event("rst", stream, CODES[got.error_code])
            case GoAwayFrame():
                self._event("goaway", 0, (CODES[got.error_code], got.last_stream_id))
            case SettingsFrame():
                if "ACK" in got.flags:
                    self._event("settings-ack", 0)
                else:
                    self._event("settings", 0, dict(got.settings))
                    if self.acknowledges:
                        self._owed += settings(ack=True)
            case PingFrame():
                answer = "ACK" in got.flags
                self._event("ping-ack" if answer else "ping", 0, bytes(got.opaque_data))
                if not answer and self.acknowledges:
                    self._owed += ping(bytes(got.opaque_data), ack=True)
            case WindowUpdateFrame():
                self._event("window", stream, got.window_increment)
            case PriorityFrame() | PushPromiseFrame():
                self._event(type(got).__name__, stream)
            case _:
                self._event("extension", stream, got.type)

    def _fragment(self, stream: int, data: bytes, end: bool, last: bool) -> None:
        self._block = None if last else (stream, data, end)
        if last:
            fields = tuple(
                (bytes(name), bytes(value)) for name, value in self._decoder.decode(data, raw=True)
            )
            self._event("headers", stream, fields, end=end)

    def _event(self, kind: str, stream: int, value: object = None, *, end: bool = False) -> None:
        self.events.append(Event(kind, stream, value, end))
