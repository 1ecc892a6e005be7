"""How connections and tunnels of HTTP/2 end: PINGs that nobody answers, GOAWAY, requests that are given up at once."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import PingFrame

from proxy.model.cluster import CircuitBreakers
from proxy.model.http2 import Http2Keepalive, Http2Options
from proxy.model.matcher import PathMatcher
from proxy.model.route import Route, RouteAction, RouteMatch, WeightedCluster
from tests.fakes.http2 import Http2Peer, Stream, dial_http2, http2_backend
from tests.fakes.sidecar import (
    HOST,
    WAIT,
    Peer,
    backend,
    chain,
    cluster,
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

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def connects(to: str) -> Route:
    """CONNECT ends here; its bytes go to the cluster."""
    match = RouteMatch(PathMatcher("connect_matcher", ""))
    return Route("connect", match, RouteAction((WeightedCluster(to, 1),), terminates_connect=True))


async def test_a_silent_client_is_pinged_and_given_up() -> None:
    """``connection_keepalive`` of a listener."""
    keepalive = Http2Keepalive(timeout=0.2, interval=0.2, interval_jitter=0.0)
    manager = http(direct("/", 200), http2=Http2Options(connection_keepalive=keepalive))
    async with sidecar(listener(chain(manager))) as it:
        reader, writer = await asyncio.open_connection(HOST, it.port)
        writer.write(PREFACE)
        seen = await asyncio.wait_for(reader.read(), WAIT)
        assert PingFrame(0).serialize()[:9] in seen
        assert it.hub.current.stats.http2.keepalive_timeout == 1
        assert it.http_stats().downstream_cx_destroy_local == 1
        writer.close()


async def test_a_client_that_answers_is_kept() -> None:
    keepalive = Http2Keepalive(timeout=0.3, interval=0.1, interval_jitter=0.0)
    manager = http(direct("/", 200), http2=Http2Options(connection_keepalive=keepalive))
    async with sidecar(listener(chain(manager))) as it:
        client = await dial_http2(it.port)
        await client.until(lambda: client.pings >= 5)
        assert (await client.response(client.request())).fields[":status"] == "200"
        assert it.hub.current.stats.http2.keepalive_timeout == 0


async def test_a_host_is_pinged_before_a_stream_after_a_pause() -> None:
    """``connection_idle_interval``."""
    keepalive = Http2Keepalive(timeout=20.0, connection_idle_interval=0.001)
    async with http2_backend() as app:
        up = cluster("up", app.port, protocol="HTTP2", http2=Http2Options(connection_keepalive=keepalive))
        async with sidecar(up, listener(chain(http(forward("/", "up"))))) as it:
            client = await dial_http2(it.port)
            asked = 0
            async with asyncio.timeout(WAIT):
                while not asked or not app.peers[0].pings:
                    await client.response(client.request())
                    asked += 1
            assert len(app.peers) == 1


async def test_answers_that_come_with_goaway_arrive_and_so_does_what_waits() -> None:
    """All in one read: when the first answer is looked at, the codec knows already that it is over."""

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        if number == 3 and len(app.peers) == 1:
            for each in (1, 3):
                peer.h2.send_response(each, [(b":status", b"200")])
                peer.h2.send_data(each, b"first", end_stream=True)
            peer.h2.send_goaway(last_stream_id=3)
            peer.flush()
        elif len(app.peers) == 2:
            peer.respond(number)
            peer.send(number, b"second", end=True)

    async with http2_backend(serve, max_concurrent_streams=2) as app:
        up = cluster("up", app.port, protocol="HTTP2", circuit_breakers=CircuitBreakers(max_connections=1))
        async with sidecar(up, listener(chain(http(forward("/", "up"))))) as it:
            client = await dial_http2(it.port)
            numbers = [client.request(), client.request(), client.request()]
            bodies = [bytes((await client.response(number)).body) for number in numbers]
            assert bodies == [b"first", b"first", b"second"]
            stats = it.cluster_stats("up")
            assert (stats.upstream_cx_close_notify, stats.upstream_cx_protocol_error) == (1, 0)


async def test_a_tunnel_that_is_given_up_at_once_gives_everything_back() -> None:
    async with backend() as app:
        manager = http(connects("up"), upgrade_types=("connect",), http2=Http2Options(allow_connect=True))
        async with sidecar(cluster("up", app.port), listener(chain(manager))) as it:
            client = await dial_http2(it.port)
            # One read, so that connecting has not begun when the reset is seen.
            fields = (":path", "-"), (":scheme", "-"), (":authority", "h:1")
            client.reset(client.request(*fields, method="CONNECT", end=False))
            await eventually(lambda: it.http_stats().downstream_rq_completed == 1)
            breaker = it.hub.current.clusters["up"].breaker
            stats = it.cluster_stats("up")
            await eventually(lambda: breaker.active_connections == breaker.pending == 0)
            assert stats.upstream_cx_active == stats.upstream_rq_pending_active == 0


async def test_a_tunnel_whose_host_speaks_first() -> None:
    async def serve(peer: Peer) -> None:
        peer.send(b"220 ready")
        peer.send(await peer.exactly(4))

    async with backend(serve) as app:
        manager = http(connects("up"), upgrade_types=("connect",), http2=Http2Options(allow_connect=True))
        async with sidecar(cluster("up", app.port), listener(chain(manager))) as it:
            client = await dial_http2(it.port)
            number = client.request(
                (":path", "-"), (":scheme", "-"), (":authority", "h:1"), method="CONNECT", end=False
            )
            stream = client.streams[number]
            await client.until(lambda: bytes(stream.body) == b"220 ready")
            client.send(number, b"QUIT")
            await client.until(lambda: bytes(stream.body) == b"220 readyQUIT")


async def test_a_host_that_allows_no_stream_for_a_while_is_waited_for() -> None:
    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        if number == 1:
            peer.h2.update_settings({3: 0})
        peer.respond(number, end=True)

    async with http2_backend(serve) as app:
        up = cluster("up", app.port, protocol="HTTP2", circuit_breakers=CircuitBreakers(max_connections=1))
        async with sidecar(up, listener(chain(http(forward("/", "up"))))) as it:
            client = await dial_http2(it.port)
            await client.response(client.request())
            (host,) = it.hub.current.clusters["up"].hosts
            await eventually(lambda: host.max_streams == 0)
            number = client.request()
            stats = it.cluster_stats("up")
            await eventually(lambda: stats.upstream_rq_pending_active == 1)
            app.peers[0].h2.update_settings({3: 1})
            app.peers[0].flush()
            assert (await client.response(number)).fields[":status"] == "200"
            assert len(app.peers) == 1
