"""Nodes: what they may say of themselves, and that everything else is refused with the metadata field's name."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2

from control_plane.translate.node import Egress, HostPort, InboundPort, NodeError, parse_node, parse_xds_node
from tests.support.mesh_objects import node

INBOUND = {
    "bind": "127.0.0.1:18080",
    "defaultEndpoint": "[::1]:8080",
    "port": {"name": "http", "number": 8080, "protocol": "http"},
}
BASE = {"NAME": "web-1", "NAMESPACE": "shop", "SERVICE_ACCOUNT": "web"}


def test_a_node_from_the_wire() -> None:
    message = base_pb2.Node(id="sidecar~10.1.0.5~web-1.shop~x", cluster="web.shop", user_agent_name="envoy")
    message.metadata.update(
        {**BASE, "LABELS": {"b": "2", "a": "1"}, "INSTANCE_IPS": "10.1.0.5, fd00:0::5", "CAPTURE_MARK": 1337}
    )
    found = parse_xds_node(message)
    assert (found.name, found.namespace, found.service_account) == ("web-1", "shop", "web")
    assert (found.addresses, found.ipv6, found.capture_mark) == (("10.1.0.5", "fd00::5"), True, 1337)
    assert (found.mode, found.agent, dict(found.labels)) == ("REDIRECT", "envoy", {"a": "1", "b": "2"})


def test_ports_without_capture() -> None:
    found = node(
        INTERCEPTION_MODE="NONE",
        INBOUND=[INBOUND],
        OUTBOUND_BIND="127.0.0.1:15001",
        EGRESS=[{"bind": "127.0.0.1:9001", "host": "DB.shop.mesh.local.", "port": 5432.0}],
    )
    assert found.inbound == (
        InboundPort("http", 8080, "HTTP", HostPort("127.0.0.1", 18080), HostPort("::1", 8080)),
    )
    assert str(found.inbound[0].default_endpoint) == "[::1]:8080"
    assert found.outbound_bind == HostPort("127.0.0.1", 15001)
    assert found.egress == (Egress(HostPort("127.0.0.1", 9001), "db.shop.mesh.local", 5432),)


NONE = {"INTERCEPTION_MODE": "NONE"}
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"NAME": "", "NAMESPACE": 5}, ["NAME", "NAMESPACE"]),
    ({"SERVICE_ACCOUNT": None}, ["SERVICE_ACCOUNT"]),
    ({"INTERCEPTION_MODE": "TPROXY"}, ["INTERCEPTION_MODE"]),
    ({"LABELS": ["a"]}, ["LABELS"]),
    ({"LABELS": {"a": 1}}, ["LABELS"]),
    ({"INSTANCE_IPS": "10.1.0.5,web"}, ["INSTANCE_IPS"]),
    ({"CAPTURE_MARK": "1337"}, ["CAPTURE_MARK"]),
    ({"CAPTURE_MARK": -1}, ["CAPTURE_MARK"]),
    ({"CAPTURE_MARK": 1.5}, ["CAPTURE_MARK"]),
    ({"CAPTURE_MARK": float("nan")}, ["CAPTURE_MARK"]),
    ({"CAPTURE_MARK": True}, ["CAPTURE_MARK"]),
    ({"INBOUND": [{}]}, ["INBOUND[0].port"]),
    ({"INBOUND": {"port": {}}}, ["INBOUND"]),
    ({"INBOUND": [{"port": {"number": 70000}}]}, ["INBOUND[0].port.number"]),
    ({"INBOUND": [{"port": {"number": 80, "protocol": "MONGO"}}]}, ["INBOUND[0].port.protocol"]),
    ({"INBOUND": [{"port": {"number": 80}}, {"port": {"number": 80}}]}, ["INBOUND"]),
    ({"INBOUND": [{"port": {"number": 80}, "bind": "127.0.0.1:1"}]}, ["INBOUND[0].bind"]),
    ({"OUTBOUND_BIND": "127.0.0.1:1"}, ["OUTBOUND_BIND"]),
    ({"INBOUND": [{"port": {"number": n + 1}} for n in range(257)]}, ["INBOUND"]),
    ({**NONE, "INBOUND": [{"port": {"number": 80}}]}, ["INBOUND[0].bind", "INBOUND[0].defaultEndpoint"]),
    ({**NONE, "OUTBOUND_BIND": "localhost:80"}, ["OUTBOUND_BIND"]),
    ({**NONE, "OUTBOUND_BIND": "127.0.0.1:0"}, ["OUTBOUND_BIND"]),
    ({**NONE, "EGRESS": [{"bind": "127.0.0.1:1"}]}, ["EGRESS[0].host", "EGRESS[0].port"]),
    ({**NONE, "EGRESS": [{"host": "a", "port": 1}]}, ["EGRESS[0].bind"]),
    (
        {**NONE, "OUTBOUND_BIND": "127.0.0.1:1", "EGRESS": [{"bind": "127.0.0.1:1", "host": "a", "port": 1}]},
        ["INBOUND"],
    ),
]


@pytest.mark.parametrize(("metadata", "fields"), REFUSED)
def test_metadata_that_makes_no_sense_is_refused_by_name(metadata: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(NodeError) as caught:
        parse_node("id", "c", {**BASE, **metadata}, "tulle")
    assert [problem.field for problem in caught.value.problems] == [f"node.metadata.{f}" for f in fields]
    assert all(f"node.metadata.{field}" in str(caught.value) for field in fields)


def test_a_node_needs_an_id() -> None:
    with pytest.raises(NodeError, match=r"node\.id: is required"):
        parse_node("", "c", BASE, "tulle")


def test_without_addresses_both_families_are_listened_on() -> None:
    assert node(INSTANCE_IPS="").ipv6 and not node(INSTANCE_IPS="10.0.0.1").ipv6
