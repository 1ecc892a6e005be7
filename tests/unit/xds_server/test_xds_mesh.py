"""The real registry and translate behind the pusher's protocol, and the roots that they give out."""

from __future__ import annotations

import time

from control_plane.store.base import Key, Put
from control_plane.translate.node import parse_xds_node
from control_plane.translate.settings import MeshSettings
from control_plane.xds.mesh import RegistryMesh
from control_plane.xds.push import Pusher
from control_plane.xds.resource_types import CLUSTER, ENDPOINT, LISTENER, SECRET
from control_plane.xds.status import StatusBoard
from tests.fakes.store import FakeStore
from tests.support.ads_client import node

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "clusterIP": "10.96.0.1",
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}],
    },
}


async def test_services_become_resources_for_all_nodes_at_one_cost() -> None:
    store, board = FakeStore(), StatusBoard(clock=time.time)
    await store.commit([Put(Key("", "services", "default", "web"), SERVICE)], author="test")
    mesh = RegistryMesh(MeshSettings(), b"-----BEGIN CERTIFICATE-----\n")
    pusher = Pusher(store, mesh, board)
    await pusher.start()
    try:
        first = pusher.join(parse_xds_node(node()), delta=True, identity="")
        made = first.session.snapshot
        assert made is not None
        name = "outbound|80||web.default.mesh.local"
        assert made.of(CLUSTER).resources[name].assignment == name
        assert name in made.of(ENDPOINT).resources
        assert {"virtualOutbound", "virtualInbound"} <= made.of(LISTENER).resources.keys()
        assert [*made.of(SECRET).resources] == ["ROOTCA"]
        encoded = pusher._encoder.encoded
        second = pusher.join(parse_xds_node(node("web-2", ip="10.1.0.6")), delta=False, identity="")
        assert second.session.snapshot is not None
        assert second.session.snapshot.of(CLUSTER) is made.of(CLUSTER)
        assert pusher._encoder.encoded == encoded
        status = board.conditions(Key("", "services", "default", "web"), 1)["conditions"]
        assert {(one["type"], one["status"]) for one in status} >= {
            ("Accepted", "True"),
            ("Programmed", "False"),
        }
    finally:
        for subscriber in (first, second):
            pusher.leave(subscriber, clean=False)
        await pusher.stop()
