"""The TCP relay over real sockets."""

from __future__ import annotations

import asyncio

from proxy.model.cluster import CircuitBreakers
from tests.fakes.sidecar import (
    WAIT,
    Peer,
    ask,
    backend,
    chain,
    cluster,
    dial,
    eventually,
    listener,
    sidecar,
    tcp,
)


async def test_both_directions_and_half_closes() -> None:
    async def serve(peer: Peer) -> None:
        got = await peer.rest()
        peer.send(got[::-1])

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        peer = await dial(it.port)
        peer.send(b"abc")
        peer.writer.write_eof()
        assert await peer.rest() == b"cba"
        await eventually(lambda: it.worker.connections == 0)
        assert it.hub.current.clusters["up"].breaker.active_connections == 0
        assert it.hub.current.clusters["up"].hosts[0].active == 0


async def test_a_server_may_speak_first_and_end_first() -> None:
    async def serve(peer: Peer) -> None:
        peer.send(b"hello")
        peer.writer.write_eof()
        assert await peer.rest() == b"bye"

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        peer = await dial(it.port)
        assert await peer.rest() == b"hello"
        peer.send(b"bye")
        peer.writer.write_eof()
        await eventually(lambda: it.worker.connections == 0)
        assert app.all == b"bye"


async def test_a_reset_reaches_the_other_side() -> None:
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.rest()
        gone.set()

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        peer = await dial(it.port)
        peer.send(b"x")
        await eventually(lambda: app.all == b"x")
        peer.writer.transport.abort()
        await asyncio.wait_for(gone.wait(), WAIT)
        await eventually(lambda: it.worker.connections == 0)


async def test_a_slow_side_holds_the_other_back() -> None:
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        for _ in range(1024):
            peer.send(b"x" * 65536)
            await peer.writer.drain()
            sent += 65536

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        peer = await dial(it.port)
        before = -1
        while before != sent or not sent:
            before = sent
            for _ in range(30):
                await asyncio.sleep(0.01)
        assert sent < 32 << 20
        assert len(await peer.rest()) == 64 << 20


async def test_what_cannot_be_relayed_is_closed_and_counted() -> None:
    async with backend() as app:
        refusing = app.port
    async with sidecar(listener(chain(tcp("up"))), cluster("up", refusing)) as it:
        assert await ask(it.port, b"x") == b""
        assert it.cluster_stats("up").upstream_cx_connect_fail == 1
    async with sidecar(listener(chain(tcp("up"))), cluster("up")) as it:
        assert await ask(it.port, b"x") == b""
        assert it.cluster_stats("up").upstream_cx_none_healthy == 1
    async with (
        backend() as app,
        sidecar(
            listener(chain(tcp("up"))),
            cluster("up", app.port, circuit_breakers=CircuitBreakers(max_connections=0)),
        ) as it,
    ):
        assert await ask(it.port, b"x") == b""
        assert it.cluster_stats("up").upstream_cx_overflow == 1
        await eventually(lambda: it.worker.connections == 0)


async def test_connect_attempts_go_to_other_hosts() -> None:
    async with backend() as app:
        refusing = app.port

    async def serve(peer: Peer) -> None:
        peer.send(b"here")

    async with (
        backend(serve) as good,
        sidecar(listener(chain(tcp("up", max_connect_attempts=2))), cluster("up", refusing, good.port)) as it,
    ):
        for _ in range(4):
            peer = await dial(it.port)
            assert await peer.rest() == b"here"
            peer.close()


async def test_an_idle_connection_ends() -> None:
    async def serve(peer: Peer) -> None:
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(listener(chain(tcp("up", idle_timeout=0.05))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        assert await peer.rest() == b""
        assert it.hub.current.stats.tcp["test"].idle_timeout == 1
