"""The network filter ``connection_limit``: how many connections a filter chain takes."""

from __future__ import annotations

import pytest

from proxy.model.listener import ConnectionLimit
from tests.fakes.sidecar import Mesh, chain, config, dial, direct, eventually, http, listener, sidecar, strict

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize("delay", [0.0, 0.3])
async def test_who_is_too_many_is_closed(delay: float) -> None:
    limited = chain(http(direct("/", 200, b"ok")), connection_limits=(ConnectionLimit("cl", 2, delay),))
    async with sidecar(listener(limited)) as it:
        stats = it.hub.current.stats.connection_limit["cl"]
        held = [await dial(it.port) for _ in range(2)]
        await eventually(lambda: stats.active_connections == 2)
        more = await dial(it.port)
        more.send(GET)
        assert await more.rest() == b""
        assert (stats.active_connections, stats.limited_connections) == (2, 1)
        # The limit outlives a change of the configuration.
        it.apply(config(listener(limited, stat_prefix="new"), version="2"))
        more = await dial(it.port)
        assert await more.rest() == b""
        for peer in held:
            peer.send(GET)
            assert (await peer.response())[0] == 200
            peer.close()
        await eventually(lambda: stats.active_connections == 0)
        again = await dial(it.port)
        again.send(GET)
        assert (await again.response())[0] == 200


async def test_the_limit_is_looked_at_before_the_handshake() -> None:
    limited = chain(
        http(direct("/", 200, b"ok")), tls=strict(), connection_limits=(ConnectionLimit("cl", 1),)
    )
    async with sidecar(listener(limited), secrets=Mesh().secrets("server")) as it:
        stats = it.hub.current.stats.connection_limit["cl"]
        first = await dial(it.port)
        await eventually(lambda: stats.active_connections == 1)
        assert await (await dial(it.port)).rest() == b""
        assert stats.limited_connections == 1
        # One that fails its handshake gives its place back.
        first.send(b"\x16\x03\x01\x00\x05hello")
        await first.rest()
        await eventually(lambda: stats.active_connections == 0)
