"""HTTP/2 on both ends of a sidecar under test: a client and a server that do as they are told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import ngh2

from tests.fakes.sidecar import HOST, WAIT

Fields = list[tuple[str, str]]


@dataclass
class Stream:
    """What came on one stream. ``reset``: the error code of RST_STREAM. ``paused``: its window is left shut."""

    fields: dict[str, str] = field(default_factory=dict)
    interim: list[dict[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] | None = None
    ended: bool = False
    reset: int | None = None
    paused: bool = False
    unread: int = 0


class Http2Peer:
    """One end of a connection. ``streams`` by number; ``goaway``: the error codes of GOAWAY frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: bool) -> None:
        self._reader = reader
        self.writer = writer
        self.h2 = ngh2.Connection(
            ngh2.Role.CLIENT if client else ngh2.Role.SERVER,
            ngh2.Configuration(auto_window_update=False, peer_max_concurrent_streams=1 << 20),
        )
        self.streams: dict[int, Stream] = {}
        self.goaway: list[int] = []
        self.pings = 0
        self.closed = False
        self.on_request: Callable[[int, Stream], Awaitable[None]] | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()

    def start(self, settings: dict[int, int]) -> None:
        """Say hello."""
        self.h2.initiate_connection(settings)
        self.flush()
        self._spawn(self._read())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def flush(self) -> None:
        for event in self.h2.events():
            self._take(event)
        data = self.h2.data_to_send()
        if data and not self.closed:
            self.writer.write(data)
        for event in self.h2.events():
            self._take(event)

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(1 << 16):
                self.h2.receive_data(data)
                self.flush()
                self._tell()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.closed = True
            self._tell()
            self.writer.close()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _take(self, event: object) -> None:
        match event:
            case ngh2.RequestReceived(number, fields, ended):
                stream = self.streams[number] = Stream(_decoded(fields), ended=ended)
                if self.on_request is not None:
                    self._spawn(self.on_request(number, stream))
            case ngh2.ResponseReceived(number, fields, ended):
                self.streams[number].fields = _decoded(fields)
                self.streams[number].ended = ended
            case ngh2.InformationalResponseReceived(number, fields):
                self.streams[number].interim.append(_decoded(fields))
            case ngh2.DataReceived(number, data, ended):
                stream = self.streams[number]
                stream.body += data
                stream.ended = ended
                if stream.paused:
                    stream.unread += len(data)
                else:
                    self.h2.acknowledge_received_data(len(data), number)
            case ngh2.TrailersReceived(number, fields):
                self.streams[number].trailers = _decoded(fields)
                self.streams[number].ended = True
            case ngh2.StreamReset(number, code):
                self.streams.setdefault(number, Stream()).reset = code
            case ngh2.GoAwayReceived(_, code, _):
                self.goaway.append(code)
            case ngh2.PingReceived():
                self.pings += 1

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that a frame brings."""
        async with asyncio.timeout(WAIT):
            while not condition():
                if self.closed:
                    raise ConnectionError(f"closed; GOAWAY {self.goaway}")
                await self._changed.wait()

    def request(
        self, *fields: tuple[str, str], end: bool = True, method: str = "GET", path: str = "/"
    ) -> int:
        """Send a request's head; the number of its stream."""
        given = {name for name, _ in fields}
        pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "svc")]
        head = [item for item in pseudo if item[0] not in given] + [item for item in fields if item[1] != "-"]
        number = self.h2.send_request(_encoded(head), end_stream=end)
        self.streams[number] = Stream()
        self.flush()
        return number

    def send(
        self, number: int, data: bytes = b"", *, end: bool = False, trailers: Fields | None = None
    ) -> None:
        """Send more of a body, as the windows allow."""
        if data or end:
            self.h2.send_data(number, data, end_stream=end)
        if trailers is not None:
            self.h2.send_trailers(number, _encoded(trailers))
        self.flush()

    async def sent(self, number: int) -> None:
        """Wait until all of what was given to ``send`` has gone."""
        await self.writer.drain()
        while self.h2.queued_body_size(number):
            await self.until(lambda: not self.h2.queued_body_size(number))
            await self.writer.drain()

    def respond(self, number: int, *fields: tuple[str, str], status: int = 200, end: bool = False) -> None:
        self.h2.send_response(number, _encoded([(":status", str(status)), *fields]), end_stream=end)
        self.flush()

    def reset(self, number: int, code: int = 8) -> None:
        self.h2.reset_stream(number, code)
        self.flush()

    def read_on(self, number: int) -> None:
        """Open the window of a paused stream."""
        stream = self.streams[number]
        stream.paused = False
        self.h2.acknowledge_received_data(stream.unread, number)
        stream.unread = 0
        self.flush()

    async def response(self, number: int) -> Stream:
        """Wait for all of a response."""
        stream = self.streams[number]
        await self.until(lambda: stream.ended or stream.reset is not None)
        return stream

    def close(self) -> None:
        self.writer.transport.abort()


def _decoded(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, value in fields:
        key = name.decode()
        made[key] = f"{made[key]}, {value.decode('latin-1')}" if key in made else value.decode("latin-1")
    return made


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in fields]


def _settings(named: dict[str, int]) -> dict[int, int]:
    return {ngh2.Setting[name.upper()]: value for name, value in named.items()}


async def dial_http2(port: int, tls: ssl.SSLContext | None = None, **settings: int) -> Http2Peer:
    """Connect by prior knowledge, or by ALPN."""
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection(HOST, port, ssl=tls, server_hostname="" if tls else None), WAIT
    )
    peer = Http2Peer(reader, writer, client=True)
    peer.start(_settings(settings))
    return peer


Serve = Callable[[Http2Peer, int, Stream], Awaitable[None]]


async def hello(peer: Http2Peer, number: int, stream: Stream) -> None:
    """Answer 200 and ``ok`` when all of the request is there."""
    await peer.until(lambda: stream.ended or stream.reset is not None)
    if stream.reset is None:
        peer.respond(number, ("content-length", "2"))
        peer.send(number, b"ok", end=True)


class Http2Backend:
    """A server. ``peers`` are its connections, in order."""

    def __init__(self, serve: Serve, settings: dict[str, int]) -> None:
        self._serve = serve
        self._settings = settings
        self.peers: list[Http2Peer] = []
        self.port = 0

    @property
    def streams(self) -> list[Stream]:
        """All, in order."""
        return [stream for peer in self.peers for stream in peer.streams.values()]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Http2Peer(reader, writer, client=False)
        self.peers.append(peer)

        async def serve(number: int, stream: Stream) -> None:
            try:
                await self._serve(peer, number, stream)
            except ConnectionError:
                pass

        peer.on_request = serve
        peer.start(_settings(self._settings))


@asynccontextmanager
async def http2_backend(
    serve: Serve = hello, tls: ssl.SSLContext | None = None, **settings: int
) -> AsyncIterator[Http2Backend]:
    made = Http2Backend(serve, settings)
    server = await asyncio.start_server(made.accept, HOST, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for peer in made.peers:
            peer.close()
