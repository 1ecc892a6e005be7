"""A client that works as Envoy does, against a session, with every interleaving that hypothesis finds.

The client warms clusters and listeners, subscribes to assignments and routes as it learns of them, and
routes traffic by what is warm. Whatever the order of messages, traffic never meets a cluster that is not
there, no type has two unanswered responses, and in the end the client has the snapshot.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.xds.resource_types import CLUSTER, ENDPOINT, LISTENER, ROUTE
from control_plane.xds.session import Acked, DeltaSession, Nacked, Send, SessionLimits, SotwSession
from control_plane.xds.snapshot import Encoder, Snapshot

MESSAGES = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINT: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    ROUTE: route_pb2.RouteConfiguration,
}


@st.composite
def meshes(draw: st.DrawFn) -> dict:
    """A consistent configuration: listeners name routes that exist, routes name clusters that exist."""
    services = draw(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2), min_size=1, max_size=5))
    endpoints = {name: draw(st.integers(0, 1)) for name in services}
    refs = st.lists(st.sampled_from(sorted(services)), min_size=1, max_size=3, unique=True)
    routes = draw(st.dictionaries(st.sampled_from("rst"), refs, min_size=1, max_size=3))
    used = draw(
        st.dictionaries(st.sampled_from("lmn"), st.sampled_from(sorted(routes)), min_size=1, max_size=3)
    )
    return {
        CLUSTER: [
            cluster_pb2.Cluster(name=name, alt_stat_name=str(version), type=cluster_pb2.Cluster.EDS)
            for name, version in services.items()
        ],
        ENDPOINT: [
            endpoint_pb2.ClusterLoadAssignment(
                cluster_name=name,
                policy=endpoint_pb2.ClusterLoadAssignment.Policy(weighted_priority_health=bool(version)),
            )
            for name, version in endpoints.items()
        ],
        LISTENER: [
            listener_pb2.Listener(name=name, stat_prefix=route) for name, route in sorted(used.items())
        ],
        ROUTE: [
            route_pb2.RouteConfiguration(name=name, internal_only_headers=routes[name])
            for name in sorted(set(used.values()))
        ],
    }


@dataclass
class Held:
    """A type as the client has it."""

    resources: dict = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    nonce: str = ""
    version: str = ""


class Client:
    """Reads frames, answers, and says what it would route where."""

    def __init__(self, delta: bool, before: Client | None = None) -> None:
        self.delta = delta
        self.types = {url: Held() for url in MESSAGES}
        self.out: deque = deque()
        self.warming: set[str] = set()
        self.warm: set[str] = set()
        self.active: dict[str, str] = {}
        self.owed_ack = ""
        if before is not None:
            self.types, self.warming = before.types, before.warming
            self.warm, self.active = before.warm, before.active
            # Nobody can tell the new stream that an assignment was awaited: Envoy's 15 s timer ends that.
            self.warming -= self.types[ENDPOINT].resources.keys()
        for url, held in self.types.items():
            held.nonce = ""
            if url in (CLUSTER, LISTENER) or held.names:
                self.request(url, subscribe=held.names, first=True)

    def request(
        self,
        url: str,
        subscribe: set[str] = frozenset(),
        gone: set[str] = frozenset(),
        *,
        first: bool = False,
    ) -> None:
        held = self.types[url]
        if self.delta:
            self.out.append(
                discovery_pb2.DeltaDiscoveryRequest(
                    type_url=url,
                    resource_names_subscribe=sorted(subscribe),
                    resource_names_unsubscribe=sorted(gone),
                    initial_resource_versions=held.versions if first else {},
                )
            )
        else:
            self.out.append(
                discovery_pb2.DiscoveryRequest(
                    type_url=url,
                    resource_names=sorted(held.names),
                    response_nonce=held.nonce,
                    version_info=held.version,
                )
            )

    def answer(self, url: str, nonce: str, error: str = "") -> None:
        held = self.types[url]
        if self.delta:
            message = discovery_pb2.DeltaDiscoveryRequest(type_url=url, response_nonce=nonce)
        else:
            message = discovery_pb2.DiscoveryRequest(
                type_url=url,
                response_nonce=nonce,
                resource_names=sorted(held.names),
                version_info=held.version,
            )
        if error:
            message.error_detail.message = error
        self.out.append(message)

    def want(self, url: str, names: set[str]) -> None:
        held = self.types[url]
        added, gone = names - held.names, held.names - names
        if not (added or gone):
            return
        held.names = set(names)
        for name in gone:
            held.resources.pop(name, None)
            held.versions.pop(name, None)
        self.request(url, added, gone)

    def receive(self, frame: bytes, *, refuse: bool, answer_first: bool) -> None:
        url, nonce, version, changed, removed = self.parse(frame)
        held = self.types[url]
        held.nonce = nonce
        if refuse:
            self.answer(url, nonce, "no")
            if url == ENDPOINT:
                # Envoy tells all clusters that wait, and each goes on with what it has.
                self.warming -= held.names
                self.answer_clusters()
            return
        held.version = version
        if answer_first:
            self.answer(url, nonce)
        for name, (message, resource_version) in changed.items():
            if url in (ENDPOINT, ROUTE) and name not in held.names:
                continue  # what was unsubscribed while it was on its way
            if url == CLUSTER and held.resources.get(name) != message:
                self.warming.add(name)
            held.resources[name] = message
            held.versions[name] = resource_version
        for name in removed:
            held.resources.pop(name, None)
            held.versions.pop(name, None)
            if url == ENDPOINT:
                self.warming.discard(name)
        if url == CLUSTER:
            self.warming &= held.resources.keys()
            self.warm &= held.resources.keys()
            self.want(ENDPOINT, {*held.resources})
        elif url == ENDPOINT:
            for name in changed:
                self.warming.discard(name)
                if name in self.types[CLUSTER].resources:
                    self.warm.add(name)
        elif url == LISTENER:
            self.want(ROUTE, {one.stat_prefix for one in held.resources.values()} | {*self.active.values()})
        if not answer_first and url == CLUSTER and self.warming:
            self.owed_ack = nonce  # as Envoy does, which holds all requests for clusters while some warm
        elif not answer_first:
            self.answer(url, nonce)
        self.answer_clusters()
        self.activate()

    def answer_clusters(self) -> None:
        if self.owed_ack and not self.warming:
            self.answer(CLUSTER, self.owed_ack)
            self.owed_ack = ""

    def activate(self) -> None:
        """A listener replaces its older version once its routes are there."""
        listeners, routes = self.types[LISTENER].resources, self.types[ROUTE].resources
        for name in [*self.active]:
            if name not in listeners:
                del self.active[name]
        for name, listener in listeners.items():
            if listener.stat_prefix in routes:
                self.active[name] = listener.stat_prefix
        self.want(ROUTE, {one.stat_prefix for one in listeners.values()} | {*self.active.values()})

    def parse(self, frame: bytes) -> tuple:
        if self.delta:
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(frame)
            packed = [(one.resource, one.name, one.version) for one in response.resources]
            version, removed = response.system_version_info, [*response.removed_resources]
        else:
            response = discovery_pb2.DiscoveryResponse.FromString(frame)
            packed = [(one, None, "") for one in response.resources]
            version, removed = response.version_info, []
        url = response.type_url
        changed = {}
        for one, name, resource_version in packed:
            message = MESSAGES[url]()
            assert one.Unpack(message)
            actual = message.cluster_name if url == ENDPOINT else message.name
            assert name in (None, actual)
            changed[actual] = (message, resource_version)
        if not self.delta and url in (CLUSTER, LISTENER):
            removed = [name for name in self.types[url].resources if name not in changed]
        return url, response.nonce, version, changed, removed

    def broken(self) -> list[str]:
        routes = self.types[ROUTE].resources
        return [
            f"{listener} -> {route} -> {cluster}"
            for listener, route in self.active.items()
            for cluster in routes[route].internal_only_headers
            if cluster not in self.warm
        ]


class Conversation(RuleBasedStateMachine):
    delta = True
    refusals = False

    @initialize(mesh=meshes())
    def connect(self, mesh: dict) -> None:
        self.encoder = Encoder()
        self.revision = 0
        self.disturbed = False
        self.started = False
        self.client: Client | None = None
        self.snapshot = self.make(mesh)
        self.reconnect()

    def make(self, mesh: dict) -> Snapshot:
        self.revision += 1
        by_type = {
            url: {one.cluster_name if url == ENDPOINT else one.name: one for one in many}
            for url, many in mesh.items()
        }
        return self.encoder.snapshot(self.revision, by_type)

    @precondition(lambda self: self.client is not None)
    @rule()
    def reconnect(self) -> None:
        self.session = (
            DeltaSession(SessionLimits(max_response_bytes=60)) if self.delta else SotwSession(SessionLimits())
        )
        if self.client is not None and not self.delta:
            # The server of a new stream cannot know what a state-of-the-world client still has.
            self.disturbed = True
        self.client = Client(self.delta, self.client)
        self.down: deque[bytes] = deque()
        self.unanswered: dict[str, str] = {}
        self.run(self.session.update(self.snapshot))

    def run(self, actions: list) -> None:
        for action in actions:
            match action:
                case Send(response, frame):
                    assert response.type_url not in self.unanswered, "two responses of one type in flight"
                    self.unanswered[response.type_url] = response.nonce
                    self.down.append(frame)
                case Acked(response) | Nacked(response):
                    assert self.unanswered.pop(response.type_url) == response.nonce

    @rule(mesh=meshes())
    def change(self, mesh: dict) -> None:
        self.snapshot = self.make(mesh)
        self.run(self.session.update(self.snapshot))

    @precondition(lambda self: self.down)
    @rule(answer_first=st.booleans(), refuse=st.integers(0, 3))
    def client_reads(self, answer_first: bool, refuse: int) -> None:
        refused = self.refusals and refuse == 0
        self.disturbed = self.disturbed or refused
        self.client.receive(self.down.popleft(), refuse=refused, answer_first=answer_first)

    @precondition(lambda self: self.client.out)
    @rule()
    def server_reads(self) -> None:
        self.run(self.session.receive(self.client.out.popleft()))

    @invariant()
    def traffic_flows(self) -> None:
        if getattr(self, "client", None) is None or self.disturbed:
            return
        broken = self.client.broken()
        # A client that starts asks for everything at once and is ready when it has it.
        self.started = self.started or (bool(self.client.active) and not broken and not self.unanswered)
        if self.started:
            assert broken == []

    def settle(self) -> None:
        for _ in range(500):
            if self.client.out:
                self.server_reads()
            elif self.down:
                self.client.receive(self.down.popleft(), refuse=False, answer_first=True)
                self.traffic_flows()
            elif self.session.holding and self.disturbed:
                self.run(self.session.release())
            else:
                break
        else:
            pytest.fail("the conversation does not come to rest")

    def teardown(self) -> None:
        if getattr(self, "client", None) is None:
            return
        self.settle()
        if self.refusals:
            # What was refused is sent again with the next change of its type, so each type gets one.
            more = {
                CLUSTER: [cluster_pb2.Cluster(name="z", type=cluster_pb2.Cluster.EDS)],
                ENDPOINT: [endpoint_pb2.ClusterLoadAssignment(cluster_name="z")],
                LISTENER: [listener_pb2.Listener(name="z", stat_prefix="z")],
                ROUTE: [route_pb2.RouteConfiguration(name="z", internal_only_headers=["z"])],
            }
            self.snapshot = self.make(more)
            self.run(self.session.update(self.snapshot))
            self.settle()
        assert not self.session.holding
        for url in MESSAGES:
            has = {
                name: message.SerializeToString(deterministic=True)
                for name, message in self.client.types[url].resources.items()
            }
            assert has.keys() == self.snapshot.of(url).resources.keys(), url
            for name, wire in has.items():
                assert wire in self.snapshot.of(url).resources[name].sotw
        assert not self.client.warming, "a cluster waits for its assignment"


NO_SHRINKING = [Phase.explicit, Phase.generate]
CHECKS = settings(
    phases=NO_SHRINKING,
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class DeltaRefusing(Conversation):
    refusals = True


class Sotw(Conversation):
    delta = False


class SotwRefusing(Sotw):
    refusals = True


TestDelta = Conversation.TestCase
TestDeltaRefusing = DeltaRefusing.TestCase
TestSotw = Sotw.TestCase
TestSotwRefusing = SotwRefusing.TestCase
TestDelta.settings = TestDeltaRefusing.settings = TestSotw.settings = TestSotwRefusing.settings = CHECKS
