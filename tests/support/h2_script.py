"""What a peer of HTTP/2 cases does, as data: bytes are sent, the other steps are these.

Client and backend of a case have a ``Board`` in common, on which the one says what the other heeds.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.h2_frames import data
from tests.support.raw_h2 import WAIT, Event, Peer, ready


@dataclass(frozen=True, slots=True)
class Until:
    """Read until this came on the stream: ``head`` (of a final response), ``headers`` (``amount`` blocks),
    ``data`` (``amount`` bytes), ``end`` (END_STREAM or RST_STREAM), ``rst``; or on the connection: ``goaway``,
    ``settings-ack`` (``amount``), ``ping-ack`` (``amount``), ``rsts`` (``amount``), ``requests`` (``amount``
    streams with a field block), ``over``. Any of these, or the connection's end."""

    what: str
    stream: int = 0
    amount: int = 1


@dataclass(frozen=True, slots=True)
class Got:
    """Read until an HTTP/1.1 connection has had ``what``."""

    what: bytes


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the other side's script."""

    what: str


@dataclass(frozen=True, slots=True)
class Heed:
    """Wait for the other side's script to say it; ``deaf``: without reading meanwhile."""

    what: str
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Eof:
    """End the sending half."""


@dataclass(frozen=True, slots=True)
class Reset:
    """End the connection with RST."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer every request on streams above ``after`` with 200 and ``body`` until the case is over. ``trailers``: of
    HTTP/2 alone."""

    after: int = 0
    body: bytes = b"ok"
    trailers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Paced:
    """Send a body, and END_STREAM, as far and as soon as the other side's windows allow."""

    stream: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Deaf:
    """From here on, leave SETTINGS and PING unanswered."""


Step = bytes | Until | Got | Say | Heed | Eof | Reset | Close | Serve | Paced | Deaf
Script = tuple[Step, ...]


class Board:
    """What was said in one case."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._changed = threading.Condition()

    def say(self, what: str) -> None:
        with self._changed:
            self._said.add(what)
            self._changed.notify_all()

    def said(self, what: str) -> bool:
        return what in self._said

    def heed(self, what: str) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: what in self._said, WAIT)


class Plain:
    """One HTTP/1.1 connection of a proxy to a backend."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.data = bytearray()
        self.fate = ""

    def write(self, data: bytes) -> bool:
        view = memoryview(data)
        deadline = time.monotonic() + WAIT
        while view:
            if not ready(self.socket, deadline, reads=False, writes=True)[1]:
                return False
            try:
                view = view[self.socket.send(view) :]
            except ConnectionError:
                return False
        return True

    def read(self, deadline: float) -> bool:
        """Read something; false at the end or if nothing comes."""
        if self.fate or not ready(self.socket, deadline)[0]:
            return False
        try:
            got = self.socket.recv(1 << 18)
        except ConnectionError:
            got = b""
        if not got:
            self.fate = "closed"
        self.data += got
        return bool(got)

    def got(self, what: bytes) -> bool:
        deadline = time.monotonic() + WAIT
        while what not in self.data:
            if not self.read(deadline):
                return False
        return True

    def over(self) -> bool:
        deadline = time.monotonic() + WAIT
        while self.read(deadline):
            pass
        return bool(self.fate)

    def drain(self) -> None:
        while self.read(0.0):
            pass


def met(step: Until, events: list[Event]) -> bool:
    """Whether what ``step`` waits for is among ``events``."""
    own = [event for event in events if event.stream == step.stream]
    blocks = [event for event in own if event.kind == "headers"]
    match step.what:
        case "over":
            return False
        case "requests":
            return len({event.stream for event in events if event.kind == "headers"}) >= step.amount
        case "rsts":
            return sum(event.kind == "rst" for event in events) >= step.amount
        case "head":
            return any(not status(event.value).startswith(b"1") for event in blocks)
        case "end":
            return any(event.end or event.kind == "rst" for event in own)
        case "data":
            return sum(len(event.value) for event in own if isinstance(event.value, bytes)) >= step.amount
        case kind:
            return sum(event.kind == kind for event in own) >= step.amount


def status(fields: object) -> bytes:
    """The ``:status`` of a field block; empty if it has none."""
    assert isinstance(fields, tuple)
    return next((bytes(value) for name, value in fields if name == b":status"), b"")


def _pace(step: Paced, peer: Peer) -> bool:
    """RFC 9113 section 6.9, for a peer whose only body this is."""
    left = step.body
    while left:
        sent = len(step.body) - len(left)
        if not peer.until(lambda events, sent=sent: _allowed(step.stream, events) > sent):  # type: ignore[misc]
            return bool(peer.fate)
        # A larger window holds once its SETTINGS are acknowledged.
        peer.drain()
        size = _allowed(step.stream, peer.events) - sent
        peer.write(data(step.stream, left[:size], end=size >= len(left)))
        left = left[size:]
    return True


def _allowed(stream: int, events: list[Event]) -> int:
    """How many bytes of a body may have been sent."""
    size = both = 65535
    for event in events:
        if event.kind == "settings" and isinstance(event.value, dict):
            size += event.value.get(4, 65535) - 65535
        elif event.kind == "window" and isinstance(event.value, int):
            both += event.value if event.stream == 0 else 0
            size += event.value if event.stream == stream else 0
    return min(size, both)


def perform(steps: Iterable[Step], peer: Peer | Plain, board: Board) -> list[Step]:
    """Do it all; the steps that waited in vain."""
    return [step for step in steps if not _perform(step, peer, board)]


def _perform(step: Step, peer: Peer | Plain, board: Board) -> bool:
    match step:
        case bytes():
            # That the other side goes away while it is flooded is among what is looked for.
            peer.write(step)
        case Until():
            if isinstance(peer, Plain):
                return step.what == "over" and peer.over()
            return peer.until(lambda events: met(step, events)) or bool(peer.fate)
        case Got():
            assert isinstance(peer, Plain)
            return peer.got(step.what) or bool(peer.fate)
        case Say():
            board.say(step.what)
        case Heed():
            if step.deaf or isinstance(peer, Plain):
                return board.heed(step.what)
            return peer.pause(lambda: board.said(step.what))
        case Eof():
            peer.socket.shutdown(socket.SHUT_WR)
        case Reset():
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.socket.close()
            peer.fate = "left"
        case Close():
            peer.socket.close()
            peer.fate = "left"
        case Deaf():
            assert isinstance(peer, Peer)
            peer.acknowledges = False
        case Paced():
            assert isinstance(peer, Peer)
            return _pace(step, peer)
        case Serve():
            raise AssertionError("a backend's last step")
    return True
