"""The raw HTTP/2 peer of the tests itself: what it sends means what is said, and it loses nothing that it is sent."""

from __future__ import annotations

import socket
import struct

import h2.config
import h2.connection
import h2.events
import pytest

from tests.support import h2_frames, raw_h2
from tests.support.h2_script import Board, Heed, Paced, Say, Until, perform
from tests.support.raw_h2 import Event, Peer

FIELDS = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"h"),
    (b":path", b"/"),
    (b"x", b"y" * 300),
)


def pair() -> tuple[Peer, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer.dial(server.getsockname()[1])
        return peer, server.accept()[0]


@pytest.mark.parametrize("split", [0, 7])
def test_a_request_is_what_another_implementation_reads(split: int) -> None:
    other = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    other.initiate_connection()
    events = other.receive_data(
        h2_frames.PREFACE
        + h2_frames.settings({4: 1000})
        + h2_frames.headers(1, FIELDS, end=False, split=split)
        + h2_frames.data(1, b"abc", end=True)
        + h2_frames.ping(b"12345678")
    )
    kinds = [type(event) for event in events]
    assert kinds[:3] == [h2.events.RemoteSettingsChanged, h2.events.RequestReceived, h2.events.DataReceived]
    assert tuple(events[1].headers) == FIELDS
    assert h2.events.StreamEnded in kinds and h2.events.PingReceived in kinds


def test_what_came_before_a_reset_is_kept() -> None:
    peer, other = pair()
    other.sendall(h2_frames.settings() + h2_frames.goaway(3, 11) + h2_frames.data(1, b"x" * 100_000))
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    peer.write(b"x" * 1_000_000)
    peer.to_the_end()
    assert Event("goaway", 0, ("ENHANCE_YOUR_CALM", 3)) in peer.events
    assert sum(len(event.value) for event in peer.events if isinstance(event.value, bytes)) == 100_000
    assert peer.fate == "closed"


def test_it_answers_settings_and_ping_unless_told_otherwise() -> None:
    peer, other = pair()
    other.sendall(h2_frames.settings() + h2_frames.ping(b"12345678"))
    peer.until(lambda events: len(events) == 2)
    peer.drain()
    wanted = h2_frames.settings(ack=True) + h2_frames.ping(b"12345678", ack=True)
    assert other.recv(len(wanted), socket.MSG_WAITALL) == wanted
    peer.acknowledges = False
    other.sendall(h2_frames.ping(b"87654321"))
    peer.until(lambda events: len(events) == 3)
    peer.drain()
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(1)


def test_a_flood_is_not_read_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_h2, "MOST", 1000)
    peer, other = pair()
    other.sendall(h2_frames.data(1, b"x" * 2000))
    with pytest.raises(AssertionError, match="floods"):
        peer.to_the_end()


def test_silence_is_bounded() -> None:
    peer, _other = pair()
    assert not peer.until(lambda _: False, 0.01)
    peer.to_the_end(0.01)
    assert peer.fate == "silent"


def test_a_paced_body_keeps_to_the_windows() -> None:
    peer, other = pair()
    other.sendall(h2_frames.settings({4: 5}) + h2_frames.window(1, 3))
    peer.until(lambda events: len(events) == 2)
    other.sendall(h2_frames.rst(1))
    peer.until(lambda events: len(events) == 3)
    other.shutdown(socket.SHUT_WR)
    perform([Paced(1, b"x" * 20)], peer, Board())
    peer.close()
    sent = b""
    while got := other.recv(1000):
        sent += got
    assert sent.removeprefix(h2_frames.settings(ack=True)) == h2_frames.data(1, b"x" * 8)


def test_a_step_that_waits_in_vain_is_told() -> None:
    peer, other = pair()
    other.sendall(h2_frames.headers(1, ((b":status", b"103"),), end=False))
    board = Board()
    assert perform([Until("headers", 1), Say("there"), Heed("there")], peer, board) == []
    other.sendall(h2_frames.headers(1, ((b":status", b"200"),)))
    assert perform([Until("head", 1), Until("end", 1)], peer, board) == []
