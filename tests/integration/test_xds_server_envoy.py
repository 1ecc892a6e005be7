"""A real Envoy as the ADS server's client: it gets everything, follows changes at once, and its NACK is told."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - for ParseDict of Any
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,  # noqa: F401 - for ParseDict of Any
)
from google.protobuf import json_format

from control_plane.store.base import Delete, Key, Put
from control_plane.translate.resources import Part, Resources
from control_plane.xds.push import Pusher, PushOptions
from control_plane.xds.resource_types import CLUSTER, ENDPOINT, LISTENER, ROUTE
from control_plane.xds.server import XdsServer
from control_plane.xds.status import StatusBoard
from tests.fakes.store import FakeStore
from tests.support.ads_client import node

pytestmark = pytest.mark.envoy

ENVOY = Path(sys.executable).parent / "envoy"
ADS = {"ads": {}, "resource_api_version": "V3"}
TYPES = "type.googleapis.com/envoy.extensions.filters"


def listener(name: str, filters: list[dict]) -> listener_pb2.Listener:
    hcm = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": "main", "config_source": ADS},
        "http_filters": [
            *filters,
            {"name": "router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}},
        ],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    chains = [{"filters": [{"name": "hcm", "typed_config": hcm}]}]
    message = listener_pb2.Listener()
    return json_format.ParseDict({"name": name, "address": address, "filter_chains": chains}, message)


class EchoMesh:
    """Each Service is a cluster with an assignment and a route to it; ``filter`` in its spec adds a listener."""

    def load(self, snapshot):
        return dict(snapshot.objects)

    def apply(self, view, events):
        changed = {event.object.key: event.object for event in events if event.type.value != "DELETED"}
        gone = {event.object.key for event in events if event.type.value == "DELETED"}
        return {key: stored for key, stored in {**view, **changed}.items() if key not in gone}

    def translate(self, view, node):
        part = Part()
        routes = []
        for key, stored in sorted(view.items()):
            if key.plural != "services":
                continue
            spec, origin = stored.body["spec"], frozenset({key})
            cluster = {
                "name": key.name,
                "type": "EDS",
                "connect_timeout": spec.get("timeout", "1s"),
                "eds_cluster_config": {"eds_config": ADS},
            }
            part.add(CLUSTER, key.name, json_format.ParseDict(cluster, cluster_pb2.Cluster()), origin)
            part.add(ENDPOINT, key.name, endpoint_pb2.ClusterLoadAssignment(cluster_name=key.name), origin)
            routes.append({"match": {"prefix": f"/{key.name}"}, "route": {"cluster": key.name}})
            if "filter" in spec:
                filters = [{"name": "f", "typed_config": {"@type": f"{TYPES}.http.{spec['filter']}"}}]
                part.add(LISTENER, f"listener-{key.name}", listener(f"listener-{key.name}", filters), origin)
        main = {"name": "main", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
        part.add(ROUTE, "main", json_format.ParseDict(main, route_pb2.RouteConfiguration()))
        part.add(LISTENER, "listener", listener("listener", []))
        return Resources(part.by_type, part.origins, {})

    def conditions(self, view):
        return {}


def service(name: str, **spec: str) -> Put:
    return Put(Key("", "services", "default", name), {"kind": "Service", "spec": spec})


class Run:
    def __init__(self, board: StatusBoard, store: FakeStore, admin: str, http: aiohttp.ClientSession) -> None:
        self.board, self.store, self.admin, self.http = board, store, admin, http

    async def commit(self, *changes: Put | Delete) -> None:
        """Change the store and wait until the node's snapshot is made of it."""
        revision = await self.store.commit(changes, author="test")
        async with asyncio.timeout(5):
            while any(  # noqa: ASYNC110 - a page is polled
                status.snapshot.revision < revision for status in self.board.nodes.values()
            ):
                await asyncio.sleep(0.01)

    async def versions(self, delta: bool) -> dict[str, dict[str, str]]:
        """Type URL -> name -> version, of what Envoy uses now, and what it is still warming.

        In state-of-the-world Envoy notes with a resource the version of the response that last changed it.
        """
        async with self.http.get(f"{self.admin}/config_dump?include_eds") as response:
            dumps = json.loads(await response.text())["configs"]
        found: dict[str, dict[str, str]] = {CLUSTER: {}, ENDPOINT: {}, LISTENER: {}, ROUTE: {}}
        for dump in dumps:
            for one in dump.get("dynamic_active_clusters", ()):
                found[CLUSTER][one["cluster"]["name"]] = (one if delta else dump)["version_info"]
            for one in dump.get("dynamic_warming_clusters", ()):
                found[CLUSTER][f"{one['cluster']['name']}, warming"] = one["version_info"]
            for one in dump.get("dynamic_endpoint_configs", ()):
                found[ENDPOINT][one["endpoint_config"]["cluster_name"]] = ""  # Envoy tells no version here
            for one in dump.get("dynamic_listeners", ()):
                if "active_state" in one:
                    found[LISTENER][one["name"]] = (one["active_state"] if delta else dump)["version_info"]
            for one in dump.get("dynamic_route_configs", ()):
                found[ROUTE][one["route_config"]["name"]] = one["version_info"]
        return found

    def given(self, delta: bool, type_url: str) -> dict[str, str]:
        (status,) = self.board.nodes.values()
        current = status.snapshot.of(type_url)
        if type_url == ENDPOINT:
            return dict.fromkeys(current.resources, "")
        return {name: one.version if delta else current.version for name, one in current.resources.items()}

    async def until_used(self, delta: bool, *type_urls: str, within: float) -> None:
        async with asyncio.timeout(within):
            while True:
                if len(self.board.nodes) == 1:
                    used = await self.versions(delta)
                    if all(used[url] == self.given(delta, url) for url in type_urls):
                        return
                await asyncio.sleep(0.05)

    def programmed(self, name: str) -> dict:
        key = Key("", "services", "default", name)
        return self.board.conditions(key, self.store.objects[key].generation)["conditions"][-1]

    async def until_programmed(self, name: str, reason: str) -> dict:
        async with asyncio.timeout(10):
            while (found := self.programmed(name))["reason"] != reason:  # noqa: ASYNC110 - a page is polled
                await asyncio.sleep(0.02)
        return found


def bootstrap(port: int, delta: bool) -> dict:
    http2 = {"explicit_http_config": {"http2_protocol_options": {}}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    xds = {
        "name": "xds",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                **http2,
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    identity = json_format.MessageToDict(node(agent=""))
    return {
        "node": {field: identity[field] for field in ("id", "cluster", "metadata")},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": ADS,
            "lds_config": ADS,
        },
        "static_resources": {"clusters": [xds]},
    }


@pytest.fixture(params=[True, False], ids=["delta", "sotw"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[bool, Run]]:
    delta = request.param
    store = FakeStore()
    await store.commit([service("a"), service("b")], author="test")
    board = StatusBoard(clock=time.time)
    pusher = Pusher(store, EchoMesh(), board, options=PushOptions())
    await pusher.start()
    server = XdsServer(pusher, trust_domain="mesh.local")
    port = await server.listen_plaintext("127.0.0.1:0")
    await server.start()
    config, admin_file, log_file = tmp_path / "envoy.json", tmp_path / "admin", tmp_path / "log"
    config.write_text(json.dumps(bootstrap(port, delta)))
    process = await asyncio.create_subprocess_exec(
        str(ENVOY),
        *("-c", str(config), "--admin-address-path", str(admin_file), "--log-path", str(log_file)),
        *("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"),
    )
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as http:
            while not (admin_file.exists() and admin_file.read_text()):
                assert process.returncode is None, log_file.read_text()
                await asyncio.sleep(0.05)
            yield delta, Run(board, store, f"http://{admin_file.read_text()}", http)
    finally:
        process.kill()
        await process.wait()
        await server.stop(1.0)
        await pusher.stop()


ALL = (CLUSTER, ENDPOINT, LISTENER, ROUTE)


async def test_envoy_gets_follows_and_refuses(running: tuple[bool, Run]) -> None:
    delta, run = running
    await run.until_used(delta, *ALL, within=10)
    assert run.given(delta, CLUSTER).keys() == {"a", "b"}
    assert (await run.until_programmed("a", "Programmed"))["message"] == "1/1 sidecars"

    # A changed cluster warms until its unchanged assignment comes again; Envoy alone would wait 15 s.
    await run.commit(service("a", timeout="2s"), service("c"))
    await run.until_used(delta, *ALL, within=5)
    assert run.given(delta, CLUSTER).keys() == {"a", "b", "c"}
    await run.until_programmed("c", "Programmed")

    await run.commit(Delete(Key("", "services", "default", "b")))
    await run.until_used(delta, CLUSTER, LISTENER, ROUTE, within=5)
    assert run.given(delta, CLUSTER).keys() == {"a", "c"}

    # The second HTTP filter is a router too, and a router must be the last.
    before = (await run.versions(delta))[LISTENER]
    await run.commit(service("c", filter="router.v3.Router"))
    refused = await run.until_programmed("c", "Rejected")
    assert refused["status"] == "False"
    assert "LDS listener-c" in refused["message"]
    assert "terminal" in refused["message"]
    assert node().id in refused["message"]
    assert run.programmed("a")["reason"] == "Programmed"
    assert (await run.versions(delta))[LISTENER].keys() == before.keys()

    await run.commit(service("c"))
    await run.until_programmed("c", "Programmed")
    await run.until_used(delta, CLUSTER, LISTENER, ROUTE, within=5)
