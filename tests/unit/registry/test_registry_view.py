"""The view: how Services get their endpoints, and what is kept from one revision to the next."""

from __future__ import annotations

from typing import Any

from control_plane.registry.protocol import port_protocol
from control_plane.registry.service import AppProtocol, MeshEndpoint, Resolution
from control_plane.registry.view import View
from control_plane.store.base import Event, EventType, Key, Snapshot, Stored
from tests.support.mesh_objects import document, service, slice_of, snapshot, stored, view_of, workload

WEB = "web.shop.mesh.local"


def places(view: View, hostname: str = WEB, port: int = 80) -> list[tuple[str, int]]:
    return [(e.address, e.port) for e in view.services[hostname].endpoints_of(port)]


def one(view: View, hostname: str = WEB, port: int = 80) -> MeshEndpoint:
    (found,) = view.services[hostname].endpoints_of(port)
    return found


def test_a_service_has_the_union_of_its_slices_and_of_the_workloads_that_it_selects() -> None:
    view = view_of(
        [
            service("web"),
            workload("w1", "web", "10.0.0.2"),
            workload("w2", "other", "10.0.0.3"),
            slice_of("s1", "web", ["10.0.0.9", "10.0.0.1"]),
            slice_of("s2", "other", ["10.0.0.8"]),
        ]
    )
    assert places(view) == [("10.0.0.1", 8080), ("10.0.0.2", 8080), ("10.0.0.9", 8080)]


def test_a_workload_of_another_namespace_is_not_selected() -> None:
    other = workload("w", "web", "10.0.0.2")
    other["metadata"]["namespace"] = "else"
    assert places(view_of([service("web"), other])) == []


def test_where_both_name_an_address_the_workload_entry_gives_the_identity() -> None:
    view = view_of(
        [service("web", selector={}), workload("w", "web", "10.0.0.1"), slice_of("s", "web", ["10.0.0.1"])]
    )
    found = one(view)
    assert (found.sidecar, found.service_account) == (True, "web")


def test_slice_endpoints_that_are_not_ready_are_left_out_unless_published() -> None:
    piece = slice_of("s", "web", ["10.0.0.1", "10.0.0.2"])
    piece["endpoints"][1]["conditions"] = {"ready": False}
    assert places(view_of([service("web"), piece])) == [("10.0.0.1", 8080)]
    published = service("web", publishNotReadyAddresses=True)
    assert len(places(view_of([published, piece]))) == 2


def test_ports_by_number_by_name_and_overridden_by_the_workload() -> None:
    cases: list[tuple[int | str, dict[str, int], list[int]]] = [
        (8080, {}, [8080]),
        (8080, {"http": 18080}, [18080]),
        (8080, {"8080": 18081}, [18081]),
        ("web", {"web": 9090}, [9090]),
        ("web", {"http": 9091}, [9091]),
        ("web", {}, []),
    ]
    for target, ports, expected in cases:
        view = view_of([service("web", target=target), workload("w", "web", "10.0.0.1", ports=ports)])
        assert [port for _, port in places(view)] == expected, (target, ports)


def test_policies_speak_of_the_workloads_port_not_of_the_sidecars() -> None:
    view = view_of([service("web"), workload("w", "web", "10.0.0.1", ports={"http": 18080})])
    assert (one(view).port, one(view).target_port) == (18080, 8080)


def test_a_service_port_that_is_udp_is_none_of_the_meshs() -> None:
    udp = service("dns", ports=[{"name": "dns", "port": 53, "protocol": "UDP"}])
    assert view_of([udp]).services["dns.shop.mesh.local"].ports == ()


def test_protocol_by_app_protocol_then_by_the_ports_name() -> None:
    http, tcp, tls = AppProtocol.HTTP, AppProtocol.TCP, AppProtocol.TLS
    http2, grpc = AppProtocol.HTTP2, AppProtocol.GRPC
    table = [
        ("http", None, http),
        ("http-admin", None, http),
        ("HTTP", None, http),
        ("httpx", None, tcp),
        ("grpc", None, grpc),
        ("grpc-orders", None, grpc),
        ("GRPC", None, grpc),
        ("http2", None, http2),
        ("http2-x", None, http2),
        ("https", None, tls),
        ("tls-db", None, tls),
        ("tcp-db", None, tcp),
        ("mongo", None, tcp),
        (None, None, tcp),
        ("db", "http", http),
        ("http", "tcp", tcp),
        ("x", "kubernetes.io/ws", http),
        ("x", "kubernetes.io/h2c", http2),
        ("x", "kubernetes.io/wss", tls),
        ("x", "grpc", grpc),
        ("x", "grpc-web", grpc),
        ("x", "HTTP2", http2),
        ("x", "https", tls),
        ("http", "tls", tls),
        ("grpc", "example.org/own", tcp),
        ("grpc", "http-admin", tcp),
        ("kubernetes.io/h2c", None, tcp),
    ]
    for name, app_protocol, expected in table:
        assert port_protocol(name, app_protocol) is expected, (name, app_protocol)


def entry(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    return document("ServiceEntry", name, {"hosts": [f"{name}.example.org"], "ports": ports, **spec})


def test_service_entries_unfold_to_one_service_for_each_host() -> None:
    body = entry("a", hosts=["A.example.org.", "b.example.org"], resolution="DNS")
    view = view_of([body])
    assert set(view.services) == {"a.example.org", "b.example.org"}
    assert places(view, "a.example.org") == [("a.example.org", 80)]


def test_service_entry_endpoints_by_resolution() -> None:
    static = entry(
        "s",
        resolution="STATIC",
        ports=[{"number": 80, "name": "http", "targetPort": 8000}],
        endpoints=[{"address": "192.0.2.2", "ports": {"http": 81}}, {"address": "192.0.2.1"}],
    )
    srv = entry("v", resolution="DNS_SRV", endpoints=[{"address": "_x._tcp.y"}])
    view = view_of([static, entry("n"), srv])
    assert places(view, "s.example.org") == [("192.0.2.1", 8000), ("192.0.2.2", 81)]
    assert view.services["n.example.org"].resolution is Resolution.PASSTHROUGH
    assert view.services["v.example.org"].srv_name == "_x._tcp.y"


def test_a_hostname_belongs_to_a_service_first_and_then_to_the_older_entry() -> None:
    taking = entry("t", hosts=[WEB], resolution="DNS")
    first, second = entry("a", hosts=["x.org"]), entry("b", hosts=["x.org"])
    view = view_of([taking, service("web"), first, second])
    assert view.services[WEB].name == "web"
    assert {key.name for key in view.conflicts} == {"t", "b"}
    assert "serviceentries.networking.istio.io/shop/a" in view.conflicts[view_key("b")]


def view_key(name: str) -> Key:
    return Key("networking.istio.io", "serviceentries", "shop", name)


def test_the_next_view_reparses_and_rejoins_only_what_changed() -> None:
    before = snapshot([service("web"), service("db"), workload("w", "web", "10.0.0.1")])
    view = View().at(before)
    changed = workload("w", "web", "10.0.0.2")
    key = Key("networking.istio.io", "workloadentries", "shop", "w")
    objects = {**before.objects, key: Stored(key, changed, 9, 3, 2)}
    after = view.at(Snapshot(9, objects))
    assert places(after) == [("10.0.0.2", 8080)] and places(view) == [("10.0.0.1", 8080)]
    assert after.services["db.shop.mesh.local"] is view.services["db.shop.mesh.local"]
    unchanged = [k for k in before.objects if k != key]
    assert all(after.entries[k] is view.entries[k] for k in unchanged)
    assert after.entries[key] is not view.entries[key]


def test_events_lead_to_the_same_view_as_a_snapshot() -> None:
    documents = [service("web"), workload("w", "web", "10.0.0.1"), workload("x", "web", "10.0.0.2")]
    objects = stored(documents)
    added = [Event(s.revision, EventType.ADDED, s) for s in objects.values()]
    view = View().after(added)
    assert places(view) == places(View().at(Snapshot(3, objects)))
    last = list(objects.values())[-1]
    gone = view.after([Event(4, EventType.DELETED, last)])
    assert (gone.revision, places(gone)) == (4, [("10.0.0.1", 8080)])
    assert gone.after([]) is gone


def test_an_emptied_namespace_has_no_services_left() -> None:
    objects = stored([service("web")])
    view = View().at(Snapshot(1, objects))
    (one_object,) = objects.values()
    assert view.after([Event(2, EventType.DELETED, one_object)]).services == {}
    assert view.at(Snapshot(2, {})).services == {}


def test_a_stored_object_that_does_not_validate_any_more_is_set_aside() -> None:
    objects = stored([service("web")])
    ((key, good),) = objects.items()
    bad = Stored(key, {**good.body, "spec": {"ports": "none"}}, 2, 1, 2)
    view = View().at(Snapshot(1, objects)).at(Snapshot(2, {key: bad}))
    assert view.services == {} and key not in view.entries
    revision, problems = view.invalid[key]
    assert revision == 2 and problems[0].field == "spec.ports"
    assert View().at(Snapshot(2, {key: bad})).at(Snapshot(3, {key: bad})).invalid[key][0] == 2
    repaired = Stored(key, good.body, 4, 1, 3)
    again = view.after([Event(4, EventType.MODIFIED, repaired)])
    assert WEB in again.services and not again.invalid


def test_the_protocols_of_service_entries() -> None:
    table = {
        "HTTP": AppProtocol.HTTP,
        "HTTP2": AppProtocol.HTTP2,
        "GRPC": AppProtocol.GRPC,
        "HTTPS": AppProtocol.TLS,
        "TLS": AppProtocol.TLS,
        "TCP": AppProtocol.TCP,
        "MONGO": AppProtocol.TCP,
    }
    ports = [
        {"number": 80 + index, "name": protocol.lower(), "protocol": protocol}
        for index, protocol in enumerate(table)
    ]
    made = view_of([entry("a", ports=ports, resolution="DNS")]).services["a.example.org"]
    assert [port.protocol for port in made.ports] == list(table.values())
