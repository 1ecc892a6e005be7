"""Whole nodes: listeners, clusters and endpoints, and the origins and conditions that go with them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from control_plane.store.base import Key
from control_plane.translate import names
from control_plane.translate.builder import translate
from control_plane.translate.resources import Resources
from control_plane.translate.settings import MeshSettings
from tests.support.mesh_objects import MESH, document, node, service, view_of, workload

WEB = "outbound|80||web.shop.mesh.local"


def made(found: Resources, type_url: str, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json_format.MessageToDict(found.by_type[type_url][name])
    return result


def cluster(name: str, *documents: dict[str, Any], **fields: Any) -> dict[str, Any]:
    settings = fields.pop("settings", MeshSettings())
    return made(translate(view_of(documents), node(**fields), settings), names.CLUSTER, name)


def chains(listener: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {chain["name"]: chain for chain in listener["filterChains"]}


def filters(chain: dict[str, Any]) -> list[str]:
    return [one["name"].rpartition(".")[2] for one in chain["filters"]]


def entry(name: str, **spec: Any) -> dict[str, Any]:
    base = {"hosts": [f"{name}.example.org"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}
    return document("ServiceEntry", name, {**base, **spec})


STRICT, PERMISSIVE, DISABLE = (
    document("PeerAuthentication", "p", {"mtls": {"mode": mode}})
    for mode in ("STRICT", "PERMISSIVE", "DISABLE")
)


def test_mutual_tls_to_exactly_the_identities_behind_a_service() -> None:
    found = cluster(
        WEB,
        service("web"),
        workload("w1", "web", "10.0.0.1", account="b"),
        workload("w2", "web", "10.0.0.2", account="a"),
        workload("w3", "web", "10.0.0.3", account="c", sidecar=False),
    )
    tls, plain = found["transportSocketMatches"]
    assert (tls["match"], plain.get("match", {})) == ({"tlsMode": "tulle"}, {})
    assert plain["transportSocket"]["name"] == "envoy.transport_sockets.raw_buffer"
    context = tls["transportSocket"]["typedConfig"]
    common = context["commonTlsContext"]
    combined = common["combinedValidationContext"]
    assert combined["defaultValidationContext"]["matchTypedSubjectAltNames"] == [
        {"sanType": "URI", "matcher": {"exact": f"spiffe://mesh.local/ns/shop/sa/{name}"}} for name in "ab"
    ]
    assert combined["validationContextSdsSecretConfig"]["name"] == "ROOTCA"
    assert "ads" in combined["validationContextSdsSecretConfig"]["sdsConfig"]
    assert common["tlsCertificateSdsSecretConfigs"] == [{"name": "default"}]
    assert common["alpnProtocols"] == ["tulle"]
    assert context["sni"] == "web.shop.mesh.local"


def test_endpoints_say_who_has_a_sidecar() -> None:
    found = translate(
        view_of(
            [
                service("web"),
                workload("w1", "web", "10.0.0.1", weight=3, locality="eu/a/1"),
                workload("w2", "web", "10.0.0.2", sidecar=False),
            ]
        ),
        node(),
    )
    plain, secured = made(found, names.ENDPOINTS, WEB)["endpoints"]
    assert secured["locality"] == {"region": "eu", "zone": "a", "subZone": "1"}
    (one,) = secured["lbEndpoints"]
    assert one["metadata"]["filterMetadata"] == {"envoy.transport_socket_match": {"tlsMode": "tulle"}}
    assert one["endpoint"]["address"]["socketAddress"] == {"address": "10.0.0.1", "portValue": 8080}
    assert (one["loadBalancingWeight"], secured["loadBalancingWeight"]) == (3, 3)
    assert "metadata" not in plain["lbEndpoints"][0]


def test_workloads_with_mutual_tls_disabled_are_called_in_plaintext() -> None:
    documents = [service("web"), workload("w1", "web", "10.0.0.1"), DISABLE]
    assert "transportSocketMatches" not in cluster(WEB, *documents)
    endpoints = made(translate(view_of(documents), node()), names.ENDPOINTS, WEB)["endpoints"]
    assert "metadata" not in endpoints[0]["lbEndpoints"][0]


def test_a_capture_mark_is_on_every_cluster_that_dials() -> None:
    documents = [d for part in ("services", "entries") for d in MESH[part]]
    found = translate(view_of(documents), node(CAPTURE_MARK=1337))
    mark = {"level": "1", "name": "36", "intValue": "1337"}
    for name, message in found.by_type[names.CLUSTER].items():
        options = json_format.MessageToDict(message).get("upstreamBindConfig", {}).get("socketOptions", [])
        assert options == ([] if name == names.BLACK_HOLE_CLUSTER else [mark]), name


def test_clusters_by_resolution() -> None:
    static = cluster(
        "outbound|80||s.example.org", entry("s", resolution="STATIC", endpoints=[{"address": "1.2.3.4"}])
    )
    assert (static["type"], static["lbPolicy"]) == ("EDS", "LEAST_REQUEST")
    dns = cluster("outbound|80||d.example.org", entry("d", resolution="DNS"))
    assert dns["type"] == "STRICT_DNS"
    (found,) = dns["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert found["endpoint"]["address"]["socketAddress"] == {"address": "d.example.org", "portValue": 80}
    none = cluster("outbound|80||n.example.org", entry("n"))
    assert (none["type"], none["lbPolicy"]) == ("ORIGINAL_DST", "CLUSTER_PROVIDED")


def test_srv_clusters_carry_their_name_and_limits() -> None:
    settings = MeshSettings(dns_resolvers=("10.1.0.1:53",))
    found = cluster("outbound|80||v.example.org", entry("v", resolution="DNS_SRV"), settings=settings)
    assert found["clusterType"]["name"] == "tulle.clusters.dns_srv"
    assert found.get("lbPolicy", "ROUND_ROBIN") == "ROUND_ROBIN"  # weights are exact shares
    config = found["clusterType"]["typedConfig"]
    assert config["typeUrl"] == "type.googleapis.com/tulle.clusters.dns_srv.v1.DnsSrvCluster"
    assert config["value"] == {
        "srv_name": "_http._tcp.v.example.org",
        "resolvers": ["10.1.0.1:53"],
        "min_ttl": "1s",
        "max_ttl": "300s",
    }
    named = cluster(
        "outbound|80||v.example.org", entry("v", resolution="DNS_SRV", endpoints=[{"address": "_x._tcp.y"}])
    )
    assert named["clusterType"]["typedConfig"]["value"]["srv_name"] == "_x._tcp.y"


def test_an_envoy_has_no_srv_cluster_and_is_told_so() -> None:
    documents = [entry("v", resolution="DNS_SRV")]
    found = translate(view_of(documents), node(agent="envoy"))
    assert "outbound|80||v.example.org" not in found.by_type[names.CLUSTER]
    key = Key("networking.istio.io", "serviceentries", "shop", "v")
    last = found.conditions[key][-1]
    assert (last.type, last.status, last.reason) == ("Programmed", False, "UnsupportedByDataPlane")
    assert "web-1.shop" in last.message
    assert all(c.status for c in translate(view_of(documents), node()).conditions[key])


def test_captured_outbound_listeners() -> None:
    found = translate(view_of([*MESH["services"], *MESH["entries"]]), node())
    outbound = {n for n, m in found.by_type[names.LISTENER].items() if m.traffic_direction == 2}
    assert outbound == {
        "virtualOutbound",
        "0.0.0.0_80",
        "0.0.0.0_443",
        "0.0.0.0_8888",
        "10.96.0.11_5432",
        "fd96::11_5432",
    }
    main = made(found, names.LISTENER, "virtualOutbound")
    assert main["useOriginalDst"] is True
    assert main["defaultFilterChain"]["filters"][0]["typedConfig"]["cluster"] == names.PASSTHROUGH_CLUSTER
    (loop,) = main["filterChains"]
    assert loop["filterChainMatch"] == {"destinationPort": 15001}
    assert loop["filters"][0]["typedConfig"]["cluster"] == names.BLACK_HOLE_CLUSTER
    http = made(found, names.LISTENER, "0.0.0.0_80")
    assert http["bindToPort"] is False and "listenerFilters" not in http
    manager = http["filterChains"][0]["filters"][0]["typedConfig"]
    assert manager["rds"]["routeConfigName"] == "80"
    assert (manager["normalizePath"], manager["mergeSlashes"], manager["useRemoteAddress"]) == (
        True,
        True,
        False,
    )
    assert manager.get("forwardClientCertDetails", "SANITIZE") == "SANITIZE"
    database = made(found, names.LISTENER, "10.96.0.11_5432")
    assert (
        database["filterChains"][0]["filters"][0]["typedConfig"]["cluster"]
        == "outbound|5432||db.shop.mesh.local"
    )


def test_outside_tls_is_told_apart_by_its_server_name_and_the_rest_passes() -> None:
    listener = made(translate(view_of(MESH["entries"]), node()), names.LISTENER, "0.0.0.0_443")
    (chain,) = listener["filterChains"]
    assert chain["filterChainMatch"] == {"serverNames": ["api.example.org"], "transportProtocol": "tls"}
    assert listener["defaultFilterChain"]["filters"][0]["typedConfig"]["cluster"] == names.PASSTHROUGH_CLUSTER
    assert [f["name"] for f in listener["listenerFilters"]] == ["envoy.filters.listener.tls_inspector"]


def test_registry_only_lets_nothing_unknown_out() -> None:
    found = translate(view_of([service("web")]), node(), MeshSettings(outbound_policy="REGISTRY_ONLY"))
    main = made(found, names.LISTENER, "virtualOutbound")
    assert main["defaultFilterChain"]["filters"][0]["typedConfig"]["cluster"] == names.BLACK_HOLE_CLUSTER
    last = made(found, names.ROUTES, "80")["virtualHosts"][-1]
    assert last["routes"][0]["directResponse"] == {"status": 502}


def test_a_contested_virtual_address_goes_to_the_older_service() -> None:
    one = service("a", http=False, clusterIP="10.96.0.1")
    two = service("b", http=False, clusterIP="10.96.0.1")
    found = translate(view_of([one, two]), node())
    listener = made(found, names.LISTENER, "10.96.0.1_80")
    assert (
        listener["filterChains"][0]["filters"][0]["typedConfig"]["cluster"]
        == "outbound|80||a.shop.mesh.local"
    )
    (condition,) = found.conditions[Key("", "services", "shop", "b")]
    assert (condition.status, condition.reason) == (False, "Conflicted")


MTLS = "inbound|8080||-mtls"
TLS = "inbound|8080||-tls"
PLAIN = "inbound|8080||-plaintext"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (STRICT, {MTLS: {"destinationPort": 8080, "transportProtocol": "tls"}}),
        (
            PERMISSIVE,
            {
                MTLS: {
                    "destinationPort": 8080,
                    "transportProtocol": "tls",
                    "applicationProtocols": ["tulle"],
                },
                TLS: {"destinationPort": 8080, "transportProtocol": "tls"},
                PLAIN: {"destinationPort": 8080, "transportProtocol": "raw_buffer"},
            },
        ),
        (
            DISABLE,
            {
                TLS: {"destinationPort": 8080, "transportProtocol": "tls"},
                PLAIN: {"destinationPort": 8080, "transportProtocol": "raw_buffer"},
            },
        ),
    ],
)
def test_inbound_chains_by_mode(mode: dict[str, Any], expected: dict[str, dict[str, Any]]) -> None:
    found = translate(view_of([service("web"), mode]), node())
    listener = made(found, names.LISTENER, "virtualInbound")
    assert [f["name"].rpartition(".")[2] for f in listener["listenerFilters"]] == [
        "original_dst",
        "tls_inspector",
    ]
    ours = {name: chain for name, chain in chains(listener).items() if name.startswith("inbound|8080||")}
    assert {name: chain["filterChainMatch"] for name, chain in ours.items()} == expected
    for name, chain in ours.items():
        assert filters(chain) == (["tcp_proxy"] if name == TLS else ["http_connection_manager"])
        assert ("transportSocket" in chain) == (name == MTLS)
    others = {n: c for n, c in chains(listener).items() if n.startswith("inbound-passthrough")}
    assert {n.rpartition("-")[2] for n in others} == {n.rpartition("-")[2] for n in expected}
    assert all("destinationPort" not in c["filterChainMatch"] for c in others.values())


def test_no_chain_of_a_strict_workload_takes_bytes_without_a_certificate() -> None:
    listener = made(translate(view_of([*MESH["services"], STRICT]), node()), names.LISTENER, "virtualInbound")
    assert "defaultFilterChain" not in listener
    for name, chain in chains(listener).items():
        if "blackhole" in name:
            assert chain["filters"][-1]["typedConfig"]["cluster"] == names.BLACK_HOLE_CLUSTER
            continue
        context = chain["transportSocket"]["typedConfig"]
        assert context["requireClientCertificate"] is True
        validation = context["commonTlsContext"]["combinedValidationContext"]["defaultValidationContext"]
        assert validation["matchTypedSubjectAltNames"] == [
            {"sanType": "URI", "matcher": {"prefix": "spiffe://mesh.local/"}}
        ]


def test_nobody_reaches_the_sidecars_own_ports_through_it() -> None:
    service_on_it = service("trap", target=15001, selector={"app": "web"})
    listener = made(translate(view_of([service_on_it]), node()), names.LISTENER, "virtualInbound")
    closed = {
        chain["filterChainMatch"]["destinationPort"]
        for chain in listener["filterChains"]
        if chain["filters"][-1]["typedConfig"].get("cluster") == names.BLACK_HOLE_CLUSTER
    }
    assert closed == {15000, 15001, 15006, 15053}


def test_inbound_http_puts_policy_before_the_router_and_the_caller_into_the_header() -> None:
    documents = [service("web"), *MESH["policies"], STRICT]
    found = translate(view_of(documents), node())
    manager = chains(made(found, names.LISTENER, "virtualInbound"))[MTLS]["filters"][0]["typedConfig"]
    assert [f["name"].rpartition(".")[2] for f in manager["httpFilters"]] == ["rbac", "rbac", "router"]
    first, second = (f["typedConfig"]["rules"] for f in manager["httpFilters"][:2])
    assert (first["action"], second.get("action", "ALLOW")) == ("DENY", "ALLOW")
    assert manager["forwardClientCertDetails"] == "SANITIZE_SET"
    assert manager["setCurrentClientCertDetails"] == {"uri": True}
    relay = chains(made(found, names.LISTENER, "virtualInbound"))["inbound-passthrough-mtls"]
    assert filters(relay) == ["rbac", "rbac", "tcp_proxy"]
    origins = {key.name for key in found.origins[names.LISTENER, "virtualInbound"]}
    assert origins == {"web", "p", "no-admin", "callers", "nothing"}


def test_ports_of_the_app_by_its_own_word_and_by_the_services_that_select_it() -> None:
    documents = [
        service("web", target="named"),
        service("db", port=5432, target=5432, http=False, selector={"app": "web"}),
        service("other", target=7000),
    ]
    inbound = [{"port": {"name": "named", "number": 9090, "protocol": "HTTP"}}]
    found = translate(view_of(documents), node(INBOUND=inbound))
    ours = {name for name in found.by_type[names.CLUSTER] if name.startswith("inbound|")}
    assert ours == {"inbound|9090||", "inbound|5432||"}
    app = made(found, names.CLUSTER, "inbound|9090||")
    assert app["upstreamBindConfig"]["sourceAddress"]["address"] == "127.0.0.6"
    assert "extraSourceAddresses" not in app["upstreamBindConfig"]
    dual = made(translate(view_of(documents), node(INSTANCE_IPS="fd00::1")), names.CLUSTER, "inbound|5432||")
    assert dual["upstreamBindConfig"]["extraSourceAddresses"][0]["address"]["address"] == "::6"


def test_dual_stack_nodes_listen_on_both_families() -> None:
    for addresses, expected in (
        ("10.0.0.1", {"address": "0.0.0.0", "portValue": 15006}),
        ("10.0.0.1,fd00::1", {"address": "::", "portValue": 15006, "ipv4Compat": True}),
    ):
        found = translate(view_of([]), node(INSTANCE_IPS=addresses))
        assert made(found, names.LISTENER, "virtualInbound")["address"]["socketAddress"] == expected


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
    "EGRESS": [
        {"bind": "127.0.0.1:9001", "host": "db.shop.mesh.local", "port": 5432},
        {"bind": "127.0.0.1:9002", "host": "web.shop.mesh.local", "port": 80},
        {"bind": "127.0.0.1:9003", "host": "nobody.shop.mesh.local", "port": 80},
    ],
}


def test_without_capture_listeners_are_explicit() -> None:
    documents = [*MESH["services"], *MESH["entries"], STRICT]
    found = translate(view_of(documents), node(**EXPLICIT))
    assert set(found.by_type[names.LISTENER]) == {
        "egress_http",
        "egress_127.0.0.1:9001",
        "egress_127.0.0.1:9002",
        "egress_127.0.0.1:9003",
        "inbound_127.0.0.1:18080",
    }
    assert not any(c.type == 4 for c in found.by_type[names.CLUSTER].values()), "nothing was dialled"
    (chain,) = made(found, names.LISTENER, "inbound_127.0.0.1:18080")["filterChains"]
    assert chain["filterChainMatch"] == {"transportProtocol": "tls"}
    local = made(found, names.CLUSTER, "inbound|8080||")["loadAssignment"]["endpoints"][0]["lbEndpoints"][0]
    assert local["endpoint"]["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": 8080}
    tcp = made(found, names.LISTENER, "egress_127.0.0.1:9001")["filterChains"][0]["filters"][0]
    assert tcp["typedConfig"]["cluster"] == "outbound|5432||db.shop.mesh.local"
    (only,) = made(found, names.ROUTES, "egress_127.0.0.1:9002")["virtualHosts"]
    assert (only["domains"], only["routes"][0]["route"]["cluster"]) == (["*"], WEB)
    unknown = made(found, names.LISTENER, "egress_127.0.0.1:9003")["filterChains"][0]["filters"][0]
    assert unknown["typedConfig"]["cluster"] == "outbound|80||nobody.shop.mesh.local"


def test_the_forward_proxy_knows_hosts_with_and_without_port() -> None:
    documents = [service("web"), service("odd", port=8081), entry("n")]
    table = made(translate(view_of(documents), node(**EXPLICIT)), names.ROUTES, "egress_http")
    domains = {h["name"]: h["domains"] for h in table["virtualHosts"]}
    assert "web.shop.mesh.local" in domains["web.shop.mesh.local:80"]
    assert {"odd.shop", "odd.shop:8081"} <= set(domains["odd.shop.mesh.local:8081"])
    assert "n.example.org:80" not in domains
    assert table["virtualHosts"][-1]["routes"][0]["directResponse"] == {"status": 502}


def test_the_access_log_goes_where_the_node_says() -> None:
    found = translate(view_of([]), node(ACCESS_LOG="/var/log/x.json"))
    relay = made(found, names.LISTENER, "virtualOutbound")["defaultFilterChain"]["filters"][0]["typedConfig"]
    log = relay["accessLog"][0]["typedConfig"]
    assert log["path"] == "/var/log/x.json"
    fields = log["logFormat"]["jsonFormat"]
    assert fields["downstream_peer_uri_san"] == "%DOWNSTREAM_PEER_URI_SAN%"


def test_the_trust_bundle_is_the_secret_rootca() -> None:
    found = translate(view_of([]), node(), trust_bundle=b"PEM")
    assert found.by_type[names.SECRET]["ROOTCA"].validation_context.trusted_ca.inline_bytes == b"PEM"
    assert not translate(view_of([]), node()).by_type[names.SECRET]
