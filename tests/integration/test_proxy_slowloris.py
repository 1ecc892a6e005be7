"""Many slow clients of every kind at once: each is ended by its timeout and counted; others are served meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.sidecar import (
    Backend,
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

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
EACH = 100
SIZE = 8 << 20


async def drip(peer: Peer, data: bytes) -> None:
    """Send byte by byte, until nobody takes them any more."""
    try:
        for byte in data:
            peer.send(bytes((byte,)))
            await peer.writer.drain()
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass


async def ordinary(it: Sidecar, path: bytes = b"/") -> None:
    peer = await dial(it.port)
    for _ in range(20):
        peer.send(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path)
        assert (await peer.response())[0] == 200
    peer.close()


@pytest.mark.parametrize(
    ("options", "counter", "body"),
    [
        ({"request_headers_timeout": 0.5}, "downstream_rq_header_timeout", b"request header timeout"),
        ({"stream_idle_timeout": 0.5}, "downstream_rq_idle_timeout", b"stream timeout"),
    ],
)
async def test_slow_heads(options: dict[str, Any], counter: str, body: bytes) -> None:
    """Bytes that keep coming put nothing off: a head has its time from its first byte on."""
    async with sidecar(listener(chain(http(direct("/", 200, b"ok"), **options)))) as it:
        slow = [await dial(it.port) for _ in range(EACH)]
        dripping = [
            asyncio.create_task(drip(peer, b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 1000))
            for peer in slow
        ]
        await ordinary(it)
        for peer in slow:
            status, headers, got = await peer.response()
            assert (status, headers["connection"], got) == (408, "close", body)
        assert getattr(it.http_stats(), counter) == EACH
        for task in dripping:
            task.cancel()
        for peer in slow:
            peer.close()
        await eventually(lambda: it.worker.connections == 0)


@pytest.mark.parametrize(
    ("options", "counter"),
    [
        ({"request_timeout": 0.5}, "downstream_rq_timeout"),
        ({"stream_idle_timeout": 0.5}, "downstream_rq_idle_timeout"),
    ],
)
async def test_slow_bodies(options: dict[str, Any], counter: str) -> None:
    async with (
        backend() as up,
        sidecar(listener(chain(http(forward("/", "up"), **options))), cluster("up", up.port)) as it,
    ):
        slow = [await dial(it.port) for _ in range(EACH)]
        for peer in slow:
            peer.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc")
        await ordinary(it)
        for peer in slow:
            assert (await peer.response())[0] == 408
        assert getattr(it.http_stats(), counter) == EACH
        for peer in slow:
            peer.close()
        await eventually(lambda: it.worker.connections == 0)
        stats = it.cluster_stats("up")
        await eventually(lambda: stats.upstream_rq_active == 0 and stats.upstream_cx_active <= 1)


async def test_slow_readers() -> None:
    """Who asks and does not read costs a buffer, and that until nothing has moved for ``stream_idle_timeout``."""

    async def much(peer: Peer) -> None:
        while b"/much" in await peer.until(b"\r\n\r\n"):
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE >> 16):
                peer.send(bytes(1 << 16))
                await peer.writer.drain()
        await Backend(None).hello(peer)

    async with (
        backend(much) as up,
        backend() as small,
        sidecar(
            listener(chain(http(forward("/much", "up"), forward("/", "small"), stream_idle_timeout=1.0))),
            cluster("up", up.port),
            cluster("small", small.port),
        ) as it,
    ):
        slow = []
        for _ in range(EACH):
            peer = await dial(it.port)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            peer.send(b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n")
            slow.append(peer)
        await ordinary(it)
        stats = it.http_stats()
        await eventually(lambda: stats.downstream_rq_idle_timeout == EACH)
        await eventually(lambda: it.worker.connections == 0)
        assert it.cluster_stats("up").upstream_flow_control_paused_reading_total >= EACH
        assert it.cluster_stats("up").upstream_cx_active == 0
        for peer in slow:
            peer.close()
