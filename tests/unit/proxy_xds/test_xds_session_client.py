"""The delta client as a state machine: ACKs, NACKs, subscriptions, reconnects."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from proxy.model.config import Config, ConfigError
from proxy.xds.decode.resources import CLUSTER, ENDPOINT, LISTENER
from proxy.xds.session import DeltaSession


class Applied:
    """Collects configurations; refuses the next one if told to."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.refuse: str | None = None

    def __call__(self, config: Config) -> None:
        if self.refuse is not None:
            raise ConfigError("listener[x].filter_chains[0]", self.refuse)
        self.configs.append(config)


@pytest.fixture
def applied() -> Applied:
    return Applied()


@pytest.fixture
def session(applied: Applied) -> DeltaSession:
    made = DeltaSession(base_pb2.Node(id="sidecar"), applied)
    made.connected()
    return made


def eds_cluster(name: str, **more: Any) -> Any:
    body = {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        **more,
    }
    return json_format.ParseDict(body, cluster_pb2.Cluster())


def assignment(name: str) -> Any:
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name)


def response(url: str, nonce: str, *messages: Any, removed: tuple[str, ...] = (), version: str = "1") -> Any:
    made = discovery_pb2.DeltaDiscoveryResponse(type_url=url, nonce=nonce, removed_resources=removed)
    for message in messages:
        name = getattr(message, "name", "") or message.cluster_name
        resource = made.resources.add(name=name, version=version)
        resource.resource.Pack(message)
    return made


def test_first_requests_introduce_the_node_once_and_ask_for_everything(applied: Applied) -> None:
    requests = DeltaSession(base_pb2.Node(id="me"), applied).connected()
    assert [r.type_url for r in requests] == [CLUSTER, LISTENER]
    assert [list(r.resource_names_subscribe) for r in requests] == [["*"], ["*"]]
    assert [r.node.id for r in requests] == ["me", ""]


def test_a_response_is_acked_once_in_force_and_its_references_are_asked_for(
    session: DeltaSession, applied: Applied
) -> None:
    ack, subscribe = session.received(response(CLUSTER, "n1", eds_cluster("a"), eds_cluster("b")))
    assert (ack.type_url, ack.response_nonce, ack.HasField("error_detail")) == (CLUSTER, "n1", False)
    assert (subscribe.type_url, subscribe.response_nonce) == (ENDPOINT, "")
    assert list(subscribe.resource_names_subscribe) == ["a", "b"]
    assert set(applied.configs[-1].clusters) == {"a", "b"}
    (ack,) = session.received(response(ENDPOINT, "n2", assignment("a"), assignment("b")))
    assert ack.response_nonce == "n2"
    assert set(applied.configs[-1].assignments) == {"a", "b"}
    assert not session.complete()
    session.received(response(LISTENER, "n3"))
    assert session.complete()


def test_what_is_no_longer_referred_to_is_given_up(session: DeltaSession) -> None:
    session.received(response(CLUSTER, "n1", eds_cluster("a"), eds_cluster("b")))
    session.received(response(ENDPOINT, "n2", assignment("a"), assignment("b")))
    _, unsubscribe = session.received(response(CLUSTER, "n3", removed=("b",)))
    assert list(unsubscribe.resource_names_unsubscribe) == ["b"]
    assert set(session.held[ENDPOINT]) == {"a"}
    # It may have been under way.
    session.received(response(ENDPOINT, "n4", assignment("b")))
    assert set(session.held[ENDPOINT]) == {"a"}


def test_a_bad_resource_is_nacked_with_its_path_and_nothing_changes(
    session: DeltaSession, applied: Applied
) -> None:
    session.received(response(CLUSTER, "n1", eds_cluster("a")))
    before = len(applied.configs)
    bad = eds_cluster("b", track_cluster_stats={})
    worse = eds_cluster("c", lb_policy="RING_HASH")
    (nack,) = session.received(response(CLUSTER, "n2", bad, worse, eds_cluster("d")))
    assert nack.response_nonce == "n2"
    assert nack.error_detail.code == 3
    assert "cluster[b].track_cluster_stats" in nack.error_detail.message
    assert "cluster[c].lb_policy" in nack.error_detail.message
    assert set(session.held[CLUSTER]) == {"a"}
    assert len(applied.configs) == before


def test_what_the_compiler_refuses_is_nacked_and_the_old_stays(
    session: DeltaSession, applied: Applied
) -> None:
    session.received(response(CLUSTER, "n1", eds_cluster("a")))
    applied.refuse = "conflicts"
    (nack,) = session.received(response(CLUSTER, "n2", eds_cluster("b")))
    assert nack.error_detail.message == "listener[x].filter_chains[0]: conflicts"
    assert set(session.held[CLUSTER]) == {"a"}
    assert session.stats[CLUSTER].update_rejected == 1
    applied.refuse = None
    ack, _ = session.received(response(CLUSTER, "n3", eds_cluster("b")))
    assert not ack.HasField("error_detail")
    assert session.version == ""


def test_a_name_twice_and_a_type_nobody_asked_for_are_nacked(session: DeltaSession) -> None:
    (nack,) = session.received(response(CLUSTER, "n1", eds_cluster("a"), eds_cluster("a")))
    assert "twice" in nack.error_detail.message
    (nack,) = session.received(discovery_pb2.DeltaDiscoveryResponse(type_url="x/y", nonce="n2"))
    assert nack.error_detail.message == "x/y: was not subscribed to"


def test_a_reconnect_says_what_is_held(session: DeltaSession) -> None:
    session.received(response(CLUSTER, "n1", eds_cluster("a"), version="7"))
    session.received(response(ENDPOINT, "n2", assignment("a"), version="8"))
    first, second, third = session.connected()
    assert (first.type_url, dict(first.initial_resource_versions)) == (CLUSTER, {"a": "7"})
    assert (second.type_url, dict(second.initial_resource_versions)) == (ENDPOINT, {"a": "8"})
    assert list(second.resource_names_subscribe) == ["a"]
    assert third.type_url == LISTENER
    assert first.node.id == "sidecar"


def test_saved_resources_are_restored_whole(session: DeltaSession, applied: Applied) -> None:
    session.received(response(CLUSTER, "n1", eds_cluster("a"), version="7"))
    session.received(response(ENDPOINT, "n2", assignment("a"), version="8"))
    again = Applied()
    other = DeltaSession(base_pb2.Node(id="sidecar"), again)
    other.restore(session.saved())
    assert len(again.configs) == 1
    assert again.configs[0].clusters == applied.configs[-1].clusters
    assert again.configs[0].assignments == applied.configs[-1].assignments
    assert other.complete()
    assert [dict(r.initial_resource_versions) for r in other.connected()] == [{"a": "7"}, {"a": "8"}, {}]


def test_an_unchanged_resend_is_acked_without_a_swap(session: DeltaSession, applied: Applied) -> None:
    session.received(response(CLUSTER, "n1", eds_cluster("a")))
    before = len(applied.configs)
    (ack,) = session.received(response(CLUSTER, "n2", eds_cluster("a")))
    assert not ack.HasField("error_detail")
    assert len(applied.configs) == before


def test_long_errors_are_cut(session: DeltaSession, applied: Applied) -> None:
    applied.refuse = "x" * 20_000
    (nack,) = session.received(response(CLUSTER, "n1", eds_cluster("a")))
    assert len(nack.error_detail.message) < 9000
