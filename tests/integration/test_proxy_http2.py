"""HTTP/2 with clients and with hosts, in every combination with HTTP/1.1, and with each engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.model.http2 import Http2Keepalive, Http2Options
from proxy.model.route import RetryPolicy
from tests.fakes.http2 import Http2Backend, Http2Peer, Stream, dial_http2, hello, http2_backend
from tests.fakes.sidecar import (
    HOST,
    Peer,
    Sidecar,
    backend,
    chain,
    cluster,
    dial,
    direct,
    eventually,
    forward,
    http,
    listener,
    sidecar,
)
from tests.support.h2_engines import engine

__all__ = ["engine"]

pytestmark = pytest.mark.usefixtures("engine")

GRPC = ("content-type", "application/grpc"), ("te", "trailers")


@asynccontextmanager
async def through(port: int, protocol: str = "HTTP2", **options: object) -> AsyncIterator[Sidecar]:
    up = cluster("up", port, protocol=protocol)
    async with sidecar(up, listener(chain(http(forward("/", "up", **options))))) as made:
        yield made


async def test_from_http2_to_http2() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        await peer.until(lambda: stream.ended)
        peer.respond(number, ("content-type", "application/grpc"), ("x-a", "1"), ("x-a", "2"))
        peer.send(number, bytes(stream.body)[::-1], trailers=[("grpc-status", "0"), ("grpc-message", "fine")])

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        number = client.request(
            *GRPC, ("cookie", "a=1"), ("cookie", "b=2"), method="POST", path="/s/M", end=False
        )
        client.send(number, b"abc", end=True)
        answer = await client.response(number)
        assert (answer.fields[":status"], bytes(answer.body)) == ("200", b"cba")
        assert answer.trailers == {"grpc-status": "0", "grpc-message": "fine"}
        (seen,) = app.streams
        assert seen.fields[":method"] == "POST" and seen.fields[":path"] == "/s/M"
        assert seen.fields[":authority"] == "svc" and seen.fields["te"] == "trailers"
        assert "host" not in seen.fields and "x-request-id" in seen.fields
        assert it.http_stats().downstream_rq_http2_total == it.http_stats().downstream_cx_http2_total == 1
        assert it.cluster_stats("up").upstream_cx_http2_total == 1
        client.close()


async def test_from_http2_to_http1() -> None:
    async def serve(peer: Peer) -> None:
        head = await peer.until(b"\r\n\r\n")
        assert b"cookie: a=1; b=2\r\n" in head and b"transfer-encoding: chunked\r\n" in head
        body = await peer.chunked()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n")
        peer.send(b"%x\r\n%b\r\n0\r\nx-trailer: t\r\n\r\n" % (len(body), body))

    async with backend(serve) as app, through(app.port, "HTTP1") as it:
        client = await dial_http2(it.port)
        number = client.request(("cookie", "a=1"), ("cookie", "b=2"), method="POST", end=False)
        client.send(number, b"abc")
        client.send(number, b"def", trailers=[("x-end", "1")])
        answer = await client.response(number)
        assert bytes(answer.body) == b"abcdef"
        assert answer.trailers == {"x-trailer": "t"}
        assert not {"transfer-encoding", "connection", "x-hop"} & set(answer.fields)
        assert app.all.endswith(b"0\r\nx-end: 1\r\n\r\n")
        client.close()


async def test_from_http1_to_http2() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        await peer.until(lambda: stream.ended)
        peer.respond(number)
        peer.send(number, bytes(stream.body), trailers=[("x-sum", "9")])

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial(it.port)
        client.send(
            b"POST /a?b HTTP/1.1\r\nHost: Svc\r\nTransfer-Encoding: chunked\r\nX-Thing: A\r\nTE: trailers, gzip\r\n"
            b"Connection: te\r\n\r\n3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n"
        )
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"transfer-encoding: chunked\r\n" in head
        assert await client.until(b"\r\n\r\n") == b"3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n"
        (seen,) = app.streams
        assert (seen.fields[":path"], seen.fields[":authority"]) == ("/a?b", "Svc")
        assert (seen.fields["x-thing"], seen.fields["te"]) == ("A", "trailers")
        assert seen.trailers == {"x-end": "1"} and bytes(seen.body) == b"abc"
        assert not {"connection", "transfer-encoding", "host"} & set(seen.fields)
        # The connection serves the next one as well.
        client.send(b"GET / HTTP/1.1\r\nHost: svc\r\n\r\n")
        assert (await client.response())[0] == 200
        assert len(app.peers) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("protocol", ["HTTP1", "HTTP2"])
async def test_answers_without_a_body(method: str, status: int, protocol: str) -> None:
    async def serve(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            length = b"content-length: 0\r\n" if status == 200 else b""
            peer.send(b"HTTP/1.1 %d Fine\r\n%b\r\n" % (status, length))

    async def serve2(peer: Http2Peer, number: int, stream: Stream) -> None:
        peer.respond(number, status=status, end=True)

    async with (
        backend(serve) as old,
        http2_backend(serve2) as new,
        through(old.port if protocol == "HTTP1" else new.port, protocol) as it,
    ):
        client = await dial_http2(it.port)
        for _ in range(2):
            answer = await client.response(client.request(method=method))
            assert (answer.fields[":status"], bytes(answer.body), answer.reset) == (
                str(status),
                b"",
                None,
            )
        plain = await dial(it.port)
        for _ in range(2):
            plain.send(method.encode() + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await plain.response(head=method == "HEAD"))[0] == status


async def test_local_replies() -> None:
    async with sidecar(listener(chain(http(direct("/", 418, b"short and stout"))))) as it:
        client = await dial_http2(it.port)
        numbers = [client.request(method=method) for method in ("GET", "HEAD")]
        get, head = [await client.response(number) for number in numbers]
        assert (get.fields[":status"], bytes(get.body)) == ("418", b"short and stout")
        assert (head.fields[":status"], head.fields["content-length"], bytes(head.body)) == ("418", "15", b"")
        # One with a body that is not read: the answer comes, then the stream is closed.
        number = client.request(method="POST", end=False)
        answer = await client.response(number)
        await client.until(lambda: answer.reset is not None)
        assert (answer.fields[":status"], answer.ended, answer.reset) == ("418", True, 0)
        assert it.http_stats().downstream_rq_active == 0


async def test_many_streams_share_one_connection() -> None:
    arrived = asyncio.Event()
    waiting: list[int] = []

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        waiting.append(number)
        if len(waiting) == 500:
            arrived.set()
        await arrived.wait()
        await hello(peer, number, stream)

    async with http2_backend(serve, max_concurrent_streams=1000) as app, through(app.port) as it:
        clients = [await dial_http2(it.port) for _ in range(5)]
        numbers = [(client, client.request()) for _ in range(100) for client in clients]
        answers = [await client.response(number) for client, number in numbers]
        assert all(bytes(answer.body) == b"ok" for answer in answers)
        assert len(app.peers) == 1


async def test_a_host_that_takes_few_streams_gets_more_connections() -> None:
    held: list[tuple[Http2Peer, int, Stream]] = []

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        held.append((peer, number, stream))

    async with http2_backend(serve, max_concurrent_streams=2) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        first = client.request()
        await eventually(lambda: len(held) == 1)
        more = [client.request() for _ in range(4)]
        await eventually(lambda: len(held) == 5)
        assert sorted(len(peer.streams) for peer in app.peers) == [1, 2, 2]
        for peer, number, stream in held:
            await hello(peer, number, stream)
        for number in (first, *more):
            assert bytes((await client.response(number)).body) == b"ok"
        assert it.cluster_stats("up").upstream_rq_active == 0


async def test_a_client_that_resets_frees_the_host() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        peer.respond(number)
        peer.send(number, b"begun")

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        number = client.request()
        await client.until(lambda: client.streams[number].body)
        client.reset(number)
        await eventually(lambda: bool(app.streams) and app.streams[0].reset == 8)
        assert it.http_stats().downstream_rq_active == it.cluster_stats("up").upstream_rq_active == 0
        # Nobody else on either connection is concerned.
        other = client.request()
        await client.until(lambda: client.streams[other].body)
        assert len(app.peers) == 1


async def test_a_host_that_resets_before_and_after_its_answer_began() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        if stream.fields[":path"] == "/late":
            peer.respond(number)
            peer.send(number, b"begun")
        peer.reset(number, 2)

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        early = await client.response(client.request(path="/early"))
        assert early.fields[":status"] == "503"
        late = await client.response(client.request(path="/late"))
        assert (late.fields[":status"], late.ended) == ("200", False)
        assert late.reset is not None
        assert it.cluster_stats("up").upstream_rq_rx_reset == 2


async def test_a_host_that_goes_away_finishes_what_it_took_and_gets_no_more() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        if stream.fields[":path"] == "/last":
            peer.h2.send_goaway(last_stream_id=number)
            peer.flush()
        await hello(peer, number, stream)

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        assert bytes((await client.response(client.request(path="/last"))).body) == b"ok"
        assert bytes((await client.response(client.request(path="/next"))).body) == b"ok"
        assert len(app.peers) == 2
        assert it.cluster_stats("up").upstream_cx_close_notify == 1
        await eventually(lambda: it.cluster_stats("up").upstream_cx_active == 1)


async def test_a_response_with_the_goodbye_in_one_read_is_whole() -> None:
    """Then the connection is over for the codec before anybody was told of the response."""

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        peer.h2.send_response(number, [(b":status", b"200")])
        peer.h2.send_data(number, b"all of it")
        peer.h2.send_trailers(number, [(b"grpc-status", b"0")])
        peer.h2.send_goaway()
        peer.flush()

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        for _ in range(3):
            answer = await client.response(client.request())
            assert bytes(answer.body) == b"all of it"
            assert answer.trailers == {"grpc-status": "0"} and answer.reset is None
        assert it.cluster_stats("up").upstream_cx_protocol_error == 0
        await eventually(lambda: it.cluster_stats("up").upstream_cx_active == 0)


async def test_a_response_before_the_end_of_its_connection_is_whole() -> None:
    """The codec can say nothing more after a head above its limit; but the response in the same read was in order."""
    asked: list[int] = []

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        asked.append(number)
        if len(asked) == 2:
            peer.h2.send_response(asked[0], [(b":status", b"200")], end_stream=True)
            # A field of 4,000 bytes, and 400 times the same by its index.
            block = b"\x88\x40\x01x\x7f\xa1\x1e" + b"a" * 4000 + b"\xbe" * 400
            head = len(block).to_bytes(3) + b"\x01\x05" + asked[1].to_bytes(4)
            peer.writer.write(peer.h2.data_to_send() + head + block)

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        first, second = client.request(), client.request()
        assert (await client.response(first)).fields[":status"] == "200"
        assert (await client.response(second)).fields[":status"] == "502"
        assert it.cluster_stats("up").upstream_cx_protocol_error == 1
        await eventually(lambda: it.cluster_stats("up").upstream_cx_active == 0)


async def test_refused_streams_are_tried_again() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        if len(peer.streams) == 1:
            peer.reset(number, 7)
        else:
            await hello(peer, number, stream)

    policy = RetryPolicy(("refused-stream",), num_retries=1, base_interval=0.0)
    async with http2_backend(serve) as app, through(app.port, retry_policy=policy) as it:
        client = await dial_http2(it.port)
        assert bytes((await client.response(client.request())).body) == b"ok"
        assert it.cluster_stats("up").upstream_rq_retry == 1


@pytest.mark.parametrize("protocol", ["HTTP1", "HTTP2"])
async def test_a_client_that_does_not_read_bounds_what_is_buffered(protocol: str) -> None:
    """Its window shuts, the host's follows; and another stream of the same connection goes on."""
    size = 64 << 20
    sent = [0]

    async def old(peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            if b"/big" not in head:
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                continue
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size // 65536):
                peer.send(bytes(65536))
                sent[0] += 65536
                await peer.writer.drain()

    async def new(peer: Http2Peer, number: int, stream: Stream) -> None:
        if stream.fields[":path"] != "/big":
            await hello(peer, number, stream)
            return
        peer.respond(number)

        for _ in range(size // 65536):
            peer.send(number, bytes(65536))
            await peer.sent(number)
            sent[0] += 65536
        peer.send(number, end=True)

    async with (
        backend(old) as one,
        http2_backend(new) as two,
        through(one.port if protocol == "HTTP1" else two.port, protocol) as it,
    ):
        client = await dial_http2(it.port, initial_window_size=1 << 16)
        client.h2.set_local_window_size(1 << 20)
        number = client.request(path="/big")
        client.streams[number].paused = True
        stats = it.cluster_stats("up")
        await eventually(lambda: stats.upstream_flow_control_paused_reading_total == 1)
        assert len(client.streams[number].body) <= 1 << 16
        other = client.request(path="/small")
        assert bytes((await client.response(other)).body) == b"ok"
        before = sent[0]
        assert before < size // 2
        client.read_on(number)
        async with asyncio.timeout(60):
            await client.response(number)
        assert len(client.streams[number].body) == size
        assert stats.upstream_flow_control_resumed_reading_total >= 1


async def test_a_host_that_does_not_read_holds_its_client_back() -> None:
    release = asyncio.Event()

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        stream.paused = True
        await release.wait()
        peer.read_on(number)
        await hello(peer, number, stream)

    size = 24 << 20
    async with http2_backend(serve, initial_window_size=1 << 16) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        number = client.request(method="POST", end=False)
        await eventually(lambda: bool(app.streams))
        client.send(number, bytes(size))
        stats = it.cluster_stats("up")
        await eventually(lambda: stats.upstream_flow_control_backed_up_total == 1)
        # What is on its way: the window that the sidecar gave, at most.
        assert client.h2.queued_body_size(number) >= size - (16 << 20)
        release.set()
        await client.sent(number)
        client.send(number, end=True)
        assert bytes((await client.response(number)).body) == b"ok"
        assert len(app.streams[0].body) == size


async def test_draining_says_goodbye_and_serves_what_is_under_way() -> None:
    release = asyncio.Event()

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        await release.wait()
        await hello(peer, number, stream)

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        idle = await dial_http2(it.port)
        number = client.request()
        await eventually(lambda: bool(app.streams))
        for connection in list(it.worker._state.connections):  # type: ignore[attr-defined]
            connection.drain()
        await idle.until(lambda: idle.goaway)
        await client.until(lambda: client.goaway)
        assert client.goaway == [0] and set(idle.goaway) == {0}
        release.set()
        assert bytes((await client.response(number)).body) == b"ok"


async def test_requests_go_on_in_the_version_that_they_came_in() -> None:
    versions: list[str] = []

    async def old(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            versions.append("HTTP/1.1")
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def new(peer: Http2Peer, number: int, stream: Stream) -> None:
        versions.append("HTTP/2")
        peer.respond(number, end=True)

    async def either(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(3)
        reader._buffer[:0] = first  # type: ignore[attr-defined]
        if first == b"PRI":
            await Http2Backend(new, {}).accept(reader, writer)
        else:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await old(Peer(reader, writer))

    server = await asyncio.start_server(either, HOST, 0)
    async with server, through(server.sockets[0].getsockname()[1], "DOWNSTREAM") as it:
        one, two = await dial(it.port), await dial_http2(it.port)
        for _ in range(2):
            one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await one.response())[0] == 200
            assert (await two.response(two.request())).fields[":status"] == "200"
        assert versions == ["HTTP/1.1", "HTTP/2"] * 2
        stats = it.cluster_stats("up")
        assert stats.upstream_cx_http1_total == stats.upstream_cx_http2_total == 1
        one.close()
        two.close()


@pytest.mark.parametrize("protocol", ["HTTP1", "HTTP2"])
async def test_a_websocket_from_http2(protocol: str) -> None:
    """Extended CONNECT (RFC 8441); to HTTP/1.1 it is an upgrade."""

    async def old(peer: Peer) -> None:
        head = await peer.until(b"\r\n\r\n")
        assert head.startswith(b"GET /chat HTTP/1.1\r\n")
        assert b"upgrade: websocket\r\n" in head and b"connection: upgrade\r\n" in head
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi ")
        peer.send(await peer.exactly(5))

    async def new(peer: Http2Peer, number: int, stream: Stream) -> None:
        assert (stream.fields[":method"], stream.fields[":protocol"]) == ("CONNECT", "websocket")
        peer.respond(number)
        peer.send(number, b"hi ")
        await peer.until(lambda: len(stream.body) == 5)
        peer.send(number, bytes(stream.body), end=True)

    async with backend(old) as one, http2_backend(new, enable_connect_protocol=1) as two:
        up = cluster("up", one.port if protocol == "HTTP1" else two.port, protocol=protocol)
        manager = http(
            forward("/", "up"), upgrade_types=("websocket",), http2=Http2Options(allow_connect=True)
        )
        async with sidecar(up, listener(chain(manager))) as it:
            client = await dial_http2(it.port)
            number = client.request((":protocol", "websocket"), method="CONNECT", path="/chat", end=False)
            stream = client.streams[number]
            await client.until(lambda: bytes(stream.body) == b"hi ")
            assert stream.fields[":status"] == "200"
            client.send(number, b"there")
            await client.until(lambda: bytes(stream.body) == b"hi there")
            assert it.http_stats().downstream_cx_upgrades_total == 1
            client.reset(number)
            await eventually(lambda: it.http_stats().downstream_rq_active == 0)


async def test_a_websocket_from_http1_to_http2() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        assert (stream.fields[":method"], stream.fields[":protocol"]) == ("CONNECT", "websocket")
        peer.respond(number)
        await peer.until(lambda: bytes(stream.body) == b"ping")
        peer.send(number, b"pong", end=True)

    async with http2_backend(serve, enable_connect_protocol=1) as app:
        manager = http(forward("/", "up"), upgrade_types=("websocket",))
        async with sidecar(cluster("up", app.port, protocol="HTTP2"), listener(chain(manager))) as it:
            client = await dial(it.port)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            head = await client.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ") and b"upgrade: websocket\r\n" in head
            client.send(b"ping")
            assert await client.rest() == b"pong"


async def test_interim_responses_and_continue() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        peer.h2.send_informational_response(number, [(b":status", b"103"), (b"link", b"</x>")])
        await hello(peer, number, stream)

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        number = client.request(("expect", "100-continue"), method="POST", end=False)
        await client.until(lambda: client.streams[number].interim)
        client.send(number, b"x", end=True)
        answer = await client.response(number)
        assert [interim[":status"] for interim in answer.interim] == ["100", "103"]
        plain = await dial(it.port)
        plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await plain.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n")
        assert (await plain.response())[2] == b"ok"


async def test_a_silent_host_is_pinged_and_given_up() -> None:
    """``connection_keepalive``: a connection whose PING is not answered is of no use."""
    arrived = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\0\0\4\0\0\0\0\0")
        arrived.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    keepalive = Http2Keepalive(timeout=0.2, interval=0.2, interval_jitter=0.0)
    up = cluster(
        "up",
        server.sockets[0].getsockname()[1],
        protocol="HTTP2",
        http2=Http2Options(connection_keepalive=keepalive),
    )
    async with server, sidecar(up, listener(chain(http(forward("/", "up"))))) as it:
        client = await dial_http2(it.port)
        answer = await client.response(client.request())
        assert answer.fields[":status"] == "503"
        assert it.cluster_stats("up").http2.keepalive_timeout == 1


async def test_a_connection_that_is_old_takes_no_more() -> None:
    up_options = {"protocol": "HTTP2", "max_connection_duration": 0.2}
    async with (
        http2_backend() as app,
        sidecar(cluster("up", app.port, **up_options), listener(chain(http(forward("/", "up"))))) as it,
    ):
        client = await dial_http2(it.port)
        assert bytes((await client.response(client.request())).body) == b"ok"
        await eventually(lambda: it.cluster_stats("up").upstream_cx_max_duration_reached == 1)
        assert bytes((await client.response(client.request())).body) == b"ok"
        assert len(app.peers) == 2 and app.peers[0].goaway == [0]


@pytest.mark.parametrize(
    ("fields", "counter"),
    [
        ([("x-a", "b" * 62_000)], "header_list_size_too_large"),
        ([(f"x-{n}", "") for n in range(100)], "header_overflow"),
    ],
)
async def test_heads_that_are_too_large_end_their_stream(fields: list[tuple[str, str]], counter: str) -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        peer.respond(number, *(fields if stream.fields[":path"] == "/large" else []), end=True)

    async with http2_backend(serve) as app, through(app.port) as it:
        client = await dial_http2(it.port)
        refused = await client.response(client.request(*fields))
        assert refused.reset == 2 and not app.streams
        assert getattr(it.hub.current.stats.http2, counter) == 1
        lost = await client.response(client.request(path="/large"))
        assert lost.fields[":status"] == "503"
        assert getattr(it.cluster_stats("up").http2, counter) == 1
        # Others on the same connections are not concerned.
        assert (await client.response(client.request())).fields[":status"] == "200"
        assert len(app.peers) == 1
