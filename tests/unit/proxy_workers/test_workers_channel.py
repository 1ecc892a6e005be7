"""Messages over a socket pair: whole, in order, with their descriptors, whatever the sockets take at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from proxy.workers.channel import Channel


class End:
    """One end, and what came to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.got: list[object] = []
        self.ends = 0
        self.writable: list[bool] = []
        self.channel = Channel(sock, self.got.append, self.ended, self.writable.append)

    def ended(self) -> None:
        self.ends += 1


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    made = tuple(End(sock) for sock in socket.socketpair())
    yield made  # type: ignore[misc]
    for end in made:
        end.channel.close()


def test_messages_arrive_in_order(ends: tuple[End, End]) -> None:
    one, other = ends
    for number in range(100):
        one.channel.send(("message", number))
    other.channel.read()
    assert other.got == [("message", number) for number in range(100)]


def test_more_than_the_socket_takes_is_kept_and_announced(ends: tuple[End, End]) -> None:
    one, other = ends
    large = [os.urandom(3_000_000), b"after it"]
    for message in large:
        one.channel.send(message)
    assert one.writable[-1] is True
    assert one.channel.pending
    while one.channel.pending:
        other.channel.read()
        one.channel.flush()
    other.channel.read()
    assert other.got == large
    assert one.writable[-1] is False


def test_descriptors_come_with_their_messages(ends: tuple[End, End]) -> None:
    one, other = ends
    pipes = [os.pipe() for _ in range(3)]
    one.channel.send(b"x" * 1_000_000)
    for number, (reading, _) in enumerate(pipes):
        one.channel.send(number, (reading,))
    while one.channel.pending:
        other.channel.read()
        one.channel.flush()
    other.channel.read()
    assert other.got[1:] == [0, 1, 2]
    for number, (reading, writing) in enumerate(pipes):
        os.write(writing, b"%d" % number)
        came = other.channel.take_descriptor()
        assert came != reading
        assert os.read(came, 1) == b"%d" % number
        for descriptor in (came, reading, writing):
            os.close(descriptor)


def test_the_end_is_told_once_and_after_what_was_sent(ends: tuple[End, End]) -> None:
    one, other = ends
    one.channel.send("last words")
    one.channel.close()
    other.channel.read()
    other.channel.read()
    assert (other.got, other.ends) == (["last words"], 1)
    other.channel.send("nobody")
    assert not other.channel.pending


def test_writing_to_one_that_is_gone_is_the_end_too(ends: tuple[End, End]) -> None:
    one, other = ends
    other.channel.close()
    one.channel.send("anybody?")
    assert one.ends == 1
    assert one.channel.ended
