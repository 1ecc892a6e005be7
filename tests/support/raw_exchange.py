"""Plays one exchange of raw bytes through a proxy, between a scripted client and a scripted backend, and says what
each side saw.

Nothing waits for time to pass: a case ends with a request that is forwarded (the probe), whose answer says that all
before it was dealt with, whether the client's connection goes on, and whether the backend's is used again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

from tests.support.raw_http import Message, requests, responses

WAIT = 20.0
"""Seconds after which a side counts as silent; never how long a case takes when both do what they should."""
PROBE = b"GET /probe HTTP/1.1\r\nhost: probe\r\n\r\n"
FLUSH = b"\x00" * 4000 + b"\r\n\r\n"
"""Ends whatever a parser waits for: a head is malformed by it, a short body filled."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the backend does for one request: writes ``data`` (in ``pieces``), then ``then``.

    ``at``: as soon as the request's head is there, or when all of the request is.
    """

    data: bytes = OK
    then: Literal["keep", "close", "end", "reset"] = "keep"
    at: Literal["head", "request"] = "request"


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange.

    ``send``: what the client writes, each piece after the one before it was taken. ``answers``: of the backend, to one
    request after the other over all its connections; ``OK`` afterwards. ``finals``: how many final responses the client
    waits for. ``end``: what it does then: ask for the ``probe``; say that it sends no more (``eof``) and read to the
    end; ``flush`` with bytes that are no request and read to the end; say nothing and ``read``. ``heads``: which of the
    requests are HEAD. ``wait_for``: bytes that the client waits for before the piece with the same number.
    ``backend_saw``: what must have reached the backend before the client sends its last piece, if there are several, or
    else goes on to its ``end``.
    """

    name: str
    send: bytes | tuple[bytes, ...]
    answers: tuple[Answer, ...] = ()
    config: str = "plain"
    finals: int = 1
    end: Literal["probe", "eof", "read", "flush"] = "probe"
    heads: frozenset[int] = frozenset()
    wait_for: tuple[bytes, ...] = ()
    backend_saw: bytes = b""

    @property
    def pieces(self) -> tuple[bytes, ...]:
        return (self.send,) if isinstance(self.send, bytes) else self.send


@dataclass
class Outcome:
    """What was seen. ``client``: responses; ``fate``: of the client's connection; ``backend``: for each connection its
    requests and its fate; ``peer``: the client's address, by which the log is read into ``log``."""

    client: tuple[object, ...] = ()
    surplus: bytes = b""
    fate: str = ""
    backend: tuple[object, ...] = ()
    peer: str = ""
    probed: bool = False
    log: tuple[object, ...] = ()

    def shown(self) -> dict[str, object]:
        return {
            "client": self.client,
            "surplus": self.surplus,
            "fate": self.fate,
            "backend": self.backend,
            "log": self.log,
        }


@dataclass
class _Connection:
    """One connection of a proxy to the backend."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    data: bytearray = field(default_factory=bytearray)
    answered: int = 0
    probed: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    fate: str = "open"


class Backend:
    """A server that records what it gets and answers as the case in hand says. One case at a time."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._answers: list[Answer] = []
        self._connections: list[_Connection] = []
        self._grew = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def begin(self, answers: tuple[Answer, ...]) -> None:
        self._answers = list(answers)
        self._connections = []

    async def finish(self) -> tuple[object, ...]:
        """End all connections; what came over them."""
        for connection in self._connections:
            if not connection.ended.is_set() and connection.writer.can_write_eof():
                connection.writer.write_eof()
        for connection in self._connections:
            try:
                await asyncio.wait_for(connection.ended.wait(), WAIT)
            except TimeoutError:
                connection.fate = "left open"
            connection.writer.transport.abort()
        seen = [self._seen(connection) for connection in self._connections if connection.data]
        return tuple(one for one in seen if one[0] or one[1])

    async def saw(self, data: bytes) -> bool:
        """Wait until some connection has had ``data``; false if none does."""
        try:
            async with asyncio.timeout(WAIT):
                while not any(data in connection.data for connection in self._connections):
                    self._grew.clear()
                    await self._grew.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.writer.transport.abort()

    def _seen(self, connection: _Connection) -> tuple[object, ...]:
        found, rest = requests(bytes(connection.data))
        shown = tuple(m.shown() for m in found if not m.first.startswith(b"GET /probe "))
        fate = "probed" if connection.probed else connection.fate
        return (shown, rest, fate)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        self._connections.append(connection)
        try:
            while data := await reader.read(1 << 16):
                connection.data += data
                self._grew.set()
                self._answer(connection)
            if connection.fate == "open":
                connection.fate = "closed"
        except ConnectionError:
            if connection.fate == "open":
                connection.fate = "reset"
        finally:
            connection.ended.set()
            writer.close()

    def _answer(self, connection: _Connection) -> None:
        found, _ = requests(bytes(connection.data))
        while connection.answered < len(found):
            request = found[connection.answered]
            if request.first.startswith(b"GET /probe "):
                connection.probed = True
                answer = Answer()
            else:
                answer = self._answers[0] if self._answers else Answer()
                if answer.at == "request" and not request.complete:
                    return
                if self._answers:
                    self._answers.pop(0)
            connection.answered += 1
            _carry_out(connection, answer)


def _carry_out(connection: _Connection, answer: Answer) -> None:
    writer = connection.writer
    if connection.fate != "open":
        return  # It was ended by an earlier answer.
    writer.write(answer.data)
    if answer.then == "close":
        connection.fate = "closed by backend"
        writer.close()
    elif answer.then == "end":
        connection.fate = "ended by backend"
        try:
            writer.write_eof()
        except OSError:
            connection.fate = "reset"  # By the proxy, before our bytes were out.
    elif answer.then == "reset":
        connection.fate = "reset by backend"
        reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


class _Client:
    """A socket without a stream over it, for that one drops what arrived before a reset."""

    def __init__(self, sock: socket.socket) -> None:
        self.data = bytearray()
        self.fate = ""
        self._sock = sock
        self._refused = False

    @classmethod
    async def dial(cls, port: int, address: str = "127.0.0.1") -> _Client:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(sock)

    @property
    def ended(self) -> bool:
        return bool(self.fate)

    async def write(self, data: bytes) -> bool:
        """Whether the proxy's end was still there to take it."""
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self._sock, data), WAIT)
        except ConnectionError:
            self._refused = True
        return not self._refused

    def write_eof(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It was reset meanwhile, which reading tells.

    def close(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    async def more(self) -> bool:
        """Read something; false at the end, of which ``fate`` then speaks."""
        if self.fate:
            return False
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self._sock, 1 << 16), WAIT)
        except ConnectionError:
            self.fate = "reset"
            return False
        except TimeoutError:
            self.fate = "silent"
            return False
        if not data:
            self.fate = "reset" if self._refused else "closed"
            return False
        self.data += data
        return True

    async def finals(self, count: int, heads: frozenset[int]) -> list[Message]:
        """Read until there are ``count`` final responses, the last one complete, or the end."""
        while True:
            found, _ = responses(bytes(self.data), heads, ended=bool(self.fate))
            final = [message for message in found if message.status >= 200 or message.status == 101]
            enough = len(final) >= count and final[count - 1].complete
            if enough or self.fate:
                return found
            await self.more()

    async def to_the_end(self) -> None:
        while await self.more():
            pass


async def play(case: Case, port: int, backend: Backend, address: str) -> Outcome:
    """Play ``case`` against the proxy's listener at ``port``, whose cluster is ``backend``. The client is at
    ``address``, one of the loopback network that it has for itself."""
    backend.begin(case.answers)
    client = await _Client.dial(port, address)
    outcome = Outcome(peer=address)
    await _send(case, client, backend)
    if case.backend_saw and not await backend.saw(case.backend_saw):
        outcome.surplus = b"the backend did not get " + case.backend_saw
    if case.end == "eof":
        client.write_eof()
    if case.end == "probe":
        await _probe(case, client, outcome)
    else:
        await client.to_the_end()
    found, rest = responses(bytes(client.data), case.heads, ended=bool(client.fate))
    if outcome.probed:
        found.pop()
    outcome.client = tuple(message.shown() for message in found)
    outcome.surplus += rest
    outcome.fate = client.fate or "open"
    client.close()
    if not outcome.probed:
        await _probe_again(port)
    outcome.backend = await backend.finish()
    return outcome


async def _send(case: Case, client: _Client, backend: Backend) -> None:
    last = len(case.pieces) - 1
    for number, piece in enumerate(case.pieces):
        if number == last and number and case.backend_saw:
            await backend.saw(case.backend_saw)
        wanted = case.wait_for[number] if number < len(case.wait_for) else b""
        while wanted not in client.data and await client.more():
            pass
        if number == last and case.end == "flush":
            piece += FLUSH
        if not await client.write(piece):
            return
        # Lets the proxy see this piece alone, mostly; what is compared does not depend on it.
        await asyncio.sleep(0)


async def _probe(case: Case, client: _Client, outcome: Outcome) -> None:
    found = await client.finals(case.finals, case.heads)
    if client.ended:
        return
    if found and found[-1].closes:
        await client.to_the_end()
        return
    before = sum(message.status >= 200 for message in found)
    await client.write(PROBE)
    found = await client.finals(case.finals + 1, case.heads)
    if client.fate == "reset":
        # Whether the end or the reset that our bytes provoked is seen first is a race.
        client.fate = "closed"
    if sum(message.status >= 200 for message in found) > before and found[-1].status == 200:
        outcome.probed = True


async def _probe_again(port: int) -> None:
    """The probe on a connection of its own: is the backend's connection used again?"""
    client = await _Client.dial(port)
    await client.write(PROBE)
    await client.finals(1, frozenset())
    client.close()
