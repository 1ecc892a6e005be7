"""The ADS client against a gRPC server of another make (grpc.aio), over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from proxy.model.address import SocketAddress
from proxy.model.config import Config
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.xds.client import METHOD, AdsClient
from proxy.xds.decode.resources import CLUSTER, KINDS, LISTENER
from proxy.xds.session import DeltaSession
from tests.support.xds_messages import message

WAIT = 10.0


class Stream:
    """One stream as the server sees it: requests come out of ``requests``, ``None`` at a half-close."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.responses: asyncio.Queue[Any] = asyncio.Queue()

    async def next(self) -> Any:
        return await asyncio.wait_for(self.requests.get(), WAIT)

    def send(self, url: str, *messages: Any) -> None:
        made = discovery_pb2.DeltaDiscoveryResponse(type_url=url, nonce=url)
        for one in messages:
            made.resources.add(name=getattr(one, KINDS[url].name_field), version="v1").resource.Pack(one)
        self.responses.put_nowait(made)

    def end(self) -> None:
        self.responses.put_nowait(None)


class Server:
    """A fake control plane; each new stream is put into ``streams``."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.port = 0

    async def next(self) -> Stream:
        return await asyncio.wait_for(self.streams.get(), WAIT)

    async def serve(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        stream = Stream()
        self.streams.put_nowait(stream)

        async def read() -> None:
            async for request in requests:
                stream.requests.put_nowait(request)
            stream.requests.put_nowait(None)
            stream.end()

        reading = asyncio.create_task(read())
        try:
            while (made := await stream.responses.get()) is not None:
                yield made
        finally:
            reading.cancel()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    fake = Server()
    handler = grpc.stream_stream_rpc_method_handler(
        fake.serve,
        discovery_pb2.DeltaDiscoveryRequest.FromString,
        discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
    )
    service, _, method = METHOD[1:].partition("/")
    running = grpc.aio.server()
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    fake.port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    yield fake
    await running.stop(0)


@asynccontextmanager
async def client(
    server: Server,
    apply: Callable[[Config], object],
    *,
    does_not_exist_after: float = 15.0,
    on_change: Callable[[], None] = lambda: None,
) -> AsyncIterator[AdsClient]:
    session = DeltaSession(
        base_pb2.Node(id="me"),
        apply,
        clock=asyncio.get_running_loop().time,
        does_not_exist_after=does_not_exist_after,
    )
    address = SocketAddress("127.0.0.1", server.port)
    made = AdsClient(session, address, lambda: None, server_id=None, on_change=on_change, backoff_cap=0.05)
    made.start()
    try:
        yield made
    finally:
        await made.stop()


async def test_responses_are_acked_and_a_stop_closes_the_stream_in_order(server: Server) -> None:
    hub = Hub(CompileEnv())
    async with client(server, hub.apply) as ads:
        stream = await server.next()
        first, second = await stream.next(), await stream.next()
        assert (first.type_url, second.type_url, first.node.id) == (CLUSTER, LISTENER, "me")
        stream.send(CLUSTER, message(CLUSTER))
        ack = await stream.next()
        assert (ack.response_nonce, ack.HasField("error_detail")) == (CLUSTER, False)
        assert set(hub.current.clusters) == {"c"}
        stopping = asyncio.create_task(ads.stop())
        while (request := await stream.next()) is not None:
            assert request.resource_names_subscribe
        await stopping


async def test_a_broken_stream_is_opened_anew_with_what_is_held(server: Server) -> None:
    hub = Hub(CompileEnv())
    async with client(server, hub.apply):
        stream = await server.next()
        stream.send(CLUSTER, message(CLUSTER))
        while (await stream.next()).response_nonce != CLUSTER:
            pass
        stream.end()
        again = await server.next()
        assert dict((await again.next()).initial_resource_versions) == {"c": "v1"}


async def test_what_does_not_come_ends_the_waiting(server: Server) -> None:
    hub = Hub(CompileEnv())
    expired = asyncio.Event()

    def on_change() -> None:
        if hub.current.listeners:
            expired.set()

    async with client(server, hub.apply, does_not_exist_after=0.05, on_change=on_change):
        stream = await server.next()
        stream.send(LISTENER, message(LISTENER))
        await asyncio.wait_for(expired.wait(), WAIT)
        assert hub.current.warming == frozenset()
        # The stream is still the same one, and read.
        stream.send(CLUSTER, message(CLUSTER))
        while (await stream.next()).response_nonce != CLUSTER:
            pass


async def test_a_response_that_cannot_be_handled_does_not_end_the_client(server: Server) -> None:
    failures = [RuntimeError("bug")]

    def apply(config: Config) -> None:
        if failures:
            raise failures.pop()

    async with client(server, apply):
        stream = await server.next()
        stream.send(CLUSTER, message(CLUSTER))
        again = await server.next()
        again.send(CLUSTER, message(CLUSTER))
        while (await again.next()).response_nonce != CLUSTER:
            pass
