"""The ADS server over real sockets: mTLS, identity, both variants, limits, and how streams end."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2

from control_plane.metrics import Metrics
from control_plane.store.base import Compacted, Delete, Key, Put
from control_plane.translate.resources import Part, Resources
from control_plane.xds.debug import setup_routes
from control_plane.xds.push import Pusher, PushOptions
from control_plane.xds.resource_types import CLUSTER, LISTENER, ROUTE
from control_plane.xds.server import ServerIdentity, ServerOptions, XdsServer
from control_plane.xds.session import SessionLimits
from control_plane.xds.status import StatusBoard
from tests.fakes import pki
from tests.fakes.store import FakeStore
from tests.support.ads_client import AdsStream, names_of, node

SERVER_NAME = "xds.test"
BOTH = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
ENTRY = Key("networking.istio.io", "workloadentries", "default", "web-1")


class ServicesMesh:
    """A cluster for each Service, and one listener. ``broken`` names what fails."""

    def __init__(self) -> None:
        self.broken = ""

    def load(self, snapshot):
        if self.broken == "load":
            raise RuntimeError("no view")
        return dict(snapshot.objects)

    def apply(self, view, events):
        if self.broken == "apply":
            raise RuntimeError("no view")
        after = dict(view)
        for event in events:
            after[event.object.key] = event.object
            if event.type.value == "DELETED":
                del after[event.object.key]
        return after

    def translate(self, view, node):
        if self.broken == f"translate {node.name}":
            raise RuntimeError("no resources")
        part = Part()
        for key, stored in view.items():
            if key.plural == "services":
                stat = stored.body["spec"]["stat"]
                part.add(
                    CLUSTER,
                    key.name,
                    cluster_pb2.Cluster(name=key.name, alt_stat_name=stat),
                    frozenset({key}),
                )
        part.add(LISTENER, "l", listener_pb2.Listener(name="l"))
        return Resources(part.by_type, part.origins, {})

    def conditions(self, view):
        return {}


def service(name: str, stat: str = "") -> Put:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}}
    return Put(Key("", "services", "default", name), {**body, "spec": {"stat": stat}})


class World:
    """A store, a pusher and a server that listens on both ports; certificates of one mesh."""

    def __init__(self, *, push: PushOptions, server: ServerOptions) -> None:
        self.now = datetime.datetime.now(datetime.UTC)
        self.root = self.ca("spiffe://mesh.local")
        self.store = FakeStore()
        self.mesh = ServicesMesh()
        self.push, self.options = push, server
        self.channels: list[grpc.aio.Channel] = []

    def ca(self, uri: str) -> pki.Pair:
        return pki.make_ca(uris=(uri,), **self.life())

    def life(self, **delta: float) -> dict:
        return {
            "not_before": self.now - datetime.timedelta(hours=1),
            "not_after": self.now + datetime.timedelta(**(delta or {"hours": 1})),
        }

    def leaf(self, uri: str = "spiffe://mesh.local/ns/default/sa/web", **changes) -> pki.Pair:
        return pki.make(**{"signer": self.root, "uris": (uri,), **self.life(), **changes})

    def identity(self, name: str = SERVER_NAME) -> ServerIdentity:
        pair = self.leaf(
            "spiffe://mesh.local/ns/tulle-system/sa/control-plane", others=(pki.x509.DNSName(name),)
        )
        return ServerIdentity(pair.key_pem, pair.pem.encode(), self.root.pem.encode())

    async def start(self) -> None:
        self.board = StatusBoard(clock=time.time)
        self.pusher = Pusher(self.store, self.mesh, self.board, options=self.push)
        await self.pusher.start()
        self.server = XdsServer(self.pusher, trust_domain="mesh.local", options=self.options)
        self.tls_port = await self.server.listen_tls("127.0.0.1:0", self.identity())
        self.plain_port = await self.server.listen_plaintext("127.0.0.1:0")
        await self.server.start()

    async def stop(self) -> None:
        for channel in self.channels:
            await channel.close()
        await self.server.stop(1.0)
        await self.pusher.stop()

    def channel(self, client: pki.Pair | None = None, name: str = SERVER_NAME) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.root.pem.encode(),
            client.key_pem if client else None,
            client.pem.encode() if client else None,
        )
        # Without its own pool, a channel with equal arguments would share an older connection.
        options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.secure_channel(f"127.0.0.1:{self.tls_port}", credentials, options)
        self.channels.append(channel)
        return channel

    def plaintext(self) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.plain_port}", [("grpc.use_local_subchannel_pool", 1)]
        )
        self.channels.append(channel)
        return channel

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that another task brings about."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the parts under test have no event for it
                await asyncio.sleep(0.005)


@pytest.fixture
async def make_world() -> AsyncIterator[Callable]:
    worlds: list[World] = []

    async def make(
        push: PushOptions | None = None, server: ServerOptions | None = None, *changes: Put
    ) -> World:
        world = World(push=push or PushOptions(), server=server or ServerOptions())
        for change in changes or (service("a"), service("b")):
            await world.store.commit([change], author="test")
        worlds.append(world)
        await world.start()
        return world

    yield make
    for world in worlds:
        await world.stop()


@BOTH
async def test_mtls_then_a_change(make_world: Callable, delta: bool) -> None:
    world = await make_world()
    async with AdsStream(world.channel(world.leaf()), delta=delta, node=node()) as stream:
        await stream.ask(CLUSTER)
        first = await stream.response()
        assert (first.type_url, len(first.resources)) == (CLUSTER, 2)
        await stream.ack(first)
        await world.store.commit([service("c")], author="test")
        second = await stream.response()
        assert len(second.resources) == (1 if delta else 3)
        assert second.nonce != first.nonce
        await stream.ack(second)
        await world.until(lambda: world.pusher.counters.acks == 2)
    status = world.board.conditions(Key("", "services", "default", "c"), 1)["conditions"][-1]
    assert (status["type"], status["reason"]) == ("Programmed", "NoSidecars"), "the sidecar has left"
    await world.until(lambda: world.server.streams == 0)


async def test_the_status_follows_ack_and_nack(make_world: Callable) -> None:
    world = await make_world()
    key = Key("", "services", "default", "a")

    def programmed() -> dict:
        return world.board.conditions(key, 1)["conditions"][-1]

    async with AdsStream(world.channel(world.leaf()), delta=True, node=node()) as stream:
        await stream.ask(CLUSTER)
        first = await stream.response()
        assert (programmed()["status"], programmed()["message"]) == ("False", "0/1 sidecars")
        await stream.ack(first)
        await world.until(lambda: programmed()["status"] == "True")
        assert programmed()["message"] == "1/1 sidecars"
        await world.store.commit([service("a", "bad")], author="test")
        await stream.nack(await stream.response(), "a: alt_stat_name is bad")
        await world.until(lambda: world.pusher.counters.nacks == 1)
        refused = programmed()
        assert (refused["status"], refused["reason"]) == ("False", "Rejected")
        assert "alt_stat_name is bad" in refused["message"]
        assert node().id in refused["message"]
        await world.store.commit([service("a", "good")], author="test")
        await stream.ack(await stream.response())
        await world.until(lambda: programmed()["status"] == "True")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uri": "spiffe://other.example/ns/default/sa/web"}, "not of trust domain 'mesh.local'"),
        ({"usage": frozenset({"digital_signature", "key_cert_sign"})}, "keyCertSign"),
        ({"uri": "https://example.org/"}, "no X.509-SVID"),
    ],
    ids=["foreign trust domain", "may sign", "no SPIFFE ID"],
)
async def test_certificates_that_are_no_svid_of_the_mesh(
    make_world: Callable, changes: dict, words: str
) -> None:
    world = await make_world()
    stream = AdsStream(world.channel(world.leaf(**changes)), delta=True, node=node())
    code, details = await stream.status()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert words in details
    assert world.pusher.counters.streams_unidentified == 1


async def test_another_ca_or_no_certificate_does_not_get_in(make_world: Callable) -> None:
    world = await make_world()
    stranger = world.leaf(signer=world.ca("spiffe://mesh.local"))
    for client in (stranger, None):
        stream = AdsStream(world.channel(client), delta=True, node=node())
        code, _ = await stream.status()
        assert code is grpc.StatusCode.UNAVAILABLE
    assert world.pusher.counters.streams == 0


async def test_a_node_must_be_what_its_certificate_says(make_world: Callable) -> None:
    world = await make_world()
    stream = AdsStream(
        world.channel(world.leaf()), delta=True, node=node(namespace="prod", service_account="bank")
    )
    await stream.ask(CLUSTER)
    code, details = await stream.status()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "'bank'" in details
    assert "spiffe://mesh.local/ns/default/sa/web" in details


async def test_a_stream_ends_with_its_certificate(make_world: Callable) -> None:
    world = await make_world()
    async with AdsStream(
        world.channel(world.leaf(**world.life(seconds=2))), delta=True, node=node()
    ) as stream:
        await stream.ask(CLUSTER)
        await stream.ack(await stream.response())
        code, details = await stream.status()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "expired" in details


async def test_a_rotated_certificate_is_used_for_new_connections(make_world: Callable) -> None:
    world = await make_world()
    async with AdsStream(world.channel(world.leaf()), delta=True, node=node()) as old:
        await old.ask(CLUSTER)
        await old.ack(await old.response())
        world.server.rotate(world.identity("new.test"))
        refused = AdsStream(world.channel(world.leaf()), delta=True, node=node())
        assert (await refused.status())[0] is grpc.StatusCode.UNAVAILABLE
        async with AdsStream(world.channel(world.leaf(), "new.test"), delta=True, node=node()) as new:
            await new.ask(CLUSTER)
            assert len((await new.response()).resources) == 2
        await world.store.commit([service("c")], author="test")
        assert names_of(await old.response()) == ["c"], "the old connection goes on"


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "localhost:0", "10.0.0.1:0", ":0"])
async def test_plaintext_is_for_loopback_only(make_world: Callable, address: str) -> None:
    world = await make_world()
    with pytest.raises(ValueError, match="only 127"):
        await world.server.listen_plaintext(address)


@pytest.mark.parametrize(
    ("server", "request_", "code", "words", "counter"),
    [
        ({"max_node_bytes": 100}, {}, "INVALID_ARGUMENT", "at most 100", "nodes_refused"),
        (
            {"max_request_bytes": 3000},
            {"names": ["x" * 4000]},
            "RESOURCE_EXHAUSTED",
            "at most 3000",
            "requests_too_large",
        ),
        ({}, {"names": ["a", "b", "c"]}, "RESOURCE_EXHAUSTED", "more than 2", "subscriptions_refused"),
        ({}, {"type_url": ""}, "INVALID_ARGUMENT", "type_url is empty", "requests_malformed"),
        ({}, {"node": node(INBOUND="x")}, "INVALID_ARGUMENT", "INBOUND", "nodes_refused"),
    ],
)
async def test_limits(
    make_world: Callable, server: dict, request_: dict, code: str, words: str, counter: str
) -> None:
    push = PushOptions(session=SessionLimits(max_subscriptions=2))
    world = await make_world(push, ServerOptions(**server))
    stream = AdsStream(world.plaintext(), delta=True, node=request_.get("node", node()))
    await stream.ask(request_.get("type_url", ROUTE), request_.get("names", ()))
    got, details = await stream.status()
    assert got is grpc.StatusCode[code]
    assert words in details
    assert getattr(world.pusher.counters, counter) == 1
    await world.until(lambda: world.server.streams == 0 and not world.board.nodes)


async def test_bytes_that_are_no_request(make_world: Callable) -> None:
    world = await make_world()
    stream = AdsStream(world.plaintext(), delta=True, node=node())
    await stream.call.write(b"\xff\xff\xff")
    code, details = await stream.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "DeltaDiscoveryRequest" in details


async def test_too_many_types(make_world: Callable) -> None:
    world = await make_world(PushOptions(session=SessionLimits(max_types=2)))
    stream = AdsStream(world.plaintext(), delta=True, node=node())
    for number in range(3):
        await stream.ask(f"type.googleapis.com/x{number}", ["a"])
    code, details = await stream.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "resource types" in details


async def test_too_many_streams(make_world: Callable) -> None:
    world = await make_world(None, ServerOptions(max_streams=1))
    async with AdsStream(world.plaintext(), delta=True, node=node()) as first:
        await first.ask(CLUSTER)
        await first.response()
        code, details = await AdsStream(world.plaintext(), delta=True, node=node()).status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 streams" in details
        assert world.pusher.counters.streams_refused == 1
    await world.until(lambda: world.server.streams == 0)
    async with AdsStream(world.plaintext(), delta=True, node=node()) as again:
        await again.ask(CLUSTER)
        await again.response()


async def test_a_silent_client_is_sent_away(make_world: Callable) -> None:
    world = await make_world(None, ServerOptions(first_request_timeout=0.05))
    code, _ = await AdsStream(world.plaintext(), delta=True, node=node()).status()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_never_reads_holds_up_nobody(make_world: Callable) -> None:
    big = [service(f"s{number}", "x" * 60_000) for number in range(40)]
    world = await make_world(None, None, *big)
    async with AdsStream(world.plaintext(), delta=True, node=node("deaf")) as deaf:
        await deaf.ask(CLUSTER)
        async with AdsStream(world.plaintext(), delta=True, node=node("keen")) as keen:
            await keen.ask(CLUSTER)
            await keen.ack(await keen.response())
            for number in range(20):
                await world.store.commit([service("s0", str(number))], author="test")
                response = await keen.response()
                assert names_of(response) == ["s0"]
                await keen.ack(response)
            waiting = sum(len(one.outbox) for one in world.pusher._subscribers)
            assert waiting <= 1, "one response per type, however many changes"


async def test_stopping_tells_clients_to_come_again(make_world: Callable) -> None:
    world = await make_world()
    stream = AdsStream(world.plaintext(), delta=True, node=node())
    await stream.ask(CLUSTER)
    await stream.response()
    stopping = asyncio.create_task(world.server.stop(5.0))
    code, details = await stream.status()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "stopping" in details
    await stopping


# -- pushes


async def test_what_cannot_be_translated_leaves_the_old(make_world: Callable) -> None:
    world = await make_world()
    async with (
        AdsStream(world.plaintext(), delta=True, node=node("one")) as one,
        AdsStream(world.plaintext(), delta=True, node=node("two")) as two,
    ):
        for stream in (one, two):
            await stream.ask(CLUSTER)
            await stream.ack(await stream.response())
        world.mesh.broken = "translate one"
        await world.store.commit([service("c")], author="test")
        assert names_of(await two.response()) == ["c"]
        assert world.pusher.counters.push_failures == 1
        world.mesh.broken = ""
        await world.store.commit([service("d")], author="test")
        assert names_of(await one.response()) == ["c", "d"]


async def test_a_change_that_cannot_be_applied_is_loaded_later(make_world: Callable) -> None:
    world = await make_world()
    async with AdsStream(world.plaintext(), delta=True, node=node()) as stream:
        await stream.ask(CLUSTER)
        await stream.ack(await stream.response())
        world.mesh.broken = "apply"
        await world.store.commit([service("c")], author="test")
        assert names_of(await stream.response()) == ["c"], "loading anew helped"
        assert world.pusher.counters.push_failures == 1


async def test_many_changes_are_one_push(make_world: Callable) -> None:
    world = await make_world()
    async with AdsStream(world.plaintext(), delta=True, node=node()) as stream:
        await stream.ask(CLUSTER)
        await stream.ack(await stream.response())
        for number in range(20):
            await world.store.commit([service(f"n{number:02}")], author="test")
        response = await stream.response()
        assert len(response.resources) == 20
        assert world.pusher.counters.pushes <= 2


async def test_resources_are_encoded_once_for_all(make_world: Callable) -> None:
    world = await make_world()
    streams = [
        AdsStream(world.plaintext(), delta=number % 2 == 0, node=node(f"n{number}")) for number in range(6)
    ]
    for stream in streams:
        await stream.ask(CLUSTER)
        assert len((await stream.response()).resources) == 2
    assert world.pusher._encoder.encoded == 3
    for stream in streams:
        stream.call.cancel()


# -- workload entries


async def listening(world: World, name: str = "web-1", **more: str) -> AdsStream:
    stream = AdsStream(world.plaintext(), delta=True, node=node(name, **more))
    await stream.ask(LISTENER)
    await stream.ack(await stream.response())
    return stream


async def test_a_workload_is_registered_when_its_listeners_are_there(make_world: Callable) -> None:
    world = await make_world()
    stream = AdsStream(world.plaintext(), delta=True, node=node())
    await stream.ask(LISTENER)
    response = await stream.response()
    await asyncio.sleep(0.05)
    assert ENTRY not in world.store.objects, "not before the ACK"
    await stream.ack(response)
    await world.until(lambda: ENTRY in world.store.objects)
    assert world.store.objects[ENTRY].body["spec"]["address"] == "10.1.0.5"
    async with stream:
        pass
    await world.until(lambda: ENTRY not in world.store.objects)


async def test_a_broken_stream_has_a_grace_period(make_world: Callable) -> None:
    world = await make_world(PushOptions(leave_grace=0.4))
    stream = await listening(world)
    await world.until(lambda: ENTRY in world.store.objects)
    revision = world.store.objects[ENTRY].revision
    stream.call.cancel()
    await world.until(lambda: not world.board.nodes)
    assert ENTRY in world.store.objects
    back = await listening(world)
    await asyncio.sleep(0.6)
    assert world.store.objects[ENTRY].revision == revision, "it came back in time and nothing was written"
    back.call.cancel()
    await world.until(lambda: ENTRY not in world.store.objects)


async def test_two_streams_of_one_node_and_two_nodes_of_one_name(make_world: Callable) -> None:
    world = await make_world()
    first, second = await listening(world), await listening(world)
    other = await listening(world, ip="10.1.0.6")
    await world.until(lambda: sum(key.plural == ENTRY.plural for key in world.store.objects) == 2)
    assert {
        stored.body["spec"]["address"]
        for key, stored in world.store.objects.items()
        if key.plural == ENTRY.plural
    } == {"10.1.0.5", "10.1.0.6"}
    async with first:
        pass
    await world.until(lambda: len(world.board.nodes) == 2)
    assert ENTRY in world.store.objects
    async with second, other:
        pass
    await world.until(lambda: not any(key.plural == ENTRY.plural for key in world.store.objects))


async def test_a_users_entry_is_left_alone(make_world: Callable) -> None:
    theirs = Put(ENTRY, {"metadata": {"name": "web-1"}, "spec": {"address": "1.2.3.4"}})
    world = await make_world(PushOptions(orphan_grace=0.05), None, theirs)
    stream = await listening(world)
    await world.until(lambda: len(world.store.objects) == 2)
    async with stream:
        pass
    await world.until(lambda: len(world.store.objects) == 1)
    assert world.store.objects[ENTRY].body["spec"]["address"] == "1.2.3.4"


async def test_restart_of_the_control_plane(make_world: Callable) -> None:
    world = await make_world()
    for name in ("web-1", "lost"):
        await listening(world, name)
    lost = Key(ENTRY.group, ENTRY.plural, "default", "lost")
    await world.until(lambda: {ENTRY, lost} <= world.store.objects.keys())
    await world.server.stop(1.0)
    await world.pusher.stop()
    assert {ENTRY, lost} <= world.store.objects.keys(), "stopping removes nothing"
    revision = world.store.objects[ENTRY].revision

    world.push = PushOptions(orphan_grace=0.5)
    await world.start()
    stream = await listening(world)
    await world.until(lambda: lost not in world.store.objects)
    assert world.store.objects[ENTRY].revision == revision, "adopted as it is"
    async with stream:
        pass
    await world.until(lambda: ENTRY not in world.store.objects)


# -- faults of the store, holds, and what is shown of it all


async def test_a_store_that_fails_for_a_while_loses_no_change(make_world: Callable, monkeypatch) -> None:
    monkeypatch.setattr("control_plane.xds.push._RETRY", 0.01)
    world = await make_world()
    watch, failures = world.store.watch, [RuntimeError("disk"), Compacted("too old")]

    def failing(after: int):
        if failures:
            raise failures.pop(0)
        return watch(after)

    async with AdsStream(world.plaintext(), delta=True, node=node()) as stream:
        await stream.ask(CLUSTER)
        await stream.ack(await stream.response())
        await world.pusher.stop()
        world.store.watch = failing
        await world.store.commit([service("c")], author="test")
        world.pusher._stopping = False
        following = asyncio.create_task(world.pusher._follow(0))
        pushing = asyncio.create_task(world.pusher._push_forever())
        try:
            assert names_of(await stream.response()) == ["c"]
        finally:
            for task in (following, pushing):
                task.cancel()
            await asyncio.gather(following, pushing, return_exceptions=True)
    assert not failures
    assert world.pusher.counters.store_failures == 1


async def test_a_hold_ends_by_itself(make_world: Callable) -> None:
    """The client never asks for listeners, for which the removal of a cluster waits."""
    world = await make_world(PushOptions(hold_timeout=0.2))
    async with AdsStream(world.plaintext(), delta=True, node=node()) as stream:
        await stream.ask(CLUSTER)
        await stream.ack(await stream.response())
        await world.store.commit([Delete(Key("", "services", "default", "b"))], author="test")
        removal = await stream.response()
        assert list(removal.removed_resources) == ["b"]
        assert world.pusher.counters.holds_expired == 1


async def test_the_debug_page_and_the_metrics(make_world: Callable) -> None:
    world = await make_world()
    metrics = Metrics()
    world.pusher.counters.register(metrics)
    app = web.Application()
    setup_routes(app, world.pusher)
    async with AdsStream(world.plaintext(), delta=True, node=node()) as stream:
        await stream.ask(CLUSTER)
        await stream.ack(await stream.response())
        await world.until(lambda: world.pusher.counters.acks == 1)
        async with TestClient(TestServer(app)) as client:
            shown = await (await client.get("/debug/syncz")).json()
    assert shown["revision"] == world.store.revision
    assert [one["node"] for one in shown["nodes"]] == [node().id]
    assert shown["nodes"][0]["types"]["CDS"]["state"] == "SYNCED"
    text = metrics.render()
    assert "tulle_xds_acks_total 1\n" in text
    assert "tulle_xds_streams_total 1\n" in text
