"""Exchanges between transports that the test plays: who is paused when, what is reused, how connections end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.model.connection import ConnectionInfo
from proxy.model.route import RequestBuffers, RetryPolicy, Route
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.stream.downstream import Downstream
from proxy.stream.edge import HttpEdge
from proxy.tls.store import SecretStore
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool
from tests.fakes.sidecar import chain, cluster, config, direct, forward, http, listener

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class FakeTransport:
    """Takes everything; calls ``pause_writing`` in the very write that goes beyond ``room`` bytes, as loops may."""

    room: float = float("inf")
    application: Any = None
    written: bytearray = field(default_factory=bytearray)
    reading: bool = True
    events: list[str] = field(default_factory=list)
    full: bool = False

    def write(self, data: bytes) -> None:
        self.written += data
        if len(self.written) > self.room and not self.full:
            self.full = True
            self.application.pause_writing()

    def drain(self) -> bytes:
        """The peer reads everything."""
        taken = bytes(self.written)
        self.written.clear()
        if self.full:
            self.full = False
            self.application.resume_writing()
        return taken

    def write_eof(self) -> None:
        self.events.append("eof")

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.events or "abort" in self.events

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1)

    def get_write_buffer_size(self) -> int:
        return len(self.written)


class Stage:
    """One downstream connection and one pooled upstream connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *routes: Route,
        upstream: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.hub = Hub(CompileEnv())
        self.hub.apply(
            config(listener(chain(http(*routes, **options))), cluster("up", 1, **(upstream or {})))
        )
        self.state = LoopState(loop, self.hub, SecretStore())
        self.pool = Pool(self.state)
        self.cluster = self.hub.current.clusters["up"]
        self.host = self.cluster.hosts[0]
        self.up, self.upstream = self.connect_upstream()
        self.down, self.client = self.connect_client()

    def connect_client(self, room: float = float("inf")) -> tuple[Downstream, FakeTransport]:
        compiled = self.hub.current.listeners["l"].chains[0]
        assert compiled.http is not None
        info = ConnectionInfo(("127.0.0.1", 2), ("127.0.0.1", 3), "l", 1)
        edge = HttpEdge(compiled.http)
        down = Downstream(self.state, self.pool, info, self.hub.current, compiled, edge, lambda: None)
        transport = FakeTransport(room, down)
        down.connection_made(transport)
        return down, transport

    def connect_upstream(self) -> tuple[UpstreamConnection, FakeTransport]:
        connection = UpstreamConnection(self.pool, self.cluster, self.host)
        transport = FakeTransport(application=connection)
        connection.connection_made(transport)
        connection.pooled = True
        self.host.cx_active += 1
        self.cluster.breaker.active_connections += 1
        self.cluster.stats.upstream_cx_active += 1
        connection.idle_since = self.state.now
        self.host.idle.append(connection)
        return connection, transport

    def tick(self, seconds: float) -> None:
        """Time passes and the sweeper comes."""
        self.state.now += seconds
        for exchange in list(self.state.exchanges):
            exchange.sweep(self.state.now)
        for connection in list(self.state.connections):
            connection.sweep(self.state.now)


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    loop = asyncio.new_event_loop()
    yield lambda *routes, **options: Stage(loop, *(routes or (forward("/", "up"),)), **options)
    loop.close()


def test_one_write_for_each_event(stage: Callable[..., Stage]) -> None:
    it = stage()
    writes = []
    it.client.write = lambda data: writes.append(data)  # type: ignore[method-assign]
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    assert it.upstream.written.endswith(b"\r\n\r\nabc")
    it.up.data_received(OK)
    assert len(writes) == 1 and writes[0].endswith(b"\r\n\r\nok")
    assert it.host.idle == [it.up]


def test_a_full_client_pauses_its_server_until_it_reads(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.client.room = 300
    it.down.data_received(GET)
    it.up.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 400)
    assert not it.upstream.reading
    it.client.drain()
    assert it.upstream.reading
    it.up.data_received(b"x" * 600)
    assert it.host.idle == [it.up] and it.upstream.reading


@pytest.mark.parametrize("pieces", [(OK,), (OK[:-2], b"ok"), (OK[:-2], b"o", b"k")])
def test_the_last_bytes_never_pause_a_connection_that_was_given_back(
    stage: Callable[..., Stage], pieces: tuple[bytes, ...]
) -> None:
    """Nobody would ever resume it, and the next request on it would hang."""
    it = stage()
    it.client.room = 0
    it.down.data_received(GET)
    for piece in pieces:
        it.up.data_received(piece)
    assert it.host.idle == [it.up] and it.upstream.reading


def test_a_full_server_pauses_its_client_until_it_reads(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.upstream.room = 300
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400)
    assert not it.client.reading
    it.upstream.drain()
    assert it.client.reading
    it.down.data_received(b"x" * 600)
    assert not it.client.reading
    it.upstream.drain()
    assert it.client.reading
    it.up.data_received(OK)
    assert it.client.written.endswith(b"ok") and it.host.idle == [it.up]


def test_a_server_that_answers_without_reading_is_not_used_again(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.upstream.room = 300
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n" + b"x" * 400)
    it.up.data_received(OK)
    assert it.client.written.endswith(b"ok") and it.client.reading and it.host.idle == []


def test_pipelined_requests_wait_for_a_client_that_does_not_read(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.client.room = 50
    it.down.data_received(GET * 3)
    assert not it.client.reading
    it.up.data_received(OK)
    assert it.upstream.written.count(b"GET / ") == 1, "the second waits: the client is full"
    it.client.drain()
    assert it.upstream.written.count(b"GET / ") == 2
    it.up.data_received(OK)
    it.client.drain()
    it.up.data_received(OK)
    assert it.client.drain().count(b"200 OK") == 1 and it.client.reading


def test_pipelined_local_replies_wait_too(stage: Callable[..., Stage]) -> None:
    it = stage(direct("/", 200, b"x" * 1000))
    it.client.room = 3000
    it.down.data_received(GET * 100)
    assert len(it.client.written) < 6000 and not it.client.reading
    answered = 0
    while it.client.written:
        answered += it.client.drain().count(b"200 OK")
    assert answered == 100 and it.client.reading


def test_requests_that_come_early_are_held_and_answered_in_order(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.down.data_received(GET)
    it.down.data_received(b"GET /2 HTTP/1.1\r\nHost: a\r\n")
    assert not it.client.reading
    it.up.data_received(OK)
    assert it.client.reading and it.upstream.written.count(b"GET") == 1
    it.down.data_received(b"\r\n")
    assert it.upstream.written.count(b"GET") == 2


@pytest.mark.parametrize("pieces", [(OK + b"x",), (OK[:-2], b"okx"), (OK[:-1], b"kHTTP/1.1 200 OK\r\n")])
def test_surplus_bytes_end_the_connection_and_reach_nobody(
    stage: Callable[..., Stage], pieces: tuple[bytes, ...]
) -> None:
    it = stage()
    it.down.data_received(GET)
    for piece in pieces:
        it.up.data_received(piece)
    assert it.client.written.endswith(b"\r\n\r\nok")
    assert it.host.idle == [] and it.upstream.events == ["close"]


def test_bytes_on_an_idle_connection_end_it(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.up.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert it.host.idle == [] and it.upstream.events == ["close"]
    assert it.cluster.breaker.active_connections == 0


def test_the_end_of_an_idle_connection_takes_it_out_at_once(stage: Callable[..., Stage]) -> None:
    it = stage()
    assert not it.up.eof_received()
    assert it.host.idle == [] and it.host.cx_active == 0
    it.up.connection_lost(None)
    assert it.host.cx_active == 0


def test_an_early_response_lingers_and_closes(stage: Callable[..., Stage]) -> None:
    it = stage(delayed_close_timeout=1.0)
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    it.up.data_received(OK)
    assert b"\r\nconnection: close\r\n" in it.client.written
    assert it.host.idle == [] and it.upstream.events == ["abort"]
    # A close would make the kernel send a reset, which takes the response from the client that still sends.
    assert it.client.events == ["eof"] and it.client.reading
    it.down.data_received(b"x" * 1000)
    it.down.data_received(GET)
    it.client.written.clear()
    it.tick(0.5)
    assert it.client.events == ["eof"] and not it.client.written
    it.tick(1.0)
    assert it.client.events == ["eof", "abort"]


def test_a_refused_tunnel_lingers(stage: Callable[..., Stage]) -> None:
    """The client may have sent bytes for the far end already."""
    it = stage()
    it.down.data_received(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")
    assert b" 404 " in it.client.written or b" 403 " in it.client.written
    assert it.client.events == ["eof"] and it.client.reading


def test_a_slow_client_gets_its_last_bytes(stage: Callable[..., Stage]) -> None:
    it = stage(direct("/", 200, b"x" * 1000), delayed_close_timeout=1.0)
    it.down.data_received(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert it.client.events == ["close"]
    for _ in range(3):
        del it.client.written[:100]
        it.tick(1.1)
        assert it.client.events == ["close"]
    it.tick(1.1)
    assert it.client.events == ["close", "abort"]


def test_draining_closes_after_the_next_response(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.state.draining = True
    it.down.data_received(GET)
    it.up.data_received(OK)
    assert b"\r\nconnection: close\r\n" in it.client.written and it.client.events == ["close"]


def test_the_route_timeout_counts_from_the_end_of_the_request(stage: Callable[..., Stage]) -> None:
    it = stage(forward("/", "up", timeout=5.0), stream_idle_timeout=0.0)
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
    it.tick(100.0)
    assert not it.client.written
    it.down.data_received(b"x")
    it.tick(-100.0 + 4.0)
    assert not it.client.written
    it.tick(2.0)
    assert it.client.written.startswith(b"HTTP/1.1 504 ") and it.upstream.events == ["abort"]


def test_a_request_is_sent_again_as_it_was(stage: Callable[..., Stage]) -> None:
    policy = RetryPolicy(("reset",), num_retries=1, base_interval=0.0)
    it = stage(forward("/", "up", retry_policy=policy))
    second, other = it.connect_upstream()
    request = b"POST / HTTP/1.1\r\nHost: a\r\nx-request-id: r\r\nContent-Length: 6\r\n\r\n"
    it.down.data_received(request + b"abc")
    it.down.data_received(b"def")
    assert other.written.endswith(b"abcdef")
    second.connection_lost(None)
    it.state.loop.run_until_complete(asyncio.sleep(0.01))
    assert bytes(it.upstream.written) == bytes(other.written)
    it.up.data_received(OK)
    assert it.client.written.endswith(b"ok")
    assert (it.cluster.breaker.retries, it.cluster.breaker.active_requests, it.host.active) == (0, 0, 0)


@pytest.mark.parametrize(
    ("buffers", "listener_limit", "limit"),
    [
        (RequestBuffers(), 1 << 20, 1 << 20),
        (RequestBuffers(100), 1 << 20, 100),
        (RequestBuffers(2 << 20), 1 << 20, 1 << 20),
        (RequestBuffers(None, 2 << 20), 1 << 20, 2 << 20),
        (RequestBuffers(None, 0), 1 << 20, 0),
    ],
)
def test_what_may_be_kept_of_a_request(buffers: RequestBuffers, listener_limit: int, limit: int) -> None:
    assert buffers.limit(listener_limit) == limit


@pytest.mark.parametrize("size", [200_000, 200_001])
def test_a_request_is_kept_as_far_as_the_listener_allows(stage: Callable[..., Stage], size: int) -> None:
    policy = RetryPolicy(("reset",), num_retries=1, base_interval=0.0)
    it = stage(forward("/", "up", retry_policy=policy))
    chain = it.hub.current.listeners["l"].chains[0]
    assert chain.http is not None and chain.http.buffer_limit == 1 << 20
    object.__setattr__(chain.http, "buffer_limit", 200_000)
    second, other = it.connect_upstream()
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    for at in range(0, size, 1000):
        it.down.data_received(b"x" * min(1000, size - at))
    sent = bytes(other.written)
    second.connection_lost(None)
    it.state.loop.run_until_complete(asyncio.sleep(0.01))
    again = size == 200_000
    assert it.cluster.stats.upstream_rq_retry == again
    assert it.cluster.stats.retry_or_shadow_abandoned == (not again)
    assert bytes(it.upstream.written) == (sent if again else b"")


def test_a_request_too_long_to_keep_is_tried_once(stage: Callable[..., Stage]) -> None:
    policy = RetryPolicy(("reset",), num_retries=5)
    it = stage(forward("/", "up", retry_policy=policy))
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n")
    for _ in range(20):
        it.down.data_received(b"x" * 100_000)
    it.up.connection_lost(None)
    assert it.client.written.startswith(b"HTTP/1.1 503 ")
    assert it.cluster.stats.upstream_rq_retry == 0


def test_a_client_that_leaves_ends_its_exchange(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.down.data_received(GET)
    it.down.connection_lost(None)
    assert it.upstream.events == ["abort"] and not it.state.exchanges and not it.state.connections
    stats = it.hub.current.stats.http["test"]
    assert (stats.downstream_rq_rx_reset, stats.downstream_rq_active, stats.downstream_cx_active) == (1, 0, 0)
    assert (it.cluster.breaker.active_requests, it.cluster.breaker.active_connections) == (0, 0)


def test_idle_connections_end_after_their_time(stage: Callable[..., Stage]) -> None:
    it = stage(idle_timeout=10.0)
    it.tick(9.0)
    assert it.client.events == []
    it.tick(2.0)
    assert it.client.events == ["close"]
    assert it.hub.current.stats.http["test"].downstream_cx_idle_timeout == 1
    it.pool._connections.add(it.up)
    it.pool.sweep(it.state.now)
    assert it.upstream.events == []
    it.pool.sweep(it.state.now + 3600.0)
    assert it.upstream.events == ["close"]


def test_a_removed_host_keeps_no_connection(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.down.data_received(GET)
    it.host.removed = True
    it.up.data_received(OK)
    assert it.client.written.endswith(b"ok") and it.host.idle == [] and it.upstream.events == ["close"]


def test_a_connection_serves_so_many_requests(stage: Callable[..., Stage]) -> None:
    it = stage(max_requests_per_connection=2)
    for n, closes in ((1, False), (2, True)):
        it.down.data_received(GET)
        it.up.data_received(OK)
        assert (b"connection: close" in it.client.written) is closes, n
    assert it.client.events == ["close"]


def test_a_certificate_line_is_made_once_for_a_connection(stage: Callable[..., Stage]) -> None:
    it = stage()
    assert it.down.client_certificate_line(None) == b""
    assert it.down.client_certificate_line(b"By=evil") == b""


def test_a_spent_connection_is_not_given_to_a_request_that_waits() -> None:
    loop = asyncio.new_event_loop()
    try:
        it = Stage(loop, forward("/", "up"), upstream={"max_requests_per_connection": 1})
        it.down.data_received(GET)
        other, _ = it.connect_client()
        other.data_received(GET)
        it.up.data_received(OK)
        assert it.client.written.endswith(b"ok")
        assert it.upstream.written.count(b"GET / ") == 1 and "close" in it.upstream.events
        assert it.cluster.stats.upstream_cx_max_requests == 1
        assert it.cluster.stats.upstream_rq_pending_active == 1, "it waits for a connection of its own"
    finally:
        it.pool.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_a_client_that_does_not_read_starts_nothing_new(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.client.room = 10
    it.down.data_received(GET)
    it.up.data_received(OK)
    assert it.client.full and it.host.idle == [it.up]
    it.upstream.drain()
    it.down.data_received(GET)
    it.down.data_received(GET)
    assert not it.upstream.written and not it.client.reading
    it.client.drain()
    assert it.upstream.written.count(b"GET / ") == 1
    it.up.data_received(OK)
    it.client.drain()
    it.up.data_received(OK)
    assert it.client.drain().endswith(b"ok") and it.client.reading


def test_a_client_that_is_full_before_there_is_a_server_pauses_that_server(
    stage: Callable[..., Stage],
) -> None:
    it = stage()
    it.client.room = 10
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert it.client.full and not it.upstream.reading
    it.client.drain()
    assert it.upstream.reading


def test_a_response_cut_short_begins_no_pipelined_request(stage: Callable[..., Stage]) -> None:
    it = stage(direct("/direct", 200, b"mine"), forward("/", "up"))
    it.down.data_received(GET + b"GET /direct HTTP/1.1\r\nHost: a\r\n\r\n")
    it.up.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
    it.up.connection_lost(None)
    assert it.client.written.endswith(b"\r\n\r\nabc") and "abort" in it.client.events
    assert it.hub.current.listeners["l"].chains[0].http.stats.downstream_rq_total == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [204, 304])
def test_a_reply_that_can_have_no_body_has_none(stage: Callable[..., Stage], status: int) -> None:
    it = stage(direct("/", status, b"HTTP/1.1 200 OK\r\n\r\n"))
    it.down.data_received(GET)
    assert it.client.written.endswith(b"\r\n\r\n") and it.client.written.count(b"HTTP/1.1") == 1


def test_what_nobody_waits_for_is_not_sent(stage: Callable[..., Stage]) -> None:
    """A server that answered what it does not read keeps no connection of ours open."""
    it = stage()
    it.upstream.room = 10
    it.down.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
    it.up.data_received(OK)
    assert it.upstream.events == ["abort"]


def test_an_interim_response_says_nothing_of_the_servers_connection(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.down.data_received(GET)
    it.up.data_received(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: close, x-hop\r\nkeep-alive: 5\r\nx-hop: 1\r\n\r\n"
    )
    assert it.client.written == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
