"""What a session does with what its inspector sees, with each engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.http2 import codec, events
from proxy.http2.codec import ENGINES, Options, Role
from proxy.http2.limits import FloodLimits
from proxy.http2.session import Flusher, Session
from tests.support.h2_engines import engine
from tests.unit.http2.pairs import PREFACE, frame, frames

__all__ = ["engine"]

HEAD = b"\x82\x86\x84\x41\x01a"
"""GET http://a/"""
HEADERS, RST_STREAM, PING, GOAWAY, WINDOW_UPDATE = 1, 3, 6, 7, 8
FLOW_CONTROL_ERROR, STREAM_CLOSED = 3, 5
OK = ((b":status", b"200"),)


class Server:
    """A session whose turns are the test's to begin. ``full``: bytes that its transport takes before it blocks."""

    def __init__(
        self, engine: str, *, full: int = 1 << 30, limits: FloodLimits | None = None, role: Role = Role.SERVER
    ) -> None:
        self.turn: list[Callable[[], None]] = []
        self.written = b""
        self.saw: list[tuple[Any, ...]] = []
        self.floods: list[str] = []
        self._full = full
        kinds = (
            events.RequestReceived, events.ResponseReceived, events.DataReceived, events.TrailersReceived,
            events.StreamReset,
            events.StreamClosed, events.GoAwayReceived, events.ConnectionClosed,
        )  # fmt: skip
        self.session = Session(
            ENGINES[engine].make(role, Options()),
            Flusher(self.turn.append),
            dict.fromkeys(kinds, self._note),
            self._write,
            lambda: None,
            self._failed,
            self.floods.append,
            limits or FloodLimits(),
            server=role is Role.SERVER,
        )
        self.receive((PREFACE if role is Role.SERVER else b"") + frame(4, 0, 0) + frame(4, 1, 0))
        self.written = b""

    def receive(self, *reads: bytes) -> None:
        """All in one turn."""
        for read in reads:
            self.session.receive(read)
        for begin in self.turn:
            begin()
        self.turn.clear()

    def sent(self, kind: int) -> list[tuple[int, int]]:
        """Stream and error code of frames."""
        return [
            (stream, int.from_bytes(payload[4 if kind == GOAWAY else 0 :][:4], "big"))
            for found, _, stream, payload in frames(self.written)
            if found == kind
        ]

    def _note(self, event: Any) -> None:
        self.saw.append((type(event).__name__, *(getattr(event, name) for name in event.__match_args__[:2])))

    def _write(self, data: bytes) -> None:
        self.written += data
        if len(self.written) > self._full:
            self.session.block()

    def _failed(self, error: Exception) -> None:
        raise error


def update(increment: int, stream: int = 1) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("cut", [0, 3, 9, 12])
def test_a_window_that_overflows_costs_its_stream(engine: str, cut: int, together: bool) -> None:
    server = Server(engine)
    sent = frame(HEADERS, 4, 1, HEAD) + update((1 << 31) - 1 - 65_535)
    server.receive(sent)
    assert not server.sent(RST_STREAM)
    sent = update(1 << 24) + frame(HEADERS, 5, 3, HEAD)
    if cut:
        server.receive(*((sent[:cut], sent[cut:]) if together else (sent[:cut],)))
        if not together:
            server.receive(sent[cut:])
    else:
        server.receive(sent)
    assert server.sent(RST_STREAM) == [(1, FLOW_CONTROL_ERROR)] and not server.sent(GOAWAY)
    names = [(name, number) for name, number, *_ in server.saw]
    assert names == [("RequestReceived", 1), ("StreamClosed", 1), ("RequestReceived", 3)]
    assert ("StreamClosed", 1, FLOW_CONTROL_ERROR) in server.saw


def test_a_window_that_overflows_in_the_read_that_opens_its_stream(engine: str) -> None:
    server = Server(engine)
    server.receive(frame(HEADERS, 4, 1, HEAD) + update((1 << 31) - 1) + update((1 << 31) - 1))
    assert server.sent(RST_STREAM) == [(1, FLOW_CONTROL_ERROR)] and not server.sent(GOAWAY)


def test_a_window_of_a_stream_that_is_over(engine: str) -> None:
    server = Server(engine)
    server.receive(frame(HEADERS, 5, 1, HEAD))
    server.session.codec.send_response(1, OK, end_stream=True)
    server.session.flush()
    server.receive(update((1 << 31) - 1) * 2 + frame(HEADERS, 5, 3, HEAD))
    assert not server.sent(RST_STREAM) and not server.sent(GOAWAY)
    assert server.saw[-1][:2] == ("RequestReceived", 3)


def test_the_last_stream_is_reset_in_a_shutdown(engine: str) -> None:
    server = Server(engine)
    server.receive(frame(HEADERS, 4, 1, HEAD))
    assert server.session.say_goodbye()
    server.receive(update((1 << 31) - 1) + frame(HEADERS, 5, 3, HEAD))
    assert server.sent(RST_STREAM) == [(1, FLOW_CONTROL_ERROR)]
    assert server.saw[-1][0] == "ConnectionClosed"


def test_frames_of_a_stream_that_has_ended_end_the_connection(engine: str) -> None:
    server = Server(engine)
    server.receive(frame(HEADERS, 5, 1, HEAD))
    server.receive(frame(0, 0, 1, b"x"))
    assert server.sent(GOAWAY) == [(0, STREAM_CLOSED)]
    assert server.saw[-1] == ("ConnectionClosed", STREAM_CLOSED, server.saw[-1][2])
    assert server.session.closed and not server.floods


def test_late_frames_of_a_stream_that_was_reset_here_are_no_breach(engine: str) -> None:
    server = Server(engine)
    server.receive(frame(HEADERS, 4, 1, HEAD))
    server.session.codec.reset_stream(1, 8)
    server.receive(frame(PING, 0, 0, bytes(8)))
    server.receive(frame(0, 0, 1, b"x") + frame(HEADERS, 5, 1, HEAD) + frame(HEADERS, 5, 3, HEAD))
    assert not server.sent(GOAWAY)
    assert server.saw[-1][:2] == ("RequestReceived", 3)


def test_answers_are_written_before_the_turn_ends_when_they_are_many(engine: str) -> None:
    limits = FloodLimits(max_outbound_control_frames=100)
    pings = frame(PING, 0, 0, bytes(8)) * 50
    server = Server(engine, limits=limits, full=1000)
    server.session.receive(pings)
    assert not server.written
    # SETTINGS were answered, too.
    server.session.receive(pings)
    assert len(server.sent(PING)) == 100 and server.session.blocked and not server.floods
    # From here on they wait.
    server.session.receive(pings)
    server.session.receive(pings)
    assert not server.floods
    server.session.receive(frame(PING, 0, 0, bytes(8)))
    assert server.floods == ["outbound_control_flood"]


def test_the_engine_is_the_one_that_is_asked_for(engine: str) -> None:
    assert codec.ENGINE.name == engine
    made = codec.make(Role.SERVER, Options())
    assert type(made).__module__.startswith("ngh2" if engine == "ngh2" else "proxy.http2.hyper")


@pytest.mark.parametrize("role", Role)
def test_only_streams_of_clients_that_were_refused_are_answers(engine: str, role: Role) -> None:
    server = Server(engine, limits=FloodLimits(max_outbound_control_frames=100), role=role)
    session = server.session
    session.block()
    session.inspector.opened_streams += 1000
    if role is Role.SERVER:
        session.requests += 900
    server.receive(frame(PING, 0, 0, bytes(8)))
    assert server.floods == (["outbound_control_flood"] if role is Role.SERVER else [])


def test_frames_that_wait_for_a_client_are_bounded(engine: str) -> None:
    """``max_outbound_frames``: what is asked for and not read."""
    server = Server(engine, limits=FloodLimits(max_outbound_frames=4))
    server.receive(b"".join(frame(HEADERS, 5, number, HEAD) for number in (1, 3, 5)))
    session = server.session
    session.block()
    for number in (1, 3):
        session.respond(number, OK, end=False)
        session.trail(number, ((b"a", b"b"),))
    session.flush()
    assert not server.floods
    session.respond(5, OK, end=True)
    session.flush()
    assert server.floods == ["outbound_flood"]


def test_what_the_socket_took_no_longer_counts(engine: str) -> None:
    server = Server(engine, limits=FloodLimits(max_outbound_frames=2))
    server.receive(b"".join(frame(HEADERS, 5, number, HEAD) for number in (1, 3, 5, 7)))
    session = server.session
    for numbers in ((1, 3), (5, 7)):
        session.block()
        for number in numbers:
            session.respond(number, OK, end=True)
        session.unblock()
    assert not server.floods
