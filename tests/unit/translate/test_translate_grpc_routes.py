"""GRPCRoutes in clients' route tables: matches, precedence, binding beside HTTPRoutes, and what cannot be resolved."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from control_plane.store.base import Event, EventType, Key
from control_plane.translate import names
from control_plane.translate.builder import translate
from control_plane.translate.resources import Condition, Resources
from proxy.match.regex import compile_regex
from tests.support.mesh_objects import (
    document,
    grpc_route,
    grpc_service,
    node,
    route,
    service,
    stored,
    view_of,
)

API = "api.shop.mesh.local"
SERVICES = [grpc_service("api"), grpc_service("api-v1"), grpc_service("api-v2"), service("web")]
V1 = {"name": "api-v1", "port": 50051}
V2 = {"name": "api-v2", "port": 50051}
WEB = {"name": "web", "port": 80}
GROUP = "gateway.networking.k8s.io"


def resources(*documents: dict[str, Any], **node_fields: Any) -> Resources:
    return translate(view_of([*SERVICES, *documents]), node(**node_fields))


def routes(found: Resources, name: str = f"{API}:50051", table: str = "50051") -> list[dict[str, Any]]:
    hosts = {host.name: host for host in found.by_type[names.ROUTES][table].virtual_hosts}
    return list(json_format.MessageToDict(hosts[name]).get("routes", []))


def route_names(*documents: dict[str, Any], **node_fields: Any) -> list[str]:
    return [one["name"] for one in routes(resources(*documents, **node_fields))]


def conditions(found: Resources, plural: str = "grpcroutes", name: str = "r") -> list[Condition]:
    return list(found.conditions[Key(GROUP, plural, "shop", name)])


def matched(method: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    return {**({} if method is None else {"method": method}), **fields}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (None, {"prefix": "/"}),
        ({}, {"prefix": "/"}),
        ({"method": {"service": "shop.Orders", "method": "Get"}}, {"path": "/shop.Orders/Get"}),
        ({"method": {"service": "shop.Orders"}}, {"prefix": "/shop.Orders/"}),
        ({"method": {"method": "Get"}}, {"safeRegex": {"regex": "/[^/]+/Get"}}),
        (
            {"method": {"type": "RegularExpression", "service": "a|b", "method": "G.*"}},
            {"safeRegex": {"regex": "/(?:a|b)/(?:G.*)"}},
        ),
        (
            {"method": {"type": "RegularExpression", "service": "(?i)(?s)a.b"}},
            {"safeRegex": {"regex": "/(?is:a.b)/[^/]+"}},
        ),
        (
            {"method": {"type": "RegularExpression", "service": "", "method": "Get"}},
            {"safeRegex": {"regex": "/[^/]+/(?:Get)"}},
        ),
        (
            {
                "headers": [
                    {"name": "X-A", "value": "1"},
                    *[{"name": "b", "value": "c+", "type": "RegularExpression"}],
                ]
            },
            {
                "prefix": "/",
                "headers": [
                    {"name": "x-a", "stringMatch": {"exact": "1"}},
                    {"name": "b", "stringMatch": {"safeRegex": {"regex": "c+"}}},
                ],
            },
        ),
    ],
)
def test_matches_are_of_grpc_requests_alone(match: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    rule = {"backendRefs": [V1], **({} if match is None else {"matches": [match]})}
    (only,) = routes(resources(grpc_route("r", "api", [rule])))
    assert only["match"] == {**expected, "grpc": {}}


def test_the_whole_of_a_route() -> None:
    edits = [
        {
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": "X", "value": "5%"}], "remove": ["Gone"]},
        },
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "y", "value": "1"}]}},
    ]
    rule = {
        "name": "all",
        "filters": edits,
        "backendRefs": [{**V1, "weight": 3}, {**V2, "filters": edits[1:]}],
    }
    assert routes(resources(grpc_route("r", "api", [rule]))) == [
        {
            "name": "shop.r.all",
            "match": {"prefix": "/", "grpc": {}},
            "route": {
                "weightedClusters": {
                    "clusters": [
                        {"name": "outbound|50051||api-v1.shop.mesh.local", "weight": 3},
                        {
                            "name": "outbound|50051||api-v2.shop.mesh.local",
                            "weight": 1,
                            "responseHeadersToAdd": [{"header": {"key": "y", "value": "1"}}],
                        },
                    ]
                },
                "timeout": "0s",
                "maxStreamDuration": {"grpcTimeoutHeaderMax": "0s"},
                "retryPolicy": {
                    "retryOn": "connect-failure,refused-stream,unavailable,cancelled",
                    "numRetries": 2,
                },
            },
            "requestHeadersToAdd": [
                {"header": {"key": "x", "value": "5%%"}, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"}
            ],
            "requestHeadersToRemove": ["gone"],
            "responseHeadersToAdd": [{"header": {"key": "y", "value": "1"}}],
        }
    ]


def test_precedence() -> None:
    header = {"headers": [{"name": "x", "value": "1"}]}
    expression = {"type": "RegularExpression"}
    most_specific_first = [
        matched({"service": "shop.Orders", "method": "GetAll"}),
        matched({"service": "shop.Orders", "method": "Get"}, **header),
        matched({"service": "shop.Orders", "method": "Get"}),
        matched({"service": "shop.Orders"}, **header),
        matched({"service": "shop.Orders"}),
        matched({"service": "shop.Cart", "method": "GetEverything"}),
        matched({**expression, "service": "shop[.].+", "method": "G.*"}),
        matched({**expression, "service": "shop[.].+"}),
        matched({"method": "GetAll"}),
        matched({"method": "Get"}),
        matched({**expression, "method": "GetAll|Get"}),
        matched(None, headers=[*header["headers"], {"name": "y", "value": "1"}]),
        matched(None, **header),
        matched(None),
    ]
    rules = [{"name": f"m{index}", "matches": [match]} for index, match in enumerate(most_specific_first)]
    expected = [f"shop.r.m{index}" for index in range(len(rules))]
    assert route_names(grpc_route("r", "api", rules[::-1])) == expected


def test_ties_go_to_the_older_route_then_by_name_then_to_the_earlier_rule() -> None:
    one = {"matches": [{"method": {"service": "a.B"}}]}
    old, young = grpc_route("z-old", "api", [one, one]), grpc_route("a-young", "api", [one])
    assert route_names(old, young) == ["shop.z-old.0", "shop.z-old.1", "shop.a-young.0"]


_NAME = st.from_regex(r"[A-Za-z_][A-Za-z_0-9]{0,5}", fullmatch=True)
_MATCH = st.fixed_dictionaries(
    {},
    optional={
        "method": st.fixed_dictionaries({"service": _NAME}, optional={"method": _NAME})
        | st.fixed_dictionaries({"method": _NAME}),
        "headers": st.lists(
            st.fixed_dictionaries({"name": _NAME, "value": st.just("1")}),
            max_size=3,
            unique_by=lambda header: header["name"].lower(),
        ),
    },
)


@given(st.lists(_MATCH, min_size=1, max_size=8))
def test_names_come_in_the_order_of_the_specification(matches: list[dict[str, Any]]) -> None:
    rules = [{"name": f"m{index}", "matches": [match]} for index, match in enumerate(matches)]

    def criteria(index: int) -> tuple[int, ...]:
        method = matches[index].get("method", {})
        return (
            -len(method.get("service", "")),
            -len(method.get("method", "")),
            -len(matches[index].get("headers", [])),
            index,
        )

    expected = [f"shop.r.m{index}" for index in sorted(range(len(matches)), key=criteria)]
    assert route_names(grpc_route("r", "api", rules)) == expected


@given(
    st.lists(
        st.sampled_from(["a", "ab", "a|b", "(?i)a", "(?i)a|b", "a.", "(a|b)c?"]), min_size=2, max_size=2
    ),
    st.sampled_from(["a", "b", "A", "ab", "ac", "x"]),
    st.sampled_from(["a", "b", "B", "ab", "bc", "x"]),
)
def test_an_expression_holds_for_its_own_part_of_the_path(
    patterns: list[str], called: str, method: str
) -> None:
    both = {"type": "RegularExpression", "service": patterns[0], "method": patterns[1]}
    (only,) = routes(resources(grpc_route("r", "api", [{"matches": [{"method": both}]}])))
    regex = only["match"]["safeRegex"]["regex"]
    expected = bool(re.fullmatch(patterns[0], called) and re.fullmatch(patterns[1], method))
    path = f"/{called}/{method}"
    assert bool(re.fullmatch(regex, path)) == expected
    assert compile_regex(regex, "here")(path.encode()) == expected


def test_a_route_without_rules_routes_nothing() -> None:
    assert routes(resources(grpc_route("r", "api", []))) == []


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ({"name": "missing", "port": 50051}, "BackendNotFound"),
        ({"name": "api-v1", "port": 81}, "BackendNotFound"),
        ({**V1, "namespace": "else"}, "RefNotPermitted"),
        ({**V1, "kind": "Pod"}, "InvalidKind"),
        (WEB, "UnsupportedProtocol"),
    ],
)
def test_the_share_of_an_invalid_backend_is_unavailable(ref: dict[str, Any], reason: str) -> None:
    alone = resources(grpc_route("r", "api", [{"backendRefs": [ref]}]))
    assert routes(alone)[0]["directResponse"] == {"status": 503}
    accepted, resolved = conditions(alone)
    assert (accepted.type, accepted.status) == ("Accepted", True)
    assert (resolved.type, resolved.status, resolved.reason) == ("ResolvedRefs", False, reason)
    assert "spec.rules[0].backendRefs[0]" in resolved.message
    action = routes(resources(grpc_route("r", "api", [{"backendRefs": [V1, ref]}])))[0]["route"]
    assert "clusterNotFoundResponseCode" not in action  # 503 then
    assert action["weightedClusters"]["clusters"][1] == {"name": names.INVALID_BACKEND, "weight": 1}


def test_hostnames_have_no_effect_and_the_status_says_so() -> None:
    rule = {"backendRefs": [V1]}
    plain = resources(grpc_route("r", "api", [rule]))
    named = resources(grpc_route("r", "api", [rule], hostnames=["x.org", "*.y.org"]))
    assert routes(named) == routes(plain)
    assert (conditions(plain)[0].message, conditions(named)[0].status) == ("", True)
    assert "hostnames have no effect" in conditions(named)[0].message


@pytest.mark.parametrize("parent", ["web", "missing"])
def test_a_parent_without_grpc_is_reported_and_changes_nothing(parent: str) -> None:
    found = resources(grpc_route("r", parent, [{"backendRefs": [V1]}]))
    first = conditions(found)[0]
    assert (first.status, first.reason, first.parent) == (False, "NoMatchingParent", 0)
    assert routes(found, "web.shop.mesh.local:80", "80")[0]["name"] == "default"
    if parent == "web":
        assert "has no gRPC port (ports: 80 http HTTP)" in first.message


def test_where_both_kinds_are_bound_the_grpc_route_holds() -> None:
    http = route("h", "api", [{"backendRefs": [V2]}])
    found = resources(http, grpc_route("r", "api", [{"backendRefs": [V1]}]))
    assert [one["name"] for one in routes(found)] == ["shop.r.0"]
    lost = conditions(found, "httproutes", "h")[0]
    assert (lost.type, lost.status, lost.reason, lost.parent) == ("Accepted", False, "Conflicted", 0)
    assert "GRPCRoute shop/r" in lost.message
    assert conditions(found)[0].status
    assert route_names(http) == ["shop.h.0"]


def test_an_http_route_keeps_the_ports_that_no_grpc_route_is_bound_to() -> None:
    ports = [{"name": "grpc", "port": 50051}, {"name": "http", "port": 80}]
    both = service("both", ports=ports)
    found = resources(
        both, route("h", "both", [{"backendRefs": [V2]}]), grpc_route("r", "both", [{"backendRefs": [V1]}])
    )
    host = "both.shop.mesh.local"
    assert [one["name"] for one in routes(found, f"{host}:50051")] == ["shop.r.0"]
    assert [one["name"] for one in routes(found, f"{host}:80", "80")] == ["shop.h.0"]
    kept = conditions(found, "httproutes", "h")[0]
    assert (kept.status, kept.reason) == (True, "Accepted")
    assert f"port 50051 of {host}" in kept.message


def test_a_consumers_grpc_route_takes_nothing_from_the_producers_http_route() -> None:
    producer = route("producer", "api", [{"backendRefs": [V1]}])
    ref = {"group": "", "kind": "Service", "name": "api", "namespace": "shop"}
    spec = {"parentRefs": [ref], "rules": [{"matches": [{"method": {"service": "a.B"}}]}]}
    consumer = document("GRPCRoute", "consumer", spec, "else")
    assert route_names(producer, consumer) == ["shop.producer.0"]
    assert route_names(producer, consumer, namespace="else") == ["else.consumer.0"]
    assert conditions(resources(producer, consumer), "httproutes", "producer")[0].status


def test_a_route_that_comes_later_is_seen_and_is_an_origin_of_the_table() -> None:
    before = view_of(SERVICES)
    (one,) = stored([grpc_route("r", "api", [{"backendRefs": [V1]}])], first=9).values()
    added = before.after([Event(9, EventType.ADDED, one)])
    found = translate(added, node())
    assert [r["name"] for r in routes(found)] == ["shop.r.0"]
    assert one.key in found.origins[names.ROUTES, "50051"]
    gone = translate(added.after([Event(10, EventType.DELETED, one)]), node())
    assert [r["name"] for r in routes(gone)] == ["default"]
