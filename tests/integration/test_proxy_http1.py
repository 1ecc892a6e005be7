"""The HTTP/1.1 data path over real sockets: exchanges, framing, limits, errors, streaming."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.accept.worker import WorkerOptions
from proxy.http1.head import MAX_HEAD_BYTES
from proxy.model.cluster import CircuitBreakers
from proxy.model.route import RetryPolicy
from tests.fakes.sidecar import (
    WAIT,
    Peer,
    ask,
    backend,
    chain,
    cluster,
    config,
    dial,
    direct,
    eventually,
    forward,
    http,
    listener,
    sidecar,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_keep_alive_on_both_sides_and_pipelining_in_order() -> None:
    async def serve(peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            path = head.split(b" ")[1]
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))

    async with (
        backend(serve) as app,
        sidecar(
            listener(chain(http(forward("/", "up"), direct("/direct", 200, b"d")))), cluster("up", app.port)
        ) as it,
    ):
        # The direct route stands after the one that takes everything: order is the table's.
        peer = await dial(it.port)
        peer.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(50)))
        assert [(await peer.response())[2] for _ in range(50)] == [b"/%d" % n for n in range(50)]
        assert app.connections == 1
        assert it.cluster_stats("up").upstream_cx_total == 1
        assert it.http_stats().downstream_rq_completed == 50
        peer.close()


async def test_a_thousand_pipelined_local_replies_need_no_stack() -> None:
    async with sidecar(listener(chain(http(direct("/", 200, b"ok"))))) as it:
        peer = await dial(it.port)
        peer.send(GET * 2000 + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await peer.rest()).count(b"HTTP/1.1 200 OK") == 2001


async def test_request_heads_are_edited() -> None:
    async with (
        backend() as app,
        sidecar(listener(chain(http(forward("/", "up", timeout=0.0)))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop, authorization, x-forwarded-client-cert\r\nX-Hop: 1\r\n"
            b"Authorization: Bearer t\r\nX-Forwarded-Client-Cert: By=evil\r\nx-envoy-retry-on: 5xx\r\n"
            b"X-TULLE-peer: root\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nX-Request-Id: abc\r\n"
            b"x-forwarded-proto: gopher\r\nX-Kept: x-envoy-value\r\n\r\n"
        )
        assert (await peer.response())[0] == 200
        peer.close()
    fields = bytes(app.received[0]).lower().split(b"\r\n")
    assert fields[0] == b"get / http/1.1"
    assert sorted(filter(None, fields[1:])) == [
        b"authorization: bearer t",
        b"host: a",
        b"x-forwarded-proto: gopher",
        b"x-kept: x-envoy-value",
        b"x-request-id: abc",
    ]


async def test_edge_options_replace_what_clients_say() -> None:
    options = {"use_remote_address": True, "always_set_request_id_in_response": True, "server_name": "tulle"}
    async with (
        backend() as app,
        sidecar(listener(chain(http(forward("/", "up"), **options))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: mine\r\nx-forwarded-for: 1.2.3.4\r\n"
            b"x-forwarded-proto: https\r\n\r\n"
        )
        _, headers, _ = await peer.response()
        peer.close()
    seen = bytes(app.received[0])
    assert b"x-forwarded-for: 1.2.3.4,127.0.0.1\r\n" in seen and b"1.2.3.4\r\n" not in seen
    assert b"x-forwarded-proto: http\r\n" in seen and b"https" not in seen
    assert b"mine" not in seen
    assert headers["server"] == "tulle" and len(headers["x-request-id"]) == 36
    assert headers["x-request-id"].encode() in seen


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\n\r\na\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b,c\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#frag HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 101 + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_smuggling_is_refused_closed_and_seen_by_nobody(data: bytes) -> None:
    manager = http(forward("/", "up"), codec_type="HTTP1")
    async with backend() as app, sidecar(listener(chain(manager)), cluster("up", app.port)) as it:
        answer = await ask(it.port, data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        status = int(answer.split(b" ")[1])
        assert 400 <= status < 500 or status == 501
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"\r\nconnection: close\r\n" in answer
        assert app.connections == 0
        assert it.http_stats().downstream_rq_active == 0


async def test_a_body_that_breaks_later_is_refused_and_the_backend_is_cut_off() -> None:
    ended = asyncio.Event()

    async def serve(peer: Peer) -> None:
        try:
            await peer.until(b"never")
        except asyncio.IncompleteReadError:
            ended.set()
            raise

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await eventually(lambda: app.all.endswith(b"1\r\na\r\n"))
        peer.send(b"zz\r\nGET /smuggled HTTP/1.1\r\n\r\n")
        assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")
        await asyncio.wait_for(ended.wait(), WAIT)
        assert b"smuggled" not in app.all


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
            200,
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
        (
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            103,
            b"",
        ),
        (b"NONSENSE\r\n\r\n", 502, None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 502, None),
        (b"HTTP/1.1 101 Switching\r\n\r\n", 502, None),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, 502, None),
        (b"", 503, None),
        (b"HTTP/1.1 200 OK\r\nx:", 502, None),
    ],
)
async def test_responses_are_framed(response: bytes, status: int, body: bytes | None) -> None:
    for size in (1 << 16, 1 + len(response) // 1000):

        async def serve(peer: Peer, size: int = size) -> None:
            await peer.until(b"\r\n\r\n")
            for at in range(0, len(response), size):
                peer.send(response[at : at + size])
                await peer.writer.drain()
                await asyncio.sleep(0)

        async with (
            backend(serve) as app,
            sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
        ):
            peer = await dial(it.port)
            peer.send(GET)
            got, headers, got_body = await peer.response()
            assert got == status
            if got == 103:
                got, headers, got_body = await peer.response()
                assert (got, got_body) == (200, b"x")
            elif body is not None:
                assert got_body == body
            # Whatever happened, the client's connection goes on.
            assert "connection" not in headers
            peer.close()


async def test_head_requests_get_no_body() -> None:
    async def serve(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        for _ in range(2):
            peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            status, headers, _ = await peer.response(head=True)
            assert (status, headers["content-length"]) == (200, "5")
        assert app.connections == 1
        peer.close()


async def test_a_response_cut_short_cuts_the_client_off() -> None:
    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        answer = await ask(it.port, GET)
        assert not answer or answer.endswith(b"abc")
        assert it.http_stats().rq_reset_after_downstream_response_started == 0


async def test_expect_is_answered_here_and_not_passed_on() -> None:
    async with (
        backend() as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await peer.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(b"abc")
        assert (await peer.response())[2] == b"ok"
        assert b"expect:" not in app.all.lower() and app.all.endswith(b"abc")
        peer.close()


async def test_absolute_form_is_made_origin_form() -> None:
    async with (
        backend() as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        for target in (b"http://svc.example:80/x?y", b"HTTP://svc.example:80?y", b"http://svc.example:80"):
            peer.send(b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n")
            assert (await peer.response())[0] == 200
        peer.close()
    lines = app.all.split(b"\r\n")
    assert [line for line in lines if line.startswith(b"GET")] == [
        b"GET /x?y HTTP/1.1",
        b"GET /?y HTTP/1.1",
        b"GET / HTTP/1.1",
    ]
    assert app.all.lower().count(b"host: svc.example:80\r\n") == 3 and b"other" not in app.all


async def test_http10_is_served_where_it_is_accepted() -> None:
    async def serve(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")

    async with (
        backend(serve) as app,
        sidecar(
            listener(chain(http(forward("/", "up"), accept_http_10=True))), cluster("up", app.port)
        ) as it,
    ):
        answer = await ask(it.port, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nhello") and b"chunked" not in answer
        assert app.all.startswith(b"GET / HTTP/1.1\r\n")


async def test_an_upgrade_becomes_a_tunnel() -> None:
    async def serve(peer: Peer) -> None:
        head = await peer.until(b"\r\n\r\n")
        assert b"upgrade: websocket" in head.lower() and b"connection: upgrade" in head.lower()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi")
        peer.send(await peer.exactly(5))
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(
            listener(chain(http(forward("/", "up"), upgrade_types=("websocket",)))), cluster("up", app.port)
        ) as it,
    ):
        peer = await dial(it.port)
        # "ear" is sent before anybody agreed to a tunnel: it waits.
        peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\near")
        head = await peer.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ") and b"upgrade: websocket\r\n" in head
        assert await peer.exactly(2) == b"hi"
        peer.send(b"ly")
        assert await peer.exactly(5) == b"early"
        peer.writer.write_eof()
        assert await peer.rest() == b""
        await eventually(lambda: it.http_stats().downstream_cx_upgrades_active == 0)


async def test_a_refused_upgrade_tunnels_nothing() -> None:
    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(
            listener(chain(http(forward("/", "up"), upgrade_types=("websocket",)))), cluster("up", app.port)
        ) as it,
    ):
        peer = await dial(it.port)
        peer.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            b"DELETE /admin HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"
        )
        status, headers, _ = await peer.response()
        assert status == 403 and headers["connection"] == "close"
        assert await peer.rest() == b""
        assert b"DELETE" not in app.all
        # Nor does anybody else's request go where a tunnel's bytes may be waited for.
        assert it.cluster_stats("up").upstream_cx_active == 0
        peer.close()


@pytest.mark.parametrize("size", [10, 1 << 20])
async def test_an_early_response_ends_the_upload(size: int) -> None:
    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (size + 5) + b"x" * size)
        status, headers, body = await peer.response()
        assert (status, headers["connection"], body) == (413, "close", b"no")
        assert await peer.rest() == b""
        assert it.http_stats().downstream_rq_response_before_rq_complete == 1
        assert not it.hub.current.clusters["up"].hosts[0].idle
        peer.close()


async def test_a_slow_reader_bounds_what_is_buffered() -> None:
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % TOTAL)
        for _ in range(TOTAL // PIECE):
            peer.send(b"x" * PIECE)
            await peer.writer.drain()
            sent += PIECE

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(GET)
        before = -1
        while before != sent or not sent:
            before = sent
            for _ in range(30):
                await asyncio.sleep(0.01)
        assert sent < BOUND
        head = await peer.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await peer.exactly(TOTAL)
        assert it.cluster_stats("up").upstream_flow_control_paused_reading_total >= 1
        peer.close()


async def test_a_slow_server_bounds_what_is_buffered() -> None:
    go_on = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go_on.wait()
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await peer.exactly(TOTAL)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up", timeout=0.0)))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(TOTAL // PIECE):
                peer.send(b"x" * PIECE)
                await peer.writer.drain()
                sent += PIECE

        task = asyncio.ensure_future(upload())
        before = -1
        while before != sent or not sent:
            before = sent
            for _ in range(30):
                await asyncio.sleep(0.01)
        assert sent < BOUND
        go_on.set()
        assert (await peer.response())[0] == 200
        await task
        peer.close()


TOTAL = 64 << 20
PIECE = 1 << 16
BOUND = 32 << 20
"""What kernel buffers and ours may hold between two ends; the rest must wait at its source."""


async def test_pipelined_requests_wait_while_the_client_does_not_read() -> None:
    answered = 0

    async def serve(peer: Peer) -> None:
        nonlocal answered
        while True:
            await peer.until(b"\r\n\r\n")
            answered += 1
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % PIECE + b"x" * PIECE)

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(GET * 1000)
        before = -1
        while before != answered or not answered:
            before = answered
            for _ in range(30):
                await asyncio.sleep(0.01)
        assert answered * PIECE < BOUND
        for _ in range(1000):
            assert len((await peer.response())[2]) == PIECE
        assert it.http_stats().downstream_rq_completed == 1000
        peer.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cuts=st.lists(st.integers(1, 400), max_size=12, unique=True),
    answer_cuts=st.lists(st.integers(1, 120), max_size=6),
)
def test_any_split_gives_the_same_at_both_ends(cuts: list[int], answer_cuts: list[int]) -> None:
    stream = (
        b"POST /1 HTTP/1.1\r\nHost: a\r\nx-request-id: r\r\nContent-Length: 5\r\n\r\nhello"
        b"GET /2 HTTP/1.1\r\nHost: a\r\nx-request-id: r\r\n\r\n"
        b"POST /3 HTTP/1.1\r\nHost: a\r\nx-request-id: r\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n"
        b"0\r\nT: 1\r\n\r\n"
        b"GET /4 HTTP/1.1\r\nHost: a\r\nx-request-id: r\r\nConnection: close\r\n\r\n"
    )
    answer = b"HTTP/1.1 200 OK\r\ndate: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n1;q\r\n!\r\n0\r\nE: 1\r\n\r\n"

    async def serve(peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            if b"content-length: 5" in head.lower():
                await peer.exactly(5)
            elif b"chunked" in head.lower():
                await peer.chunked()
            edges = [0, *sorted(cut for cut in answer_cuts if cut < len(answer)), len(answer)]
            for a, b in itertools.pairwise(edges):
                peer.send(answer[a:b])
                await asyncio.sleep(0.001)

    async def run() -> tuple[bytes, bytes]:
        options = {"suppress_envoy_headers": True}
        async with (
            backend(serve) as app,
            sidecar(listener(chain(http(forward("/", "up"), **options))), cluster("up", app.port)) as it,
        ):
            peer = await dial(it.port)
            edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
            for a, b in itertools.pairwise(edges):
                peer.send(stream[a:b])
                await asyncio.sleep(0.001)
            return app.all + await peer.rest(), app.all

    got, seen = uvloop.run(run())
    fields = b"x-request-id: r\r\n"
    proto = b"x-forwarded-proto: http\r\n\r\n"
    assert seen == (
        b"POST /1 HTTP/1.1\r\nHost: a\r\n" + fields + b"Content-Length: 5\r\n" + proto + b"hello"
        b"GET /2 HTTP/1.1\r\nHost: a\r\n"
        + fields
        + proto
        + b"POST /3 HTTP/1.1\r\nHost: a\r\n"
        + fields
        + b"Transfer-Encoding: chunked\r\n"
        + proto
        + b"3\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
        b"GET /4 HTTP/1.1\r\nHost: a\r\n" + fields + proto
    )
    head = b"HTTP/1.1 200 OK\r\ndate: x\r\ntransfer-encoding: chunked\r\nserver: envoy\r\n"
    body = b"\r\n2\r\nok\r\n1\r\n!\r\n0\r\nE: 1\r\n\r\n"
    assert got.endswith((head + body) * 3 + head + b"connection: close\r\n" + body)


async def test_timeouts_answer_with_their_flag() -> None:
    async def serve(peer: Peer) -> None:
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(
            listener(
                chain(
                    http(
                        forward("/route", "up", timeout=0.05),
                        forward("/idle", "up", timeout=0.0, idle_timeout=0.05),
                        request_headers_timeout=0.05,
                    )
                )
            ),
            cluster("up", app.port),
        ) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"GET /route HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await peer.response())[::2] == (504, b"upstream request timeout")
        peer.send(b"GET /idle HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await peer.response())[::2] == (504, b"stream timeout")
        peer.send(b"POST /idle HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        assert (await peer.response())[::2] == (408, b"stream timeout")
        assert (await ask(it.port, b"GET / HT")).startswith(b"HTTP/1.1 408 Request Timeout")
        assert it.cluster_stats("up").upstream_rq_timeout == 1
        assert it.http_stats().downstream_rq_idle_timeout == 2
        peer.close()


async def test_breakers_bite_and_give_back() -> None:
    release = asyncio.Event()

    async def serve(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            await release.wait()
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    limits = CircuitBreakers(max_connections=1, max_pending_requests=1)
    async with (
        backend(serve) as app,
        sidecar(
            listener(chain(http(forward("/", "up")))), cluster("up", app.port, circuit_breakers=limits)
        ) as it,
    ):
        first, second, third = [await dial(it.port) for _ in range(3)]
        first.send(GET)
        await eventually(lambda: app.all != b"")
        second.send(GET)
        await eventually(lambda: it.cluster_stats("up").upstream_rq_pending_active == 1)
        third.send(GET)
        status, headers, body = await third.response()
        assert (status, headers["x-envoy-overloaded"]) == (503, "true") and body.endswith(b"overflow")
        release.set()
        assert (await first.response())[2] == (await second.response())[2] == b"ok"
        third.send(GET)
        assert (await third.response())[0] == 200
        breaker = it.hub.current.clusters["up"].breaker
        assert (breaker.active_requests, breaker.pending) == (0, 0)
        for peer in (first, second, third):
            peer.close()


async def test_requests_are_tried_again_elsewhere_while_they_can_be() -> None:
    async def broken(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")

    policy = RetryPolicy(("reset", "connect-failure"), num_retries=2, base_interval=0.001)
    async with (
        backend(broken) as bad,
        backend() as good,
        sidecar(
            listener(chain(http(forward("/", "up", retry_policy=policy)))), cluster("up", bad.port, good.port)
        ) as it,
    ):
        peer = await dial(it.port)
        for _ in range(6):
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
            assert (await peer.response())[2] == b"ok"
        assert bad.connections >= 1
        assert it.cluster_stats("up").upstream_rq_retry == bad.connections
        assert it.cluster_stats("up").upstream_rq_retry_success == bad.connections
        assert it.hub.current.clusters["up"].breaker.retries == 0
        peer.close()


async def test_retries_end_and_say_so() -> None:
    async def failing(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno")

    policy = RetryPolicy(("5xx",), num_retries=2, base_interval=0.001)
    async with (
        backend(failing) as app,
        sidecar(
            listener(chain(http(forward("/", "up", retry_policy=policy)))), cluster("up", app.port)
        ) as it,
    ):
        peer = await dial(it.port)
        peer.send(GET)
        assert (await peer.response())[::2] == (503, b"no")
        assert app.all.count(b"GET / ") == 3
        assert it.cluster_stats("up").upstream_rq_retry_limit_exceeded == 1
        peer.close()


async def test_hosts_that_refuse_and_clusters_without_hosts() -> None:
    async with backend() as app:
        refusing = app.port
    async with sidecar(
        listener(chain(http(forward("/none", "empty"), forward("/no", "missing"), forward("/", "gone")))),
        cluster("empty"),
        cluster("gone", refusing),
    ) as it:
        peer = await dial(it.port)
        for path, text in (
            (b"/none", b"no healthy upstream"),
            (b"/no", b""),
            (b"/", b"remote connection failure"),
        ):
            peer.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            status, _, body = await peer.response()
            assert status == 503 and body.endswith(text) and bool(body) == bool(text)
        peer.close()


async def test_a_client_that_leaves_frees_everything() -> None:
    left = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.rest()
        left.set()

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(GET)
        await eventually(lambda: app.all != b"")
        peer.close()
        await asyncio.wait_for(left.wait(), WAIT)
        await eventually(lambda: it.worker.connections == 0)
        up = it.hub.current.clusters["up"]
        assert (up.breaker.active_requests, up.hosts[0].active, it.http_stats().downstream_rq_active) == (
            0,
            0,
            0,
        )
        await eventually(lambda: up.breaker.active_connections == 0)


async def test_bytes_on_an_idle_server_connection_end_it() -> None:
    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        )
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        for _ in range(2):
            peer.send(GET)
            assert (await peer.response())[2] == b"ok"
        assert app.connections == 2
        peer.close()


async def test_a_swap_is_seen_by_the_next_request_and_draining_ends_connections() -> None:
    base = listener(chain(http(direct("/", 200, b"one"))))
    async with sidecar(base) as it:
        peer = await dial(it.port)
        peer.send(GET)
        assert (await peer.response())[2] == b"one"
        it.apply(config(listener(chain(http(direct("/", 200, b"two")))), version="2"))
        peer.send(GET)
        assert (await peer.response())[2] == b"two"
        assert it.worker.addresses()["l"][0][1] == it.port
        busy = await dial(it.port)
        busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        await eventually(lambda: it.worker.connections == 2)
        # Both connections have been seen by their protocols before anything is drained.
        await asyncio.sleep(0)
        done = asyncio.ensure_future(it.worker.drain(WAIT))
        assert await peer.rest() == b""
        busy.send(b"\r\n")
        status, headers, _ = await busy.response()
        assert (status, headers["connection"]) == (200, "close")
        await done
        with pytest.raises(OSError):
            await dial(it.port)
        peer.close()
        busy.close()


async def test_listeners_come_and_go_with_the_configuration() -> None:
    one = listener(chain(http(direct("/", 200, b"1"))), name="l")
    two = listener(chain(http(direct("/", 200, b"2"))), name="m")
    async with sidecar(one) as it:
        it.apply(config(one, two, version="2"))
        await eventually(lambda: set(it.worker.addresses()) == {"l", "m"})
        other = it.worker.addresses()["m"][0][1]
        assert it.worker.addresses()["l"][0][1] == it.port
        await eventually(lambda: it.worker.addresses()["m"][0][1] == other)
        assert (await ask(other, GET[:-2] + b"Connection: close\r\n\r\n")).endswith(b"2")
        it.apply(config(one, version="3"))
        await eventually(lambda: set(it.worker.addresses()) == {"l"})
        with pytest.raises(OSError):
            await dial(other)


async def test_connections_are_limited() -> None:
    async with sidecar(
        listener(chain(http(direct("/", 200, b"ok")))), options=WorkerOptions(max_connections=1)
    ) as it:
        first = await dial(it.port)
        first.send(GET)
        assert (await first.response())[0] == 200
        assert await ask(it.port, GET) == b""
        assert it.listener_stats().downstream_global_cx_overflow == 1
        first.close()
        await eventually(lambda: it.worker.connections == 0)
        assert (await ask(it.port, GET[:-2] + b"Connection: close\r\n\r\n")).endswith(b"ok")
