"""Limits and options of the connection manager that count: the counters, and what is given back afterwards."""

from __future__ import annotations

import asyncio

import pytest

from proxy.model.matcher import HeaderMatcher, PathMatcher, StringMatcher
from proxy.model.rbac import AnyRule, HeaderRule, Policy, Rbac
from proxy.model.route import Route, RouteAction, RouteMatch, WeightedCluster
from tests.fakes.sidecar import (
    WAIT,
    Peer,
    ask,
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

GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"


async def test_names_with_underscores_are_counted() -> None:
    for action, counter in (
        ("REJECT_REQUEST", "requests_rejected_with_underscores_in_headers"),
        ("DROP_HEADER", "dropped_headers_with_underscores"),
    ):
        options = {"headers_with_underscores_action": action}
        async with sidecar(listener(chain(http(direct("/", 200), **options)))) as it:
            await ask(it.port, GET + b"a_b: 1\r\n\r\n")
            await ask(it.port, GET + b"a-b: _\r\n\r\n")
            assert getattr(it.http_stats(), counter) == 1


async def test_a_stream_that_takes_too_long_is_counted_and_gives_everything_back() -> None:
    async def serve(peer: Peer) -> None:
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(
            listener(chain(http(forward("/", "up", timeout=0.0), max_stream_duration=0.2))),
            cluster("up", app.port),
        ) as it,
    ):
        assert (await ask(it.port, GET + b"\r\n")).startswith(b"HTTP/1.1 504 ")
        assert it.http_stats().downstream_rq_max_duration_reached == 1
        assert it.cluster_stats("up").upstream_rq_active == 0
        await eventually(lambda: it.cluster_stats("up").upstream_cx_active == 0)


def _ends(to: str) -> Route:
    action = RouteAction((WeightedCluster(to, 1),), upgrades=(("connect", True),), terminates_connect=True)
    return Route("c", RouteMatch(PathMatcher("connect_matcher", "")), action)


async def test_the_end_of_one_half_of_a_tunnel_is_passed_on() -> None:
    async def serve(peer: Peer) -> None:
        peer.send((await peer.rest())[::-1])

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(_ends("up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nabc")
        assert (await peer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert it.http_stats().downstream_cx_upgrades_active == 1
        peer.writer.write_eof()
        assert await peer.rest() == b"cba"
        await eventually(lambda: it.http_stats().downstream_cx_upgrades_active == 0)
        assert it.cluster_stats("up").upstream_cx_active == 0


async def test_a_client_that_leaves_before_its_tunnel_is_connected_frees_everything() -> None:
    taken = asyncio.Event()

    async def serve(peer: Peer) -> None:
        taken.set()
        await peer.rest()

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(_ends("up")))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n")
        peer.writer.transport.abort()
        await eventually(
            lambda: it.http_stats().downstream_rq_active == 0 and it.http_stats().downstream_rq_total == 1
        )
        await eventually(lambda: it.cluster_stats("up").upstream_cx_active == 0)
        other = await dial(it.port)
        other.send(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n")
        await other.until(b"\r\n\r\n")
        await asyncio.wait_for(taken.wait(), WAIT)
        other.close()


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [(":method", "CONNECT", 403), (":authority", "a:1", 403), (":path", None, 200), (":method", "GET", 200)],
)
async def test_policy_judges_connect_by_method_and_authority(
    name: str, value: str | None, status: int
) -> None:
    match = None if value is None else StringMatcher("exact", value)
    deny = Rbac("DENY", (Policy("p", (HeaderRule(HeaderMatcher(name, match)),), (AnyRule(),)),))
    async with (
        backend() as app,
        sidecar(listener(chain(http(_ends("up"), rbac=(deny,)))), cluster("up", app.port)) as it,
    ):
        peer = await dial(it.port)
        peer.send(b"CONNECT a:1 HTTP/1.1\r\nhost: other\r\n\r\n")
        assert (await peer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 %d " % status)
        peer.close()
