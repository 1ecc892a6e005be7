"""What the builder keeps: the same as a fresh translation, in the same objects where nothing changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.registry.view import View
from control_plane.store.base import Key, Snapshot, Stored
from control_plane.translate import names
from control_plane.translate.builder import Builder, translate
from control_plane.translate.cache import Cache
from control_plane.translate.node import Node
from control_plane.translate.resources import Part, Resources
from control_plane.translate.settings import MeshSettings
from proxy.model.config import Config
from proxy.runtime.compile.compile import compile_config
from proxy.runtime.compile.env import CompileEnv
from proxy.xds.decode.resources import KINDS, decode
from tests.support.mesh_objects import MESH, Document, node, service, snapshot, stored, view_of, workload

EXPLICIT = {
    "INTERCEPTION_MODE": "NONE",
    "INBOUND": [
        {
            "bind": "127.0.0.1:18080",
            "defaultEndpoint": "127.0.0.1:8080",
            "port": {"name": "http", "number": 8080, "protocol": "HTTP"},
        }
    ],
    "OUTBOUND_BIND": "127.0.0.1:15001",
    "EGRESS": [{"bind": "127.0.0.1:9002", "host": "web.shop.mesh.local", "port": 80}],
}
NODES = [
    node(),
    node("db-1", "db", CAPTURE_MARK=1337),
    node("web-9", "web", namespace="else"),
    node("web-7", "web", agent="envoy", INSTANCE_IPS="fd00::7"),
    node("web-8", "web", **EXPLICIT),
    node("api-1", "api"),
]


def serialized(found: Resources) -> dict[tuple[str, str], bytes]:
    return {
        (url, name): message.SerializeToString(deterministic=True)
        for url, named in found.by_type.items()
        for name, message in named.items()
    }


def everything() -> list[Document]:
    return [document for part in MESH.values() for document in part]


def test_the_same_in_gives_the_same_out_in_order() -> None:
    first, second = (translate(view_of(everything()), NODES[0]) for _ in range(2))
    assert serialized(first) == serialized(second)
    assert list(serialized(first)) == list(serialized(second))
    assert all(list(named) == sorted(named) for named in first.by_type.values())
    assert (first.origins, first.conditions) == (second.origins, second.conditions)


def test_the_order_of_documents_does_not_matter_but_for_their_age() -> None:
    objects = stored(everything())
    forth = View().at(Snapshot(99, objects))
    back = View().at(Snapshot(99, dict(reversed(objects.items()))))
    assert serialized(translate(forth, NODES[0])) == serialized(translate(back, NODES[0]))


def test_nodes_of_a_class_share_messages_and_whole_types() -> None:
    builder, view = Builder(MeshSettings()), view_of(everything())
    one, other = builder.translate(view, node("a", "web")), builder.translate(view, node("b", "db"))
    assert one.by_type[names.ENDPOINTS] is other.by_type[names.ENDPOINTS]
    assert one.by_type[names.ROUTES] is other.by_type[names.ROUTES]
    outbound = [name for name in one.by_type[names.CLUSTER] if name.startswith("outbound|")]
    assert outbound
    assert all(one.by_type[names.CLUSTER][n] is other.by_type[names.CLUSTER][n] for n in outbound)


def test_endpoints_are_shared_by_all_nodes_whatever_their_class() -> None:
    builder, view = Builder(MeshSettings()), view_of(everything())
    tables = [builder.translate(view, one).by_type[names.ENDPOINTS] for one in NODES]
    for name, message in tables[0].items():
        assert all(table[name] is message for table in tables)


def test_a_new_endpoint_rebuilds_its_load_assignment_and_nothing_else() -> None:
    builder = Builder(MeshSettings())
    documents = [service("web"), service("db"), workload("w1", "web", "10.0.0.1")]
    objects = stored(documents)
    view = View().at(Snapshot(3, objects))
    before = builder.translate(view, NODES[0])
    more = {**objects, **stored([workload("w2", "web", "10.0.0.2")], 4)}
    after = builder.translate(view.at(Snapshot(4, more)), NODES[0])
    changed = {
        (url, name)
        for url, named in after.by_type.items()
        for name, message in named.items()
        if before.by_type[url].get(name) is not message
    }
    assert changed == {(names.ENDPOINTS, "outbound|80||web.shop.mesh.local")}


def test_an_unrelated_change_rebuilds_nothing() -> None:
    builder = Builder(MeshSettings())
    objects = stored([service("web"), workload("w", "web", "10.0.0.1")])
    view = View().at(Snapshot(2, objects))
    builder.translate(view, NODES[0])
    built = builder.built
    key = Key("networking.istio.io", "workloadentries", "shop", "w")
    touched = {**objects, key: Stored(key, objects[key].body, 9, 2, 1)}
    builder.translate(view.at(Snapshot(9, touched)), NODES[0])
    assert builder.built == built


@pytest.mark.parametrize("one", NODES, ids=lambda n: f"{n.name}-{n.mode}")
def test_a_port_that_speaks_another_protocol_now_is_translated_anew(one: Node) -> None:
    builder, view = Builder(MeshSettings()), View()
    for revision, name in enumerate(("http", "grpc", "http2", "tcp", "http"), 1):
        ports = [{"name": name, "port": 80, "targetPort": 8080}]
        ((key, made),) = stored([service("web", ports=ports, clusterIP="10.96.0.10")]).items()
        current = Snapshot(revision, {key: Stored(key, made.body, revision, 1, 1)})
        view = view.at(current)
        fresh = translate(View().at(current), one)
        assert serialized(builder.translate(view, one)) == serialized(fresh), name


_POOL = [
    *everything(),
    service("web", clusterIP="10.96.0.99"),
    workload("web-1", "db", "10.1.0.5"),
    service("db", port=80, target=8080),
    service("api", port=50051, target=9090),
]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from(range(len(_POOL))), max_size=14), min_size=2, max_size=4))
def test_whatever_came_before_the_result_is_that_of_a_fresh_start(steps: list[list[int]]) -> None:
    builder, view, revision = Builder(MeshSettings()), View(), 0
    known: dict[Key, Stored] = {}
    for chosen in steps:
        wanted: dict[Key, Stored] = {}
        for index in chosen:
            ((key, one),) = stored([_POOL[index]]).items()
            old = known.get(key)
            if old is not None and old.body is one.body:
                wanted[key] = old
                continue
            revision += 1
            wanted[key] = Stored(key, one.body, revision, old.created if old else revision, 1)
        known = wanted
        current = Snapshot(revision, known)
        view = view.at(current)
        fresh_view = View().at(current)
        for one_node in NODES:
            kept, fresh = builder.translate(view, one_node), translate(fresh_view, one_node)
            assert serialized(kept) == serialized(fresh)
            assert kept.conditions == fresh.conditions and kept.origins == fresh.origins


@pytest.mark.parametrize("one", NODES, ids=lambda n: f"{n.name}-{n.mode}")
@pytest.mark.parametrize(
    "part", [[], ["strict"], ["disable"], ["policies"], ["routes", "entries"], ["grpc", "grpc-routes"]]
)
def test_tulles_own_sidecar_decodes_and_compiles_everything(part: list[str], one: Node) -> None:
    documents = [document for name in ("services", *part) for document in MESH[name]]
    found = translate(view_of(documents), one, MeshSettings(dns_resolvers=("10.1.0.1:53",)))
    models: dict[str, dict[str, Any]] = {
        url: {
            name: decode(KINDS[url], name, url, message.SerializeToString(deterministic=True))
            for name, message in named.items()
        }
        for url, named in found.by_type.items()
    }
    config = Config(
        "1",
        models[names.LISTENER],
        models[names.ROUTES],
        models[names.CLUSTER],
        models[names.ENDPOINTS],
        models[names.SECRET],
    )
    runtime = compile_config(config, None, CompileEnv())
    assert set(runtime.listeners) == set(found.by_type[names.LISTENER])
    assert not runtime.warming


def test_every_route_and_listener_names_only_clusters_that_exist() -> None:
    documents = [document for name in MESH if not name.endswith("routes") for document in MESH[name]]
    found = translate(view_of(documents), NODES[0])
    for table in found.by_type[names.ROUTES].values():
        for host in table.virtual_hosts:
            for route in host.routes:
                assert route.route.cluster in found.by_type[names.CLUSTER]


def test_every_resource_has_origins_and_every_object_a_condition() -> None:
    current = snapshot(everything())
    found = translate(View().at(current), NODES[0])
    assert set(found.origins) == {(url, name) for url, named in found.by_type.items() for name in named}
    assert set(found.conditions) == set(current.objects)
    assert Builder(MeshSettings()).conditions(View().at(current)) == found.conditions


def test_a_cache_forgets_what_two_views_did_not_ask_for() -> None:
    cache = Cache()
    calls: list[int] = []
    for _ in range(2):
        assert cache.get("a", (1,), lambda: calls.append(1) or "x") == "x"
    cache.turn()
    cache.get("a", (1,), lambda: calls.append(2))
    cache.get("a", (2,), lambda: calls.append(3))
    cache.turn()
    cache.turn()
    cache.get("a", (2,), lambda: calls.append(4))
    assert calls == [1, 3, 4]


def test_two_resources_of_one_name_are_a_defect() -> None:
    part, other = Part(), Part()
    for one in (part, other):
        one.add(names.CLUSTER, "c", object())
    with pytest.raises(ValueError, match="twice"):
        part.add(names.CLUSTER, "c", object())
    with pytest.raises(ValueError, match="twice"):
        part.ordered().with_own(other, {})
    with pytest.raises(ValueError, match="twice"):
        part.include(other)
