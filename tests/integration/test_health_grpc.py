"""Health checks by ``grpc.health.v1``: real gRPC servers, and one that does everything wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import grpc
import pytest

from proxy.cluster import flags
from proxy.grpc.message import frame
from proxy.model.health_check import GrpcCheck
from proxy.model.route import HeaderValueOption
from tests.fakes.checked import Checked, checked, health_check
from tests.fakes.health import FRONT
from tests.fakes.http2 import Http2Peer, Stream, http2_backend
from tests.fakes.sidecar import (
    HOST,
    Mesh,
    cluster,
    dial,
    eventually,
    mutual,
    spiffe,
)

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


GRPC = health_check(GrpcCheck("shop.Orders", "orders.test"))


class Health(grpc.GenericRpcHandler):
    """``grpc.health.v1.Health`` of a real gRPC server."""

    def __init__(self) -> None:
        self.answer = SERVING
        self.asked: list[tuple[bytes, dict[str, str | bytes]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        metadata = {item.key: item.value for item in details.invocation_metadata}

        def check(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.asked.append((request, metadata))
            return self.answer

        return grpc.unary_unary_rpc_method_handler(check)


@contextmanager
def grpc_server(
    *handlers: grpc.GenericRpcHandler, credentials: grpc.ServerCredentials | None = None
) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=handlers)
    if credentials is None:
        port = server.add_insecure_port(f"{HOST}:0")
    else:
        port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


async def test_a_grpc_server_that_stops_serving_gets_no_more_calls() -> None:
    one, other = Health(), Health()
    with grpc_server(one) as first, grpc_server(other) as second:
        up = cluster("up", first, second, protocol="HTTP2", health_check=GRPC)
        async with checked(FRONT, up) as sidecar:
            assert sidecar.healthy() == [True, True]
            one.answer = NOT_SERVING
            await eventually(lambda: sidecar.healthy() == [False, True])
            live = sidecar.running.hub.current.clusters["up"]
            assert {host.address[1] for host in (live.pick() for _ in range(20)) if host} == {second}
            assert (live.stats.membership_healthy, live.stats.membership_total) == (1, 2)
            assert sidecar.stats().healthy == 1
            # What the server itself says has no threshold.
            assert sidecar.stats().network_failure == 0
            one.answer = SERVING
            await eventually(lambda: sidecar.healthy() == [True, True])
            stats = sidecar.stats()
            assert stats.healthy == 2
            assert stats.attempt >= stats.success + stats.failure > 4
    request, metadata = one.asked[0]
    assert request == b"\x0a\x0bshop.Orders"
    assert metadata["user-agent"] == "Envoy/HC"


async def test_a_server_that_knows_no_health_service_is_unhealthy() -> None:
    with grpc_server() as port:
        up = cluster("up", port, protocol="HTTP2", health_check=GRPC)
        async with checked(up) as sidecar:
            assert sidecar.healthy() == [False]
            assert sidecar.stats().failure and not sidecar.stats().network_failure


async def test_a_grpc_server_is_asked_by_the_clusters_own_mtls() -> None:
    mesh, health = Mesh(), Health()
    pem = mesh.pem("orders")
    key, _, chain_ = pem.partition(b"-----BEGIN CERTIFICATE")
    credentials = grpc.ssl_server_credentials(
        [(key, b"-----BEGIN CERTIFICATE" + chain_)], mesh.root.pem.encode(), require_client_auth=True
    )
    with grpc_server(health, credentials=credentials) as port:
        tls = mutual(spiffe("orders"))
        tls = replace(tls, common=replace(tls.common, alpn_protocols=()))
        up = cluster("up", port, protocol="HTTP2", tls=tls, health_check=GRPC)
        async with checked(up, secrets=mesh.secrets("caller")) as sidecar:
            assert sidecar.healthy() == [True]
            # One connection, which is nobody else's.
            stats = sidecar.running.cluster_stats("up")
            assert (stats.ssl_handshake, stats.upstream_cx_total, stats.upstream_rq_total) == (1, 0, 0)
            await eventually(lambda: sidecar.stats().success > 3)
            assert stats.ssl_handshake == 1
        other = cluster("up", port, protocol="HTTP2", tls=mutual(spiffe("imposter")), health_check=GRPC)
        async with checked(other, secrets=mesh.secrets("caller")) as sidecar:
            assert sidecar.healthy() == [False]
            assert sidecar.stats().network_failure
            assert sidecar.running.cluster_stats("up").ssl_fail_verify_san


class Scripted:
    """A health service that speaks frames: ``behave`` says what it does with a call."""

    def __init__(self) -> None:
        self.behave = "serve"
        self.heads: list[dict[str, str]] = []

    async def __call__(self, peer: Http2Peer, number: int, stream: Stream) -> None:
        await peer.until(lambda: stream.ended or stream.reset is not None)
        self.heads.append(dict(stream.fields))
        match self.behave:
            case "serve":
                peer.respond(number, ("content-type", "application/grpc"))
                peer.send(number, frame(SERVING), trailers=[("grpc-status", "0")])
            case "endless":
                peer.respond(number, ("content-type", "text/html"))
            case "reset":
                peer.reset(number)
            case "goaway":
                peer.h2.send_goaway(11, last_stream_id=number)
                peer.flush()
            case "silent":
                pass


@asynccontextmanager
async def scripted(**options: object) -> AsyncIterator[tuple[Scripted, Checked, list[Http2Peer]]]:
    service = Scripted()
    check = replace(GRPC, **options)  # type: ignore[arg-type]
    async with http2_backend(service) as server:
        up = cluster("up", server.port, protocol="HTTP2", health_check=check)
        async with checked(up) as sidecar:
            assert sidecar.healthy() == [True]
            yield service, sidecar, server.peers


async def test_what_goes_over_the_wire() -> None:
    metadata = (HeaderValueOption("x-team", "shop"), HeaderValueOption("user-agent", "me", "ADD_IF_ABSENT"))
    async with scripted(check=GrpcCheck("s", "", metadata), timeout=2.5) as (service, _, _):
        assert service.heads[0] == {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "up",
            ":path": "/grpc.health.v1.Health/Check",
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "Envoy/HC",
            "x-team": "shop",
            "grpc-timeout": "2500m",
        }


async def test_an_answer_that_is_no_grpc_ends_its_stream_and_not_the_connection() -> None:
    async with scripted() as (service, sidecar, peers):
        service.behave = "endless"
        await eventually(lambda: sidecar.healthy() == [False])
        assert not sidecar.stats().network_failure
        (peer,) = peers
        await eventually(lambda: any(stream.reset == 8 for stream in peer.streams.values()))
        service.behave = "serve"
        await eventually(lambda: sidecar.healthy() == [True])
        assert len(peers) == 1


async def test_a_reset_is_a_failure_of_the_network_and_has_a_threshold() -> None:
    async with scripted(unhealthy_threshold=3) as (service, sidecar, _):
        service.behave = "reset"
        await eventually(lambda: sidecar.stats().network_failure == 2)
        assert sidecar.healthy() == [True]
        await eventually(lambda: sidecar.healthy() == [False])
        assert sidecar.stats().network_failure >= 3


async def test_a_call_that_takes_too_long_is_reset_and_the_host_timed_out() -> None:
    async with scripted(timeout=1.0, unhealthy_threshold=1) as (service, sidecar, peers):
        service.behave = "silent"
        await eventually(lambda: sidecar.healthy() == [False])
        (host,) = sidecar.running.hub.current.clusters["up"].hosts
        assert host.flags == flags.FAILED_ACTIVE_HC | flags.ACTIVE_HC_TIMEOUT
        await eventually(lambda: 8 in [stream.reset for stream in peers[0].streams.values()])
        assert len(peers) == 1


async def test_each_check_has_a_connection_of_its_own_if_it_is_not_to_be_reused() -> None:
    async with scripted(reuse_connection=False) as (_, sidecar, peers):
        await eventually(lambda: len(peers) > 3)
        await eventually(lambda: peers[0].closed and peers[1].closed)
        assert sidecar.stats().failure == 0
        assert all(len(peer.streams) <= 1 for peer in peers)


async def test_a_graceful_goaway_fails_nothing_and_the_next_check_connects_anew() -> None:
    async with scripted() as (_, sidecar, peers):
        peers[0].h2.send_goaway(0)
        peers[0].flush()
        await eventually(lambda: len(peers) == 2 and len(peers[1].streams) > 1)
        assert sidecar.stats().failure == 0


async def test_a_goaway_with_an_error_fails_the_check_under_way() -> None:
    async with scripted(unhealthy_threshold=1) as (service, sidecar, peers):
        service.behave = "goaway"
        await eventually(lambda: sidecar.healthy() == [False])
        (host,) = sidecar.running.hub.current.clusters["up"].hosts
        assert host.flags == flags.FAILED_ACTIVE_HC
        assert sidecar.stats().network_failure
        service.behave = "serve"
        await eventually(lambda: sidecar.healthy() == [True])
        assert len(peers) > 1


async def test_calls_to_a_host_that_fails_end_and_no_more_begin_on_their_connection() -> None:
    service = Scripted()
    held: list[tuple[Http2Peer, int]] = []

    async def serve(peer: Http2Peer, number: int, stream: Stream) -> None:
        if stream.fields[":path"] == "/held":
            held.append((peer, number))
        else:
            await service(peer, number, stream)

    async with http2_backend(serve) as server:
        up = cluster("up", server.port, protocol="HTTP2", health_check=GRPC)
        async with checked(FRONT, up) as sidecar:
            peer = await dial(sidecar.running.port)
            peer.send(b"GET /held HTTP/1.1\r\nhost: h\r\n\r\n")
            await eventually(lambda: len(held) == 1)
            service.behave = "endless"
            stats = sidecar.running.cluster_stats("up")
            await eventually(lambda: sidecar.healthy() == [False])
            ((to, number),) = held
            pool = sidecar.running.worker._pool
            (connection,) = pool._connections
            await eventually(lambda: connection.draining)
            assert stats.upstream_cx_active == 1
            to.respond(number, ("content-length", "2"))
            to.send(number, b"ok", end=True)
            assert (await peer.response())[::2] == (200, b"ok")
            await eventually(lambda: stats.upstream_cx_active == 0)
            peer.close()


@pytest.mark.parametrize("name", ["a b", "\u00fc", "x" * 200_000])
async def test_whom_cannot_be_asked_for_is_unhealthy_and_no_crash(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with http2_backend(Scripted()) as server:
        up = cluster(name, server.port, protocol="HTTP2", health_check=health_check(GrpcCheck(), timeout=0.3))
        async with checked(up) as sidecar:
            before = sidecar.stats(name).attempt
            await eventually(lambda: sidecar.stats(name).attempt > before + 2)
    assert "cannot be asked" not in caplog.text
