"""Active health checks with real sockets: gRPC, HTTP and TCP servers that change their minds."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from proxy.cluster import flags
from proxy.grpc.message import frame
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, Endpoint, EndpointHealthCheck, LoadAssignment, LocalityEndpoints
from proxy.model.config import ConfigError
from proxy.model.health_check import GrpcCheck, HttpCheck, TcpCheck
from proxy.model.matcher import StringMatcher
from proxy.model.route import HeaderValueOption
from proxy.tls.store import SecretStore
from tests.fakes.checked import Checked, checked, health_check
from tests.fakes.http2 import Http2Peer, Stream, http2_backend
from tests.fakes.sidecar import (
    HOST,
    Mesh,
    Peer,
    Serve,
    backend,
    chain,
    changed,
    cluster,
    config,
    dial,
    eventually,
    forward,
    http,
    listener,
    mutual,
    spiffe,
    tcp,
)

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
FRONT = listener(chain(http(forward("/", "up"))))
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
    async with scripted(timeout=0.1, unhealthy_threshold=1) as (service, sidecar, peers):
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


HTTP = HttpCheck("/healthz", expected_statuses=((200, 201), (210, 220)), retriable_statuses=((429, 430),))


class Page:
    """An HTTP server. ``answer``: what it says to a check."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        self.asked: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    head += await peer.exactly(int(line[15:]))
            self.asked.append(head)
            peer.send(self.answer)


@asynccontextmanager
async def page(
    check: HttpCheck = HTTP, **options: object
) -> AsyncIterator[tuple[Page, Checked, list[bytearray]]]:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=replace(health_check(check), **options))  # type: ignore[arg-type]
        async with checked(FRONT, up) as sidecar:
            yield served, sidecar, server.received


def says(status: int, *lines: bytes, body: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n" % (status, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


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


async def test_nobody_healthy_and_no_panic_is_an_answer_of_the_sidecar() -> None:
    served = Page()
    served.answer = says(500)
    async with backend(served) as server:
        up = cluster("up", server.port, panic_threshold=0.0, health_check=health_check(HTTP))
        async with checked(FRONT, up) as sidecar:
            peer = await dial(sidecar.running.port)
            peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert (await peer.response())[::2] == (503, b"no healthy upstream")
            served.answer = says(200)
            await eventually(lambda: sidecar.healthy() == [True])
            peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert (await peer.response())[0] == 200
            peer.close()


async def test_connections_to_a_host_that_fails_are_not_kept() -> None:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=health_check(HTTP))
        async with checked(FRONT, up) as sidecar:
            peer = await dial(sidecar.running.port)
            peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            await peer.response()
            stats = sidecar.running.cluster_stats("up")
            assert (stats.upstream_cx_active, stats.upstream_cx_total) == (1, 1)
            served.answer = says(500)
            await eventually(lambda: stats.upstream_cx_active == 0)
            assert sidecar.healthy() == [False]
            assert stats.upstream_cx_destroy_local == 1
            # Panic: whoever is there is asked; that connection is as good as the host is.
            for _ in range(2):
                peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                assert (await peer.response())[0] == 500
            assert stats.upstream_cx_total == 2
            peer.close()


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


@pytest.mark.parametrize("close", [True, False])
async def test_relayed_connections_end_with_the_health_of_their_host_if_so_configured(close: bool) -> None:
    served, other = Page(), Page()
    async with backend(served) as server, backend(other) as health:
        endpoint = Endpoint(
            SocketAddress(HOST, server.port), health_check=EndpointHealthCheck(port=health.port)
        )
        up = Cluster(
            "up",
            "STATIC",
            load_assignment=eds(endpoint),
            health_check=health_check(HTTP),
            close_connections_on_host_health_failure=close,
        )
        async with checked(listener(chain(tcp("up"))), up) as sidecar:
            peer = await dial(sidecar.running.port)
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await peer.response())[0] == 200
            other.answer = says(500)
            await eventually(lambda: sidecar.healthy() == [False])
            if close:
                assert await peer.rest() == b""
            else:
                before = sidecar.stats().attempt
                await eventually(lambda: sidecar.stats().attempt > before + 15)
                peer.send(b"GET / HTTP/1.1\r\n\r\n")
                assert (await peer.response())[0] == 200
            peer.close()


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
        check = health_check(TcpCheck(b"PING", (b"PO", b"NG")), timeout=0.2)
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


def eds(*endpoints: Endpoint, name: str = "up") -> LoadAssignment:
    return LoadAssignment(name, (LocalityEndpoints(endpoints),))


async def test_a_host_that_is_listed_no_more_stays_while_it_passes() -> None:
    one, other = Page(), Page()
    async with backend(one) as first, backend(other) as second:
        hosts = [Endpoint(SocketAddress(HOST, server.port)) for server in (first, second)]
        up = Cluster("up", "EDS", health_check=health_check(HTTP))
        async with checked(up) as sidecar:
            live = sidecar.running.hub.current.clusters["up"]
            live.set_endpoints(eds(*hosts))
            sidecar.checker.follow(live)
            await eventually(lambda: sidecar.healthy() == [True, True])
            live.set_endpoints(eds(hosts[1]))
            sidecar.checker.follow(live)
            assert {host.address[1]: host.flags for host in live.hosts} == {
                second.port: 0,
                first.port: flags.PENDING_DYNAMIC_REMOVAL,
            }
            assert sidecar.checker.sessions == 2
            one.answer = says(500)
            await eventually(lambda: len(live.hosts) == 1)
            assert live.hosts[0].address[1] == second.port
            assert sidecar.checker.sessions == 1
            assert sidecar.stats().healthy == 1


async def test_an_unchanged_cluster_goes_on_and_one_that_is_gone_is_asked_no_more() -> None:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=health_check(HTTP, interval=0.05))
        async with checked(up) as sidecar:
            base = config(up)
            other = cluster("other", server.port)
            sidecar.running.apply(changed(base, other, version="2"))
            # Limits have nothing to do with health either.
            limited = replace(up, circuit_breakers=replace(up.circuit_breakers, max_requests=7))
            sidecar.running.apply(changed(base, limited, version="3"))
            before = sidecar.stats().attempt
            await eventually(lambda: sidecar.stats().attempt > before + 2)
            assert server.connections == 1 and sidecar.healthy() == [True]
            # Another check begins anew; meanwhile the host is what it was.
            served.answer = says(500)
            asks = replace(up, health_check=health_check(HttpCheck("/other")))
            sidecar.running.apply(changed(base, asks, version="4"))
            assert sidecar.healthy() == [True]
            await eventually(lambda: sidecar.healthy() == [False])
            assert served.asked[-1].startswith(b"GET /other ")
            # Without one, whoever is listed is good enough.
            sidecar.running.apply(changed(base, replace(up, health_check=None), version="5"))
            assert sidecar.healthy() == [True]
            assert sidecar.checker.sessions == 0
            assert sidecar.running.cluster_stats("up").health_check is None
            sidecar.running.apply(config(version="6"))


async def test_many_changes_leave_nothing_behind() -> None:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=health_check(HTTP, interval=0.001))
        async with checked(up) as sidecar:
            before = len(list(Path("/proc/self/fd").iterdir()))
            for number in range(100):
                asks = replace(up, health_check=health_check(HttpCheck(f"/{number}"), interval=0.001))
                more = [replace(asks, name=f"c{number % 7}"), asks]
                sidecar.running.apply(config(*more, version=str(number)))
                await asyncio.sleep(0)
                if not number % 10:
                    path = b"GET /%d " % number
                    await eventually(lambda path=path: any(head.startswith(path) for head in served.asked))
            sidecar.running.apply(config(up, version="last"))
            await eventually(lambda: served.asked[-1].startswith(b"GET /healthz "))
            await eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
            tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("health check")]
            assert len(tasks) == sidecar.checker.sessions == 1
            assert sidecar.stats().healthy == 1


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


async def test_an_endpoint_says_where_and_whether_it_is_checked() -> None:
    served, app = Page(), Page()
    async with backend(served) as health, backend(app) as serving, backend(Page()) as unchecked:
        endpoints = (
            Endpoint(
                SocketAddress(HOST, serving.port),
                health_check=EndpointHealthCheck(port=health.port, hostname="me.test"),
            ),
            Endpoint(SocketAddress(HOST, unchecked.port), health_check=EndpointHealthCheck(disabled=True)),
        )
        up = Cluster("up", "STATIC", load_assignment=eds(*endpoints), health_check=health_check(HTTP))
        async with checked(up) as sidecar:
            assert sidecar.healthy() == [True, True]
            assert sidecar.checker.sessions == 1
            assert b"host: me.test\r\n" in served.asked[0]
            assert not serving.received and not unchecked.received


async def test_new_hosts_do_not_count_until_they_were_checked_if_so_configured() -> None:
    up = Cluster(
        "up",
        "EDS",
        health_check=health_check(HTTP),
        ignore_new_hosts_until_first_hc=True,
        panic_threshold=0.0,
    )
    async with backend(Page()) as server, checked(up) as sidecar:
        live = sidecar.running.hub.current.clusters["up"]
        live.set_endpoints(eds(Endpoint(SocketAddress(HOST, server.port))))
        assert live.hosts[0].excluded
        sidecar.checker.follow(live)
        await eventually(lambda: sidecar.healthy() == [True])
        assert not live.hosts[0].excluded


@pytest.mark.parametrize(
    ("check", "path"),
    [
        (
            HttpCheck("/", headers_to_add=(HeaderValueOption("x", "%REQ(y)%"),)),
            "http_health_check.request_headers_to_add[0].header.value",
        ),
        (
            GrpcCheck(initial_metadata=(HeaderValueOption("te", "x"),)),
            "grpc_health_check.initial_metadata[0].header.key",
        ),
        (
            HttpCheck("/", service_name=StringMatcher("safe_regex", "(")),
            "http_health_check.service_name_matcher",
        ),
    ],
)
async def test_what_cannot_be_asked_is_refused(check: HttpCheck | GrpcCheck, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with checked(cluster("up", 1, health_check=health_check(check))):
            pass
    assert caught.value.path.startswith(f"cluster[up].health_checks[0].{path}")
