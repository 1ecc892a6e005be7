"""What a status says after which verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from control_plane.store.base import Key, Stored
from control_plane.translate.resources import Condition
from control_plane.xds.debug import describe
from control_plane.xds.resource_types import CLUSTER
from control_plane.xds.session import Acked, Nacked, Response
from control_plane.xds.snapshot import Encoder, Snapshot
from control_plane.xds.status import CONTROLLER, NodeStatus, StatusBoard

A, B = Key("", "services", "default", "a"), Key("", "services", "default", "b")
ROUTE_KEY = Key("gateway.networking.k8s.io", "httproutes", "default", "r")
ENCODER = Encoder()
ORIGINS = {(CLUSTER, "a"): frozenset({A}), (CLUSTER, "a.b"): frozenset({B})}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def snapshot(content: str) -> Snapshot:
    names = ("a", "a.b")
    return ENCODER.snapshot(
        1, {CLUSTER: {n: cluster_pb2.Cluster(name=n, alt_stat_name=content) for n in names}}
    )


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.board = StatusBoard(clock=self.clock)
        self.observe(A, 1)
        self.observe(B, 1)

    def observe(self, key: Key, generation: int, **spec: Any) -> None:
        self.board.observe([Stored(key, {"spec": spec}, 1, 1, generation)])

    def node(self, name: str, content: str = "1", **more: Any) -> str:
        node = NodeStatus(name, "", "delta", "tulle", self.clock())
        node.configure(snapshot(content), ORIGINS, more.get("conditions", {}))
        self.board.connect(name, node)
        return name

    def response(self, node: str) -> Response:
        current = self.board.nodes[node].snapshot
        assert current is not None
        found = current.of(CLUSTER)
        return Response(CLUSTER, "1", found.version, {n: r.version for n, r in found.resources.items()})

    def ack(self, node: str) -> None:
        self.board.verdict(node, Acked(self.response(node)))

    def nack(self, node: str, error: str) -> None:
        self.board.verdict(node, Nacked(self.response(node), 3, error))

    def programmed(self, key: Key = A, generation: int = 1) -> dict[str, Any]:
        found = self.board.conditions(key, generation)["conditions"][-1]
        assert found["type"] == "Programmed"
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_an_object_that_was_never_seen_has_no_status(world: World) -> None:
    assert world.board.conditions(Key("", "services", "x", "y"), 1) == {}
    world.board.forget([A])
    assert world.board.conditions(A, 1) == {}


def test_sidecars_are_counted(world: World) -> None:
    assert (world.programmed()["status"], world.programmed()["reason"]) == ("Unknown", "NoSidecars")
    for node in ("one", "two", "three"):
        world.node(node)
    world.ack("one")
    world.ack("two")
    found = world.programmed()
    assert (found["status"], found["reason"], found["message"]) == ("False", "Pending", "2/3 sidecars")
    world.ack("three")
    found = world.programmed()
    assert (found["status"], found["reason"], found["message"]) == ("True", "Programmed", "3/3 sidecars")
    world.board.disconnect("three")
    assert world.programmed()["message"] == "2/2 sidecars"


def test_a_later_generation_is_pending(world: World) -> None:
    found = world.programmed(generation=2)
    assert (found["status"], found["reason"], found["observedGeneration"]) == ("Unknown", "Pending", 1)


def test_a_newer_version_has_to_be_accepted_anew(world: World) -> None:
    world.node("one")
    world.ack("one")
    world.board.nodes["one"].configure(snapshot("2"), ORIGINS, {})
    assert world.programmed()["message"] == "0/1 sidecars"


def test_the_resource_that_the_error_names_is_to_blame(world: World) -> None:
    world.node("one")
    world.nack("one", "cluster a.b: bad timeout")
    assert world.programmed(B)["message"] == "0/1 sidecars; one: refused CDS a.b: cluster a.b: bad timeout"
    beside = world.programmed(A)
    assert beside["reason"] == "Rejected"
    assert "sent together with what it refused" in beside["message"]
    world.ack("one")
    assert world.programmed(B)["status"] == "True"


def test_all_are_to_blame_when_the_error_names_none(world: World) -> None:
    world.node("one")
    world.nack("one", "something is bad")
    for key in (A, B):
        assert ": refused CDS" in world.programmed(key)["message"]


def test_a_refusal_of_an_older_version_no_longer_counts(world: World) -> None:
    world.node("one")
    world.nack("one", "a is bad")
    world.board.nodes["one"].configure(snapshot("2"), ORIGINS, {})
    assert world.programmed()["reason"] == "Pending"


def test_many_refusals_and_long_errors_are_shortened(world: World) -> None:
    for number in range(10):
        world.nack(world.node(f"n{number}"), "a: " + "x" * 5000)
    message = world.programmed()["message"]
    assert message.endswith("and 7 more")
    assert len(message) < 2000


def test_what_a_data_plane_cannot_do(world: World) -> None:
    unable = Condition("Programmed", False, "UnsupportedByDataPlane", "no SRV in an Envoy")
    world.node("one", conditions={A: (unable,)})
    world.ack("one")
    assert world.programmed()["message"] == "0/1 sidecars; one: no SRV in an Envoy"


def test_translates_conditions_come_first(world: World) -> None:
    world.board.judge({A: (Condition("Accepted", False, "Conflicted", "b has it"),)})
    first = world.board.conditions(A, 1)["conditions"][0]
    assert (first["type"], first["status"], first["reason"], first["message"]) == (
        "Accepted",
        "False",
        "Conflicted",
        "b has it",
    )


def test_a_transition_has_its_time_and_keeps_it(world: World) -> None:
    world.node("one")
    assert world.programmed()["lastTransitionTime"] == "1970-01-01T00:16:40Z"
    world.clock.now += 60
    world.ack("one")
    world.clock.now += 60
    assert world.programmed()["lastTransitionTime"] == "1970-01-01T00:17:40Z"
    world.clock.now += 60
    world.ack("one")
    assert world.programmed()["lastTransitionTime"] == "1970-01-01T00:17:40Z"


def test_a_route_has_its_status_per_parent(world: World) -> None:
    parents = [{"group": "", "kind": "Service", "name": "a"}, {"kind": "Service", "name": "gone"}]
    world.observe(ROUTE_KEY, 4, parentRefs=parents)
    world.board.judge(
        {
            ROUTE_KEY: (
                Condition("Accepted", True, "Accepted", parent=0),
                Condition("Accepted", False, "NoMatchingParent", parent=1),
                Condition("ResolvedRefs", True, "ResolvedRefs"),
            )
        }
    )
    found = world.board.conditions(ROUTE_KEY, 4)["parents"]
    assert [one["parentRef"] for one in found] == parents
    assert {one["controllerName"] for one in found} == {CONTROLLER}
    shown = [[(c["type"], c["status"]) for c in one["conditions"]] for one in found]
    assert shown == [
        [("Accepted", "True"), ("ResolvedRefs", "True"), ("Programmed", "Unknown")],
        [("Accepted", "False"), ("ResolvedRefs", "True"), ("Programmed", "Unknown")],
    ]
    assert {c["observedGeneration"] for one in found for c in one["conditions"]} == {4}


def test_what_is_no_longer_there_is_forgotten(world: World) -> None:
    world.programmed()
    world.board.replace([Stored(B, {}, 1, 1, 1)])
    assert world.board.conditions(A, 1) == {}
    assert all(key == B for key, _, _ in world.board._transitions)


def test_the_listing(world: World) -> None:
    world.node("one")
    kind = describe(world.board.nodes["one"])["types"]["CDS"]
    assert (kind["state"], kind["resources"], kind["accepted"]) == ("STALE", 2, 0)
    world.ack("one")
    assert describe(world.board.nodes["one"])["types"]["CDS"]["state"] == "SYNCED"
    world.nack("one", "bad")
    found = describe(world.board.nodes["one"])
    assert (found["types"]["CDS"]["state"], found["types"]["CDS"]["error"]) == ("NACKED", "bad")
    assert found["types"]["LDS"]["state"] == "NOT SENT"
    assert found["node"] == "one"
