"""Health checks over HTTP and TCP with real sockets."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from proxy.model.health_check import TcpCheck
from proxy.model.matcher import StringMatcher
from proxy.tls.store import SecretStore
from tests.fakes.checked import checked, health_check
from tests.fakes.health import FRONT, HTTP, Page, page, says
from tests.fakes.http2 import http2_backend
from tests.fakes.sidecar import (
    HOST,
    Mesh,
    Peer,
    Serve,
    backend,
    cluster,
    eventually,
    mutual,
    spiffe,
)


async def test_nobody_is_asked_and_nobody_fails_while_a_secret_is_missing() -> None:
    mesh, secrets = Mesh(), SecretStore()
    served = Page()
    async with tls_backend(served, mesh) as port:
        up = cluster("up", port, tls=mutual(spiffe("web")), health_check=health_check(HTTP))
        async with checked(up, secrets=secrets) as sidecar:
            assert sidecar.healthy() == [False] and sidecar.stats().attempt == 0
            secrets.set_identity(mesh.pem("caller"), mesh.root.pem)
            sidecar.checker.secrets_changed()
            await eventually(lambda: sidecar.healthy() == [True])
            assert sidecar.stats().failure == 0


@asynccontextmanager
async def tls_backend(serve: Serve, mesh: Mesh) -> AsyncIterator[int]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(mesh.pem("web"))
        file.flush()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file.name)
    async with backend(serve, context) as server:
        yield server.port


async def test_an_http_check_sends_what_envoy_sends_over_one_connection() -> None:
    async with page() as (served, sidecar, connections):
        await eventually(lambda: len(served.asked) > 3)
        assert set(served.asked) == {b"GET /healthz HTTP/1.1\r\nhost: up\r\nuser-agent: Envoy/HC\r\n\r\n"}
        assert len(connections) == 1
        assert sidecar.healthy() == [True]
        served.answer = says(204)
        await eventually(lambda: sidecar.healthy() == [False])
        served.answer = says(219)
        await eventually(lambda: sidecar.healthy() == [True])


async def test_a_body_is_sent_and_others_are_looked_for() -> None:
    check = replace(
        HTTP, method="POST", host="h.test", send=b"\x01hi", receive=(b"ok", b"fine"), response_buffer_size=10
    )
    async with page(check) as (served, sidecar, _):
        assert sidecar.healthy() == [False]
        assert served.asked[0] == (
            b"POST /healthz HTTP/1.1\r\nhost: h.test\r\nuser-agent: Envoy/HC\r\ncontent-length: 3\r\n\r\n\x01hi"
        )
        served.answer = says(200, body=b"ok, fine and more")
        await eventually(lambda: sidecar.healthy() == [True])
        served.answer = says(200, body=b"ok, all is fine")
        await eventually(lambda: sidecar.healthy() == [False])


async def test_retriable_answers_have_a_threshold() -> None:
    async with page(unhealthy_threshold=3) as (served, sidecar, _):
        served.answer = says(429)
        await eventually(lambda: sidecar.stats().failure == 2)
        assert sidecar.healthy() == [True]
        await eventually(lambda: sidecar.healthy() == [False])
        assert sidecar.stats().network_failure == 0


async def test_degraded_excluded_and_the_name_of_the_service() -> None:
    check = replace(HTTP, service_name=StringMatcher("prefix", "shop"))
    name = b"x-envoy-upstream-healthchecked-cluster: shop-1"
    async with page(check) as (served, sidecar, _):
        assert sidecar.healthy() == [False]
        assert sidecar.stats().verify_cluster
        served.answer = says(200, name)
        await eventually(lambda: sidecar.healthy() == [True])
        served.answer = says(200, name, b"x-envoy-degraded: 1")
        await eventually(lambda: sidecar.stats().degraded == 1)
        live = sidecar.running.hub.current.clusters["up"]
        assert (live.stats.membership_degraded, live.stats.membership_healthy) == (1, 0)
        served.answer = says(503, b"x-envoy-immediate-health-check-fail: 1")
        await eventually(lambda: live.hosts[0].excluded)
        assert not live.hosts[0].healthy
        served.answer = says(200, name)
        await eventually(lambda: sidecar.healthy() == [True])
        assert not live.hosts[0].flags


async def test_an_http_check_may_speak_http2() -> None:
    async with http2_backend() as server:
        up = cluster("up", server.port, health_check=health_check(replace(HTTP, http2=True)))
        async with checked(up) as sidecar:
            assert sidecar.healthy() == [True]
            assert server.streams[0].fields == {
                ":method": "GET", ":scheme": "http", ":authority": "up", ":path": "/healthz",
                "user-agent": "Envoy/HC",
            }  # fmt: skip


async def test_a_server_that_closes_after_each_answer_is_healthy() -> None:
    async with page() as (served, sidecar, connections):
        served.answer = says(200, b"connection: close")
        await eventually(lambda: len(connections) > 2)
        assert sidecar.stats().failure == 0


async def test_who_cannot_be_connected_to_is_unhealthy_until_it_can() -> None:
    async with backend() as server:
        port = server.port
    up = cluster("up", port, health_check=health_check(HTTP))
    async with checked(FRONT, up) as sidecar:
        assert sidecar.healthy() == [False]
        assert sidecar.stats().network_failure >= 1
        server_ = await asyncio.start_server(_always(says(200)), HOST, port)
        await eventually(lambda: sidecar.healthy() == [True])
        server_.close()


def _always(answer: bytes):  # type: ignore[no-untyped-def]
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        except asyncio.IncompleteReadError:
            writer.close()

    return serve


class Echo:
    """A TCP server. ``answer``: to each piece that it gets; ``None`` = it closes."""

    def __init__(self) -> None:
        self.answer: bytes | None = b"..PONG"
        self.asked: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while data := await peer.reader.read(100):
            self.asked.append(data)
            if self.answer is None:
                return
            peer.send(self.answer)


async def test_tcp_sends_and_looks_for_bytes_over_one_connection() -> None:
    echo = Echo()
    async with backend(echo) as server:
        check = health_check(TcpCheck(b"PING", (b"PO", b"NG")), timeout=1.0)
        async with checked(cluster("up", server.port, health_check=check)) as sidecar:
            assert sidecar.healthy() == [True]
            await eventually(lambda: sidecar.stats().success > 2)
            assert set(echo.asked) == {b"PING"} and server.connections == 1
            echo.answer = b"NOPE"
            await eventually(lambda: sidecar.healthy() == [False])
            echo.answer = b"PONG"
            await eventually(lambda: sidecar.healthy() == [True])
            echo.answer = None
            await eventually(lambda: sidecar.healthy() == [False])


async def test_tcp_without_bytes_connects_and_that_is_all() -> None:
    echo = Echo()
    async with backend(echo) as server:
        check = health_check(TcpCheck(b"PING"))
        async with checked(cluster("up", server.port, health_check=check)) as sidecar:
            await eventually(lambda: sidecar.stats().success > 2)
            assert sidecar.healthy() == [True]
            await eventually(lambda: server.connections > 2)
            assert not server.all
