"""The WorkloadEntry of a connected sidecar."""

from __future__ import annotations

from control_plane.registry.view import View
from control_plane.registry.workloads import (
    entry_body,
    entry_key,
    is_managed,
    may_write,
    node_of,
    owner_of,
    same_workload,
    stale,
)
from control_plane.store.base import Snapshot, Stored
from tests.support.mesh_objects import node, service, stored, workload

EXPLICIT = {
    "INTERCEPTION_MODE": "NONE",
    "INBOUND": [
        {
            "bind": "127.0.0.1:18080",
            "defaultEndpoint": "127.0.0.1:8080",
            "port": {"name": "web", "number": 8080, "protocol": "HTTP"},
        }
    ],
}


def test_a_captured_node_is_found_at_its_first_address_without_ports() -> None:
    one = node(INSTANCE_IPS="10.1.0.5,fd00::5")
    body, problems = entry_body(one, "cp-1")
    assert not problems and body is not None
    assert body["spec"] == {
        "address": "10.1.0.5",
        "labels": {"app": "web", "security.istio.io/tlsMode": "tulle"},
        "serviceAccount": "web",
    }
    assert entry_key(one).name == "web-1"
    assert (owner_of(body), node_of(body), is_managed(body)) == ("cp-1", one.id, True)


def test_a_node_without_capture_says_where_its_sidecar_listens() -> None:
    body, _ = entry_body(node(**EXPLICIT), "cp-1")
    assert body is not None and body["spec"]["ports"] == {"8080": 18080, "web": 18080}


def test_a_service_finds_it_whatever_it_calls_the_port() -> None:
    one = node(**EXPLICIT)
    body, _ = entry_body(one, "cp-1")
    objects = {**stored([service("web")]), entry_key(one): Stored(entry_key(one), body or {}, 2, 2, 1)}
    (endpoint,) = View().at(Snapshot(2, objects)).services["web.shop.mesh.local"].endpoints_of(80)
    assert (endpoint.port, endpoint.sidecar, endpoint.service_account) == (18080, True, "web")


def test_a_node_that_serves_nothing_has_no_entry() -> None:
    assert entry_body(node(LABELS={}), "cp-1") == (None, [])
    assert entry_body(node(INSTANCE_IPS=""), "cp-1") == (None, [])


def test_a_node_whose_entry_admission_refuses_is_told_so() -> None:
    body, problems = entry_body(node(name="Bad_Name"), "cp-1")
    assert body is None and problems[0].field == "metadata.name"


def test_a_users_entry_is_neither_written_over_nor_collected() -> None:
    users = workload("web-1", "web", "10.1.0.9")
    assert not may_write(users) and may_write(None)
    assert stale(stored([users]).values(), lambda _node, _owner: False) == ()
    assert owner_of(users) is None and node_of(users) is None


def test_entries_of_nodes_that_are_gone_are_stale() -> None:
    first, second = node("web-1"), node("web-2")
    bodies = [entry_body(first, "cp-1")[0] or {}, entry_body(second, "cp-0")[0] or {}]
    objects = stored(bodies)
    found = stale([*objects.values(), *stored([service("web")]).values()], lambda n, _: n == first.id)
    assert [one.key.name for one in found] == ["web-2"]
    assert len(stale(objects.values(), lambda _, owner: owner == "cp-0")) == 1


def test_adopting_changes_the_owner_alone() -> None:
    before, _ = entry_body(node(), "cp-0")
    after, _ = entry_body(node(), "cp-1")
    moved, _ = entry_body(node(INSTANCE_IPS="10.1.0.6"), "cp-1")
    assert before and after and moved
    assert same_workload(before, after) and not same_workload(before, moved) and may_write(before)
