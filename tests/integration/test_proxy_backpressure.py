"""Memory of two real sidecars stays flat whatever either peer does: nobody reads, or much is relayed.

The outbound sidecar has plain text in front and TLS behind, the inbound one the other way round. Ten gigabytes:
``python -m bench.soak --gigabytes 10``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from bench.endurance.app import BLOCK, App
from bench.endurance.clients import Client, download, small, upload
from bench.endurance.sidecars import Sidecars
from bench.soak import bulk, leaks

STREAMS = 12
PER_STREAM = 1 << 20
"""Bytes of resident memory that a stalled stream may cost a sidecar. ``per_connection_buffer_limit_bytes`` alone allows
twice as much."""
SLACK = 8 << 20
"""What else may come and go meanwhile: pages of the interpreter, the allocator's reserve."""


@pytest_asyncio.fixture
async def app() -> AsyncIterator[App]:
    made = App()
    await made.start()
    yield made
    made.stop()


@pytest_asyncio.fixture
async def sidecars(app: App, tmp_path: Path) -> AsyncIterator[Sidecars]:
    # Streams that stand still are what this is about: they must not be given up.
    made = Sidecars(tmp_path, app.port, stream_idle=600.0)
    for work in (download, upload):
        assert await work(await Client.dial(made.port), 4 << 20) == ""
    yield made
    made.stop()


async def until_stuck(progress: Callable[[], int]) -> int:
    """Wait until ``progress`` has been the same for three seconds; what it is then."""
    seen, since = progress(), 0
    while since < 30:
        await asyncio.sleep(0.1)
        now = progress()
        seen, since = now, since + 1 if now == seen else 0
    return seen


def resident(sidecars: Sidecars) -> list[int]:
    return [sidecar.resident() for sidecar in sidecars.both]


async def judge(sidecars: Sidecars, before: list[int], paused: str, moved: int) -> None:
    """All streams are there and stand still, memory is bounded, and others are served."""
    after = resident(sidecars)
    for sidecar, old, new in zip(sidecars.both, before, after, strict=True):
        held = await asyncio.to_thread(sidecar.held)
        assert held.counts["exchanges"] == STREAMS, sidecar.name
        assert new - old < STREAMS * PER_STREAM + SLACK, sidecar.name
    # All that was ever taken fits into the buffers of the kernel on the way, far from what there was to send.
    assert moved < STREAMS * (64 << 20)
    stats = sidecars.outbound.stats()
    assert stats[paused]
    assert await small(await Client.dial(sidecars.port)) == ""


@pytest.mark.parametrize("framing", ["content-length: 4000000000", "transfer-encoding: chunked"])
async def test_a_fast_client_and_an_app_that_does_not_read(
    app: App, sidecars: Sidecars, framing: str
) -> None:
    before = resident(sidecars)
    chunked = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
    sent = 0

    async def push(client: Client) -> None:
        nonlocal sent
        client.writer.write(f"POST /hold HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
        while True:
            client.writer.write(chunked if "chunked" in framing else BLOCK)
            await client.writer.drain()
            sent += len(BLOCK)

    clients = [await Client.dial(sidecars.port) for _ in range(STREAMS)]
    pushing = [asyncio.create_task(push(client)) for client in clients]
    await judge(
        sidecars,
        before,
        "http.outbound.downstream_flow_control_paused_reading_total",
        await until_stuck(lambda: sent),
    )
    # It was held, not lost: when the app reads, it goes on.
    stuck = sent
    app.release.set()
    async with asyncio.timeout(60):
        while sent < stuck + STREAMS * (4 << 20):  # noqa: ASYNC110 - the clients are polled as they are
            await asyncio.sleep(0.05)
    for task in pushing:
        task.cancel()
    await asyncio.gather(*pushing, return_exceptions=True)
    for client in clients:
        client.abort()


@pytest.mark.parametrize("kind", ["bulk", "chunked"])
async def test_a_fast_app_and_clients_that_do_not_read(app: App, sidecars: Sidecars, kind: str) -> None:
    before = resident(sidecars)
    size = 400 << 20
    clients = [await Client.dial(sidecars.port) for _ in range(STREAMS)]
    sent = app.sent
    for client in clients:
        client.get(f"/{kind}/{size}")
    moved = await until_stuck(lambda: app.sent) - sent
    await judge(sidecars, before, "cluster.server.upstream_flow_control_paused_reading_total", moved)
    status, headers = await clients[0].head()
    assert (status, await clients[0].body(headers)) == (200, size)
    for client in clients:
        client.abort()


async def test_much_is_relayed_at_flat_memory(sidecars: Sidecars) -> None:
    report = await bulk(sidecars, 0.4)
    assert report["wrong"] == {}
    assert max(report["peak_growth_mb"]) < 16  # type: ignore[call-overload]
    assert leaks(report) == []
