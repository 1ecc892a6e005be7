"""HTTPRoutes in clients' route tables: binding, precedence, shares, edits, and what cannot be resolved."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from control_plane.store.base import Key
from control_plane.translate import names
from control_plane.translate.builder import translate
from control_plane.translate.resources import Condition, Resources
from tests.support.mesh_objects import document, node, route, service, view_of

WEB = "web.shop.mesh.local"
SERVICES = [service("web"), service("web-v1"), service("web-v2")]
V1 = {"name": "web-v1", "port": 80}
V2 = {"name": "web-v2", "port": 80}


def resources(*documents: dict[str, Any], **node_fields: Any) -> Resources:
    return translate(view_of([*SERVICES, *documents]), node(**node_fields))


def host(found: Resources, name: str = f"{WEB}:80", table: str = "80") -> dict[str, Any]:
    message = found.by_type[names.ROUTES][table]
    hosts = {h.name: h for h in message.virtual_hosts}
    return json_format.MessageToDict(hosts[name])


def routes(*documents: dict[str, Any], **node_fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host(resources(*documents, **node_fields))["routes"]
    return found


def conditions(found: Resources, name: str = "r") -> list[Condition]:
    return list(found.conditions[Key("gateway.networking.k8s.io", "httproutes", "shop", name)])


def test_without_a_route_everything_goes_to_the_service() -> None:
    (only,) = routes()
    assert only["route"]["cluster"] == f"outbound|80||{WEB}"
    assert (only["match"], only["route"]["timeout"]) == ({"prefix": "/"}, "0s")
    assert only["route"]["retryPolicy"] == {
        "retryOn": "connect-failure,refused-stream,unavailable,cancelled",
        "numRetries": 2,
    }


def test_domains_are_the_names_by_which_a_client_knows_the_service() -> None:
    both = service("dual", clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", "fd96::1"])
    expected = ["dual.shop.mesh.local", "dual.shop", "dual", "10.96.0.1", "[fd96::1]"]
    same = host(resources(both), "dual.shop.mesh.local:80")["domains"]
    assert same == [d for name in expected for d in (name, f"{name}:80")]
    other = host(resources(both, namespace="else"), "dual.shop.mesh.local:80")["domains"]
    assert "dual" not in other and "dual.shop" in other


def test_no_two_virtual_hosts_have_the_same_domain() -> None:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    clash = document("ServiceEntry", "e", {"hosts": ["web.shop"], "ports": ports, "resolution": "DNS"})
    table = resources(clash).by_type[names.ROUTES]["80"]
    domains = [domain for one in table.virtual_hosts for domain in one.domains]
    assert len(domains) == len(set(domains))
    assert "web.shop" in host(resources(clash))["domains"]


def test_a_route_replaces_the_default_and_leaves_other_services_alone() -> None:
    found = resources(route("r", "web", [{"backendRefs": [V1]}]))
    (only,) = host(found)["routes"]
    assert (only["name"], only["route"]["cluster"]) == ("shop.r.0", "outbound|80||web-v1.shop.mesh.local")
    assert host(found, "web-v1.shop.mesh.local:80")["routes"][0]["name"] == "default"


def test_precedence() -> None:
    matches: list[dict[str, Any]] = [
        {"path": {"value": "/"}},
        {"path": {"value": "/a"}},
        {"path": {"value": "/a"}, "queryParams": [{"name": "q", "value": "1"}]},
        {"path": {"value": "/a"}, "headers": [{"name": "x", "value": "1"}]},
        {
            "path": {"value": "/a"},
            "headers": [{"name": "x", "value": "1"}, {"name": "y", "value": "1"}],
        },
        {"path": {"value": "/a"}, "method": "GET"},
        {"path": {"value": "/a/longer/"}},
        {"path": {"type": "RegularExpression", "value": "/.*"}},
        {"path": {"type": "Exact", "value": "/a"}},
    ]
    rules = [{"name": f"m{index}", "matches": [match]} for index, match in enumerate(matches)]
    order = [r["name"].rpartition(".")[2] for r in routes(route("r", "web", rules))]
    assert order == ["m8", "m7", "m6", "m5", "m4", "m3", "m2", "m1", "m0"]


def test_ties_go_to_the_older_route_then_to_the_earlier_rule() -> None:
    one = {"matches": [{"path": {"value": "/a"}}]}
    old, young = route("z-old", "web", [one, one]), route("a-young", "web", [one])
    assert [r["name"] for r in routes(old, young)] == ["shop.z-old.0", "shop.z-old.1", "shop.a-young.0"]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, {"prefix": "/"}),
        ({"path": {"value": "/a/"}}, {"pathSeparatedPrefix": "/a"}),
        ({"path": {"type": "Exact", "value": "/a/"}}, {"path": "/a/"}),
        ({"path": {"type": "RegularExpression", "value": "/a+"}}, {"safeRegex": {"regex": "/a+"}}),
        (
            {"method": "PUT", "headers": [{"name": "X-A", "value": "b", "type": "RegularExpression"}]},
            {
                "prefix": "/",
                "headers": [
                    {"name": ":method", "stringMatch": {"exact": "PUT"}},
                    {"name": "x-a", "stringMatch": {"safeRegex": {"regex": "b"}}},
                ],
            },
        ),
        (
            {"queryParams": [{"name": "Q", "value": "1"}]},
            {"prefix": "/", "queryParameters": [{"name": "Q", "stringMatch": {"exact": "1"}}]},
        ),
    ],
)
def test_matches(match: dict[str, Any], expected: dict[str, Any]) -> None:
    (only,) = routes(route("r", "web", [{"matches": [match]}]))
    assert only["match"] == expected


def test_shares_edits_and_limits() -> None:
    edit = {"set": [{"name": "X-V", "value": "50%"}], "add": [{"name": "y", "value": "1"}], "remove": ["Z"]}
    rule = {
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": edit}],
        "backendRefs": [
            {**V1, "weight": 9},
            {
                **V2,
                "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["w"]}}],
            },
            {**V2, "weight": 0},
        ],
        "timeouts": {"request": "1m30s", "backendRequest": "500ms"},
    }
    (only,) = routes(route("r", "web", [rule]))
    clusters = only["route"]["weightedClusters"]["clusters"]
    assert [(c["name"], c["weight"]) for c in clusters] == [
        ("outbound|80||web-v1.shop.mesh.local", 9),
        ("outbound|80||web-v2.shop.mesh.local", 1),
    ]
    assert clusters[1]["responseHeadersToRemove"] == ["w"]
    assert only["requestHeadersToAdd"] == [
        {"header": {"key": "x-v", "value": "50%%"}, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"},
        {"header": {"key": "y", "value": "1"}},
    ]
    assert only["requestHeadersToRemove"] == ["z"]
    assert only["route"]["timeout"] == "90s"
    assert only["route"]["retryPolicy"]["perTryTimeout"] == "0.500s"


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ({"name": "missing", "port": 80}, "BackendNotFound"),
        ({"name": "web-v1", "port": 81}, "BackendNotFound"),
        ({"name": "web-v1", "port": 80, "namespace": "else"}, "RefNotPermitted"),
        ({"name": "web-v1", "kind": "Pod"}, "InvalidKind"),
        (
            {"name": "x.org", "kind": "Hostname", "group": "networking.istio.io", "port": 80},
            "BackendNotFound",
        ),
    ],
)
def test_the_share_of_an_invalid_backend_answers_500(ref: dict[str, Any], reason: str) -> None:
    alone = resources(route("r", "web", [{"backendRefs": [ref]}]))
    assert host(alone)["routes"][0]["directResponse"] == {"status": 500}
    found = conditions(alone)
    assert [(c.type, c.status, c.reason) for c in found] == [
        ("Accepted", True, "Accepted"),
        ("ResolvedRefs", False, reason),
    ]
    assert "spec.rules[0].backendRefs[0]" in found[1].message
    action = routes(route("r", "web", [{"backendRefs": [V1, ref]}]))[0]["route"]
    assert action["clusterNotFoundResponseCode"] == "INTERNAL_SERVER_ERROR"
    assert action["weightedClusters"]["clusters"][1] == {"name": names.INVALID_BACKEND, "weight": 1}


def test_a_rule_without_backends_or_weight_answers_500() -> None:
    for refs in ([], [{**V1, "weight": 0}]):
        assert routes(route("r", "web", [{"backendRefs": refs}]))[0]["directResponse"] == {"status": 500}


def test_backends_outside_the_mesh() -> None:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    outside = document("ServiceEntry", "e", {"hosts": ["x.org"], "ports": ports, "resolution": "DNS"})
    group = "networking.istio.io"
    for kind, name in (("Hostname", "x.org"), ("ServiceEntry", "e")):
        ref = {"group": group, "kind": kind, "name": name, "port": 80}
        (only,) = routes(outside, route("r", "web", [{"backendRefs": [ref]}]))
        assert only["route"]["cluster"] == "outbound|80||x.org"


@pytest.mark.parametrize(
    "parent",
    [
        {"name": "missing"},
        {"name": "web", "port": 81},
        {"name": "web", "sectionName": "admin"},
        {"name": "db"},
    ],
)
def test_a_parent_that_does_not_fit_is_reported_and_changes_nothing(parent: dict[str, Any]) -> None:
    body = document("HTTPRoute", "r", {"parentRefs": [{"group": "", "kind": "Service", **parent}]})
    found = resources(service("db", port=5432, http=False), body)
    first = conditions(found)[0]
    assert (first.type, first.status, first.reason, first.parent) == (
        "Accepted",
        False,
        "NoMatchingParent",
        0,
    )
    assert host(found)["routes"][0]["name"] == "default"


def test_a_consumer_route_holds_for_clients_of_its_namespace_alone() -> None:
    producer = route("producer", "web", [{"backendRefs": [V1]}])
    spec = {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": "shop"}],
        "rules": [{"matches": [{"path": {"value": "/c"}}]}],
    }
    consumer = document("HTTPRoute", "consumer", spec, "else")
    assert [r["name"] for r in routes(producer, consumer)] == ["shop.producer.0"]
    assert [r["name"] for r in routes(producer, consumer, namespace="else")] == ["else.consumer.0"]


def test_unknown_hosts_pass_through_or_are_refused() -> None:
    found = resources()
    assert host(found, "allow_any")["routes"][0]["route"]["cluster"] == names.PASSTHROUGH_CLUSTER
    table = found.by_type[names.ROUTES]["80"]
    assert [h.name for h in table.virtual_hosts][-1] == "allow_any"
