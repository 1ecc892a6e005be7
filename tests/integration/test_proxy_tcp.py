"""The TCP relay over real sockets."""

from __future__ import annotations

import asyncio
import fcntl
import termios
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.model.access_log import FileAccessLog, TextLogFormat
from proxy.model.cluster import CircuitBreakers
from proxy.tcp import relay as relay_module
from proxy.tcp.relay import Relay
from proxy.upstream.pipes import Pipes
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


async def test_a_client_that_ends_before_it_says_anything_is_not_connected_for() -> None:
    async with (
        backend() as app,
        sidecar(
            listener(chain(tcp("up", connect_on_data=True, max_early_data_bytes=10))), cluster("up", app.port)
        ) as it,
    ):
        peer = await dial(it.port)
        peer.writer.write_eof()
        assert await peer.rest() == b""
        await eventually(lambda: it.worker.connections == 0)
        assert app.connections == 0
        assert it.hub.current.clusters["up"].breaker.active_connections == 0


async def test_a_silent_relay_does_not_hold_up_a_drain_and_is_not_cut_by_it() -> None:
    async def serve(peer: Peer) -> None:
        peer.send(await peer.until(b"\n"))
        await peer.rest()

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        peer = await dial(it.port)
        peer.send(b"1\n")
        assert await peer.until(b"\n") == b"1\n"
        await asyncio.wait_for(it.worker.drain(3600), WAIT)
        # Envoy leaves it open until the process ends.
        assert it.worker.connections == 1
        peer.send(b"2")
        await eventually(lambda: app.all == b"1\n2")


async def test_logs_of_long_connections(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = FileAccessLog(str(path), TextLogFormat("%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %BYTES_SENT%\n"))
    options = {"access_log": (log,), "access_log_flush_interval": 0.01, "flush_access_log_on_connected": True}

    async def serve(peer: Peer) -> None:
        peer.send(b"hello")
        await peer.rest()

    def lines() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    async with (
        backend(serve) as app,
        sidecar(listener(chain(tcp("up", **options)), access_log=(log,)), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        await peer.exactly(5)
        await eventually(lambda: "TcpPeriodic 0 5" in lines())
        peer.writer.write_eof()
        await peer.rest()
        await eventually(lambda: it.worker.connections == 0)
    assert lines()[0] == "TcpUpstreamConnected 0 0"
    assert set(lines()[1:-2]) <= {"TcpPeriodic 0 0", "TcpPeriodic 0 5"}
    assert lines()[-2:] == ["TcpConnectionEnd 0 5", "NotSet 0 5"]


@pytest.mark.parametrize("pipes", [0, 64])
async def test_stalled_readers_in_both_directions(monkeypatch: pytest.MonkeyPatch, pipes: int) -> None:
    """With pipes and without any: neither direction runs on without its reader, and nothing is lost."""
    monkeypatch.setattr(Pipes.__init__, "__defaults__", (pipes,))
    go = asyncio.Event()
    size = 48 << 20
    sent = {"up": 0, "down": 0}

    async def write(peer: Peer, name: str) -> None:
        for _ in range(size >> 16):
            peer.send(b"x" * 65536)
            await peer.writer.drain()
            sent[name] += 65536
        peer.writer.write_eof()

    async def both(peer: Peer, name: str) -> int:
        writing = asyncio.create_task(write(peer, name))
        await go.wait()
        got = len(await peer.rest())
        await writing
        return got

    received: list[int] = []

    async def serve(peer: Peer) -> None:
        received.append(await both(peer, "down"))

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        peer = await dial(it.port)
        playing = asyncio.create_task(both(peer, "up"))
        before = None
        while before != sent or not all(sent.values()):
            before = dict(sent)
            for _ in range(30):
                await asyncio.sleep(0.01)
        # What the four sockets and the proxy hold together.
        assert max(sent.values()) < 32 << 20
        stats = it.hub.current.stats
        assert (stats.splice.copied_bytes > 0) == (stats.splice.pipes_exhausted > 0) == (pipes == 0)
        assert stats.tcp["test"].downstream_flow_control_paused_reading_total > 0
        assert it.cluster_stats("up").upstream_flow_control_paused_reading_total > 0
        go.set()
        assert await asyncio.wait_for(playing, 60) == size
        await eventually(lambda: it.worker.connections == 0)
        assert received == [size]
        assert stats.splice.pipes_active <= 2


async def test_a_pipe_with_bytes_of_an_ended_connection_is_not_used_again() -> None:
    async def serve(peer: Peer) -> None:
        for _ in range(512):
            peer.send(b"x" * 65536)
        await peer.writer.drain()

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        splice = it.hub.current.stats.splice
        peer = await dial(it.port)
        await eventually(lambda: splice.pipes_active == 1)
        stalled = it.cluster_stats("up")
        await eventually(lambda: stalled.upstream_flow_control_paused_reading_total > 0)
        peer.writer.transport.abort()
        await eventually(lambda: it.worker.connections == 0)
        pipes = it.worker._state.pipes._idle
        assert splice.pipes_active == len(pipes) <= 1
        for readable, _ in pipes:
            assert fcntl.ioctl(readable, termios.FIONREAD, bytes(4)) == bytes(4)


async def test_what_a_peer_does_not_take_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between transports (here forced): the server ends while the client reads nothing."""
    monkeypatch.setattr("proxy.tcp.relay.connect_plain", None)
    monkeypatch.setattr("proxy.accept.accepted.Relay", partial(_not_plain, Relay))

    async def serve(peer: Peer) -> None:
        peer.send(b"x" * (16 << 20))
        peer.writer.write_eof()
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(listener(chain(tcp("up", idle_timeout=0.2))), cluster("up", app.port)) as it,
    ):
        client = await dial(it.port)
        await eventually(lambda: it.worker.connections == 0 and it.cluster_stats("up").upstream_cx_total == 1)
        assert it.hub.current.stats.tcp["test"].idle_timeout > 0
        client.close()


def _not_plain(make: Any, *args: Any, **options: Any) -> Any:
    return make(*args, **{**options, "plain": False})


async def test_a_client_is_not_read_while_its_upstream_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop starts to read after ``connection_made``, whatever was asked for in it."""
    gate = asyncio.Event()
    connect = relay_module.connect_plain

    async def slow(*arguments: Any) -> Any:
        await gate.wait()
        return await connect(*arguments)

    monkeypatch.setattr(relay_module, "connect_plain", slow)
    size = 32 << 20

    async def serve(peer: Peer) -> None:
        peer.send(b"%d" % len(await peer.rest()))

    async with backend(serve) as app, sidecar(listener(chain(tcp("up"))), cluster("up", app.port)) as it:
        peer = await dial(it.port)
        peer.send(bytes(size))
        peer.writer.write_eof()
        await eventually(lambda: bool(it.worker._state.connections))
        (relay,) = it.worker._state.connections
        assert isinstance(relay, Relay)
        await eventually(lambda: bool(relay._early))
        assert relay.client.transport is not None and not relay.client.transport.is_reading()  # type: ignore[attr-defined]
        assert len(relay._early) < 1 << 20
        gate.set()
        assert await peer.rest() == b"%d" % size
