"""Encoding: once per content, versions by content, frames that a real protobuf parser reads."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from control_plane.xds import wire
from control_plane.xds.resource_types import CLUSTER, ENDPOINT
from control_plane.xds.snapshot import EMPTY_TYPE, Encoder, SnapshotError


def cluster(name: str, stat: str = "", service: str = "") -> cluster_pb2.Cluster:
    message = cluster_pb2.Cluster(name=name, alt_stat_name=stat, type=cluster_pb2.Cluster.EDS)
    message.eds_cluster_config.service_name = service
    return message


def named(*clusters: cluster_pb2.Cluster) -> dict:
    return {one.name: one for one in clusters}


def test_a_message_is_encoded_once_and_equal_content_is_shared() -> None:
    encoder = Encoder()
    one = cluster("a")
    first = encoder.snapshot(1, {CLUSTER: named(one, cluster("b"))})
    second = encoder.snapshot(2, {CLUSTER: named(one, cluster("b"))})
    assert encoder.encoded == 2
    assert first.of(CLUSTER) is second.of(CLUSTER)
    assert first.of(CLUSTER).resources["a"].assignment == "a"


def test_versions_follow_content_across_encoders() -> None:
    def version(*clusters: cluster_pb2.Cluster) -> str:
        return Encoder().snapshot(1, {CLUSTER: named(*clusters)}).of(CLUSTER).version

    assert version(cluster("a"), cluster("b")) == version(cluster("b"), cluster("a"))
    assert version(cluster("a")) != version(cluster("a", "other"))
    assert version(cluster("a")) != version(cluster("b"))


def test_difference() -> None:
    encoder = Encoder()
    old = encoder.snapshot(1, {CLUSTER: named(cluster("a"), cluster("b"), cluster("c"))}).of(CLUSTER)
    new = encoder.snapshot(2, {CLUSTER: named(cluster("a"), cluster("b", "x"), cluster("d"))}).of(CLUSTER)
    assert new.since(old).changed == {"b", "d"}
    assert new.since(old).removed == {"c"}
    assert new.since(old) is new.since(old)
    assert new.since(new).changed == frozenset()
    assert new.since(EMPTY_TYPE).changed == {"a", "b", "d"}


def test_the_assignment_of_a_cluster_is_its_service_name() -> None:
    static = cluster_pb2.Cluster(name="s", type=cluster_pb2.Cluster.STATIC)
    snapshot = Encoder().snapshot(1, {CLUSTER: named(cluster("a", service="x"), static)}).of(CLUSTER)
    assert snapshot.assignments == {"x"}


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({CLUSTER: {"": cluster("")}}, "empty 'name'"),
        ({ENDPOINT: {"": endpoint_pb2.ClusterLoadAssignment()}}, "empty 'cluster_name'"),
        ({CLUSTER: {"b": cluster("a")}}, "CDS 'b' calls itself 'a'"),
    ],
)
def test_unusable_resources_are_named(resources: dict, words: str) -> None:
    with pytest.raises(SnapshotError, match=words):
        Encoder().snapshot(1, resources)


def test_memory_of_messages_ends_after_two_turns() -> None:
    encoder = Encoder()
    snapshot = encoder.snapshot(1, {CLUSTER: named(cluster("a"))})
    encoder.turn()
    encoder.turn()
    encoder.snapshot(2, {CLUSTER: named(cluster("a"))})
    assert encoder.encoded == 1, "a resource that a snapshot holds is found by its content"
    del snapshot
    encoder.turn()
    encoder.turn()
    encoder.snapshot(3, {CLUSTER: named(cluster("a"))})
    assert encoder.encoded == 2


@given(
    names=st.lists(st.text(min_size=1, max_size=200), unique=True, max_size=5),
    removed=st.lists(st.text(min_size=1, max_size=20), max_size=4),
    nonce=st.text(max_size=10),
)
def test_frames_are_what_protobuf_reads(names: list[str], removed: list[str], nonce: str) -> None:
    resources = (
        Encoder().snapshot(1, {CLUSTER: named(*(cluster(name) for name in names))}).of(CLUSTER).resources
    )
    delta = discovery_pb2.DeltaDiscoveryResponse.FromString(
        wire.delta_discovery_response(CLUSTER, "v", nonce, [one.delta for one in resources.values()], removed)
    )
    assert [one.name for one in delta.resources] == names
    assert [one.version for one in delta.resources] == [one.version for one in resources.values()]
    assert (delta.type_url, delta.nonce, delta.system_version_info) == (CLUSTER, nonce, "v")
    assert [*delta.removed_resources] == removed
    sotw = discovery_pb2.DiscoveryResponse.FromString(
        wire.discovery_response(CLUSTER, "v", nonce, [one.sotw for one in resources.values()])
    )
    assert (sotw.type_url, sotw.nonce, sotw.version_info) == (CLUSTER, nonce, "v")
    for packed in (*sotw.resources, *(one.resource for one in delta.resources)):
        unpacked = cluster_pb2.Cluster()
        assert packed.Unpack(unpacked)
        assert unpacked.name in names


def test_a_mapping_that_nodes_share_is_looked_at_once() -> None:
    encoder = Encoder()
    shared = named(*(cluster(f"c{n}") for n in range(5)))
    first = encoder.snapshot(1, {CLUSTER: shared})
    shared["c9"] = cluster("c9")  # against the rules, to see that nobody looks
    assert encoder.snapshot(1, {CLUSTER: shared}).of(CLUSTER) is first.of(CLUSTER)
    encoder.turn()
    encoder.turn()
    assert "c9" in encoder.snapshot(2, {CLUSTER: shared}).of(CLUSTER).resources


def test_an_empty_mapping_has_no_type() -> None:
    encoder = Encoder()
    nothing: dict = {}
    snapshot = encoder.snapshot(1, {CLUSTER: nothing, ENDPOINT: nothing})
    assert snapshot.of(CLUSTER) is snapshot.of(ENDPOINT) is EMPTY_TYPE
