"""A backend of HTTP/2 cases: each connection of the proxy plays the next script; the last one serves everything.

It speaks what the case says, HTTP/1.1 or HTTP/2, and records all that came. It judges nothing.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.h2_frames import data, headers, settings, window
from tests.support.h2_script import Board, Plain, Script, Serve, Step, Until, met, perform
from tests.support.raw_h2 import WAIT, Peer
from tests.support.raw_http import requests

EVERYTHING: Script = (Serve(),)
WIDE = 0x7FFFFFFF
HELLO = settings({4: WIDE}) + window(0, WIDE - 65535)
"""The SETTINGS of a peer that never holds the other side up."""


@dataclass
class Connection:
    """One of the proxy's. ``missed``: steps that waited in vain."""

    peer: Peer | Plain
    thread: threading.Thread | None = None
    missed: list[Step] = field(default_factory=list)
    error: BaseException | None = None


class Backend:
    """For one case. ``scripts``: of the first connections; beyond them all do ``otherwise``."""

    def __init__(
        self,
        speaks: str,
        scripts: tuple[Script, ...],
        board: Board,
        hello: Mapping[int, int] | None = None,
        otherwise: Script = EVERYTHING,
    ) -> None:
        self._http2 = speaks == "h2"
        self._scripts = scripts
        self._otherwise = otherwise
        self._board = board
        self._hello = HELLO if hello is None else settings(hello)
        self._over, self._ends = socket.socketpair()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.connections: list[Connection] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def finish(self) -> list[Connection]:
        """Let all scripts end; what came on each connection that was used."""
        self._ends.shutdown(socket.SHUT_WR)
        for connection in self.connections:
            assert connection.thread is not None
            connection.thread.join(4 * WAIT)
        return self.connections

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._over.close()
        self._ends.close()
        for connection in self.connections:
            connection.peer.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer: Peer | Plain = Peer(sock, client=False) if self._http2 else Plain(sock)
            connection = Connection(peer)
            number = len(self.connections)
            script = self._scripts[number] if number < len(self._scripts) else self._otherwise
            connection.thread = threading.Thread(target=self._play, args=(connection, script), daemon=True)
            connection.thread.start()
            self.connections.append(connection)

    def _play(self, connection: Connection, script: Script) -> None:
        peer = connection.peer
        try:
            if isinstance(peer, Peer):
                peer.write(self._hello)
            last = script[-1] if script else None
            serves = isinstance(last, Serve)
            connection.missed = perform(script[:-1] if serves else script, peer, self._board)
            if isinstance(peer, Peer):
                self._rest(peer, last if isinstance(last, Serve) else None)
            else:
                self._rest_plain(peer, last if isinstance(last, Serve) else None)
        except OSError as error:
            # Only a script that closes may find the socket closed.
            if peer.fate != "left":
                connection.error = error
        except BaseException as error:  # noqa: BLE001 - judged with the case
            connection.error = error

    def _rest(self, peer: Peer, serve: Serve | None) -> None:
        answered: set[int] = set()
        while True:
            peer.drain()
            asked = {event.stream for event in peer.events if event.kind == "headers"} - answered
            whole = [number for number in sorted(asked) if met(Until("end", number), peer.events)]
            answered.update(whole)
            for stream in whole:
                if serve and stream > serve.after:
                    peer.write(_answer(stream, serve, peer))
            # Writing may have read further requests: then there is nothing to wait for.
            if not whole and not self._goes_on(peer):
                break
        if not peer.fate:
            # What the proxy sent before it answers has come then. After GOAWAY it may not answer any more.
            peer.alive(0.5)

    def _rest_plain(self, peer: Plain, serve: Serve | None) -> None:
        at = 0
        while self._goes_on(peer):
            peer.drain()
            while serve and (found := requests(bytes(peer.data[at:]))[0]) and found[0].complete:
                at += found[0].end
                body = b"" if found[0].first.startswith(b"HEAD ") else serve.body
                peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(serve.body), body))
        peer.drain()
        if peer.fate == "closed":
            # Whoever ended one half of a tunnel waits for the other one.
            peer.socket.close()

    def _goes_on(self, peer: Peer | Plain) -> bool:
        """Wait for something to come; false when the case is over or the connection is."""
        if peer.fate:
            return False
        poll = select.poll()
        poll.register(peer.socket, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        return self._over.fileno() not in dict(poll.poll())


def _answer(stream: int, serve: Serve, peer: Peer) -> bytes:
    fields = ((b":status", b"200"), (b"content-length", b"%d" % len(serve.body)))
    request = next(event.value for event in peer.events if event.kind == "headers" and event.stream == stream)
    assert isinstance(request, tuple)
    if (b":method", b"HEAD") in request:
        return headers(stream, fields)
    out = headers(stream, fields, end=False) + data(stream, serve.body, end=not serve.trailers)
    return out + headers(stream, serve.trailers) if serve.trailers else out
