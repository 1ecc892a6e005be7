"""Ports that speak HTTP/2: how clients' sidecars call them, and how servers' sidecars hand calls to the app."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from control_plane.translate import names
from control_plane.translate.builder import translate
from control_plane.translate.http_version import PROTOCOL_OPTIONS
from control_plane.translate.resources import Resources
from control_plane.translate.settings import MeshSettings
from tests.support.mesh_objects import document, node, service, view_of, workload

API = "outbound|50051||api.shop.mesh.local"
HTTP2 = {
    PROTOCOL_OPTIONS: {
        "@type": f"type.googleapis.com/{PROTOCOL_OPTIONS}",
        "explicitHttpConfig": {"http2ProtocolOptions": {"allowConnect": True}},
    }
}
EXPLICIT = {
    "INTERCEPTION_MODE": "NONE",
    "INBOUND": [
        {
            "bind": f"127.0.0.1:1{number}",
            "defaultEndpoint": f"127.0.0.1:{number}",
            "port": {"name": protocol.lower(), "number": number, "protocol": protocol},
        }
        for number, protocol in ((8080, "HTTP"), (8081, "HTTP2"), (8082, "GRPC"), (8083, "TCP"))
    ],
    "OUTBOUND_BIND": "127.0.0.1:15001",
    "EGRESS": [{"bind": "127.0.0.1:9001", "host": "api.shop.mesh.local", "port": 50051}],
}


def api(**port: Any) -> dict[str, Any]:
    one = {"name": "main", "port": 50051, "targetPort": 9090, **port}
    return service("api", ports=[one], clusterIP="10.96.0.20")


def made(found: Resources, type_url: str, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json_format.MessageToDict(found.by_type[type_url][name])
    return result


def chains(found: Resources, listener: str = "virtualInbound") -> dict[str, dict[str, Any]]:
    return {chain["name"]: chain for chain in made(found, names.LISTENER, listener)["filterChains"]}


def alpn(owner: dict[str, Any]) -> list[str]:
    context = owner["transportSocket"]["typedConfig"]["commonTlsContext"]
    return list(context["alpnProtocols"])


@pytest.mark.parametrize(
    ("port", "http2"),
    [
        ({"appProtocol": "grpc"}, True),
        ({"appProtocol": "kubernetes.io/h2c"}, True),
        ({"name": "http2-api"}, True),
        ({"name": "grpc"}, True),
        ({"name": "http-api"}, False),
    ],
)
def test_the_versions_of_http_on_both_sides_of_a_port(port: dict[str, Any], http2: bool) -> None:
    documents = [api(**port), workload("api-1", "api", "10.1.0.9")]
    found = translate(view_of(documents), node(app="api"))
    out, into = made(found, names.CLUSTER, API), made(found, names.CLUSTER, "inbound|9090||")
    expected = HTTP2 if http2 else None
    assert out.get("typedExtensionProtocolOptions") == expected
    assert into.get("typedExtensionProtocolOptions") == expected
    assert alpn(out["transportSocketMatches"][0]) == (["tulle", "h2"] if http2 else ["tulle"])
    inbound = chains(found)["inbound|9090||-mtls"]
    assert inbound["filters"][-1]["name"] == "envoy.filters.network.http_connection_manager"
    assert inbound["filters"][-1]["typedConfig"]["http2ProtocolOptions"] == {"allowConnect": True}
    assert "codecType" not in inbound["filters"][-1]["typedConfig"]  # AUTO: by ALPN, else by the preface
    assert alpn(inbound) == ["h2", "http/1.1", "tulle"]
    assert inbound["filterChainMatch"]["applicationProtocols"] == ["tulle"]
    assert "0.0.0.0_50051" in found.by_type[names.LISTENER]
    assert "10.96.0.20_50051" not in found.by_type[names.LISTENER]
    (host,) = (h for h in found.by_type[names.ROUTES]["50051"].virtual_hosts if h.name.startswith("api.shop"))
    assert {"api", "api:50051", "10.96.0.20:50051"} <= set(host.domains)
    (action,) = (json_format.MessageToDict(route.route) for route in host.routes)
    assert (action["timeout"], "maxStreamDuration" in action) == ("0s", http2)


@pytest.mark.parametrize("port", [{}, {"appProtocol": "tls"}, {"name": "https"}, {"name": "tcp-grpc"}])
def test_bytes_that_are_relayed_have_no_version_of_http(port: dict[str, Any]) -> None:
    found = translate(
        view_of([api(**port), workload("api-1", "api", "10.1.0.9")]), node(app="api", agent="envoy")
    )
    for name in (API, "inbound|9090||"):
        assert "typedExtensionProtocolOptions" not in made(found, names.CLUSTER, name)
    assert alpn(made(found, names.CLUSTER, API)["transportSocketMatches"][0]) == ["tulle"]
    inbound = chains(found)["inbound|9090||-mtls"]
    assert inbound["filters"][-1]["name"] == "envoy.filters.network.tcp_proxy"
    assert alpn(inbound) == alpn(chains(found)["inbound-passthrough-mtls"]) == ["tulle"]
    assert "10.96.0.20_50051" in found.by_type[names.LISTENER]


def test_tls_of_a_headless_service_is_told_apart_by_its_server_name() -> None:
    headless = service("api", ports=[{"name": "https", "port": 443}], clusterIP="None")
    found = translate(view_of([headless]), node())
    chain = chains(found, "0.0.0.0_443")["api.shop.mesh.local"]
    assert chain["filterChainMatch"] == {
        "transportProtocol": "tls",
        "serverNames": ["api.shop.mesh.local"],
    }


def test_without_capture_the_nodes_own_word_counts() -> None:
    found = translate(view_of([api(appProtocol="grpc")]), node(app="api", **EXPLICIT))
    versions = {
        number: "typedExtensionProtocolOptions" in made(found, names.CLUSTER, f"inbound|{number}||")
        for number in (8080, 8081, 8082, 8083)
    }
    assert versions == {8080: False, 8081: True, 8082: True, 8083: False}
    served = {
        number: chains(found, f"inbound_127.0.0.1:1{number}")[f"inbound|{number}||-mtls"]["filters"][-1]
        for number in versions
    }
    assert [one["name"].rpartition(".")[2] for one in served.values()] == [
        *["http_connection_manager"] * 3,
        "tcp_proxy",
    ]
    egress = chains(found, "egress_127.0.0.1:9001")["egress_127.0.0.1:9001"]
    assert egress["filters"][0]["name"] == "envoy.filters.network.http_connection_manager"


def test_hosts_that_nobody_declared_hear_the_version_that_their_client_speaks() -> None:
    passthrough = made(translate(view_of([]), node()), names.CLUSTER, names.PASSTHROUGH_CLUSTER)
    options = passthrough["typedExtensionProtocolOptions"][PROTOCOL_OPTIONS]
    assert options["useDownstreamProtocolConfig"] == {
        "httpProtocolOptions": {},
        "http2ProtocolOptions": {"allowConnect": True},
    }


@pytest.mark.parametrize(
    ("pods", "upgraded"),
    [([], False), ([True], True), ([True, True], True), ([True, False], False), ([False], False)],
)
def test_http_shares_http2_connections_where_every_endpoint_has_a_sidecar(
    pods: list[bool], upgraded: bool
) -> None:
    made_pods = [
        workload(f"api-{number}", "api", f"10.1.0.{number}", sidecar=sidecar)
        for number, sidecar in enumerate(pods, 1)
    ]
    view = view_of([api(name="http"), *made_pods])
    for policy, expected in (("UPGRADE", upgraded), ("DO_NOT_UPGRADE", False)):
        found = translate(view, node(app="api"), MeshSettings(h2_upgrade_policy=policy))
        out = made(found, names.CLUSTER, API)
        assert out.get("typedExtensionProtocolOptions") == (HTTP2 if expected else None)
        # The app hears what it always did.
        assert "typedExtensionProtocolOptions" not in made(found, names.CLUSTER, "inbound|9090||")
        for match in out.get("transportSocketMatches", ())[:1]:
            assert alpn(match) == (["tulle", "h2"] if expected else ["tulle"])


def test_grpc_outside_the_mesh_is_called_in_plaintext_http2() -> None:
    ports = [{"number": 443, "name": "grpc", "protocol": "GRPC"}]
    spec = {"hosts": ["x.org"], "ports": ports, "resolution": "DNS"}
    found = translate(view_of([document("ServiceEntry", "e", spec)]), node())
    cluster = made(found, names.CLUSTER, "outbound|443||x.org")
    assert cluster["typedExtensionProtocolOptions"] == HTTP2
    assert "transportSocketMatches" not in cluster
