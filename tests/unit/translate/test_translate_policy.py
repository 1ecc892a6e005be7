"""AuthorizationPolicy, judged by the sidecar's own RBAC: who may do what, not how it is written."""

from __future__ import annotations

import re
from typing import Any

import pytest
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from google.protobuf import json_format

from control_plane.translate.policy import applicable, http_filters, network_filters
from tests.support.mesh_objects import document, view_of

TD = "mesh.local"
ROOT = "tulle-system"


def policy(name: str, action: str | None = None, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = {**spec}
    if action:
        body["action"] = action
    if rules:
        body["rules"] = list(rules)
    return document("AuthorizationPolicy", name, body)


def rule(source: dict[str, Any] | None = None, operation: dict[str, Any] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if source:
        made["from"] = [{"source": source}]
    if operation:
        made["to"] = [{"operation": operation}]
    return made


def matcher(value: dict[str, Any], subject: str) -> bool:
    if "exact" in value:
        return bool(subject == value["exact"])
    if "prefix" in value:
        return subject.startswith(value["prefix"])
    if "suffix" in value:
        return subject.endswith(value["suffix"])
    return re.fullmatch(value["safeRegex"]["regex"], subject) is not None


class Call:
    """One request or connection, and what RBAC's rules say of it (Envoy's semantics, restated)."""

    def __init__(self, who: str | None, method: str = "", path: str = "", port: int = 8080) -> None:
        self.who = f"spiffe://{TD}/{who}" if who else None
        self.method, self.path, self.port = method, path, port

    def holds(self, node: dict[str, Any]) -> bool:
        ((kind, value),) = node.items()
        if kind == "any":
            return True
        if kind in ("andRules", "andIds"):
            return all(self.holds(one) for one in next(iter(value.values())))
        if kind in ("orRules", "orIds"):
            return any(self.holds(one) for one in next(iter(value.values())))
        if kind in ("notRule", "notId"):
            return not self.holds(value)
        if kind == "destinationPort":
            return bool(value == self.port)
        if kind == "header":
            assert value["name"] == ":method"
            return matcher(value["stringMatch"], self.method)
        if kind == "urlPath":
            return matcher(value["path"], self.path)
        assert kind == "authenticated"
        return self.who is not None and matcher(value["principalName"], self.who)

    def passes(self, filters: list[Any], kind: Any) -> bool:
        for one in filters:
            config = kind()
            one.typed_config.Unpack(config)
            rules = json_format.MessageToDict(config.rules)
            matched = any(
                any(self.holds(p) for p in policy["permissions"])
                and any(self.holds(p) for p in policy["principals"])
                for policy in rules.get("policies", {}).values()
            )
            if matched == (rules.get("action", "ALLOW") == "DENY"):
                return False
        return True


def allowed(
    documents: list[dict[str, Any]], call: Call, *, http: bool = True, port: int | None = None
) -> bool:
    entries = applicable(view_of(documents).authorization_policies, "shop", {"app": "web"}, ROOT)
    if http:
        return call.passes(http_filters(entries, TD, port), http_rbac_pb2.RBAC)
    return call.passes(network_filters(entries, TD, "tcp", port), network_rbac_pb2.RBAC)


CLIENT, OTHER, ADMIN = "ns/shop/sa/client", "ns/else/sa/client", "ns/shop/sa/admin"
GET = ("GET", "/items")

HTTP_CASES: list[tuple[list[dict[str, Any]], Call, bool]] = [
    ([], Call(None, *GET), True),
    ([policy("none")], Call(CLIENT, *GET), False),
    ([policy("all", None, {})], Call(None, *GET), True),
    ([policy("p", "ALLOW", rule({"principals": [f"{TD}/{CLIENT}"]}))], Call(CLIENT, *GET), True),
    ([policy("p", "ALLOW", rule({"principals": [f"{TD}/{CLIENT}"]}))], Call(CLIENT + "2", *GET), False),
    ([policy("p", "ALLOW", rule({"principals": [f"{TD}/{CLIENT}"]}))], Call(None, *GET), False),
    ([policy("p", "ALLOW", rule({"principals": ["*"]}))], Call(OTHER, *GET), True),
    ([policy("p", "ALLOW", rule({"principals": ["*"]}))], Call(None, *GET), False),
    ([policy("p", "ALLOW", rule({"principals": [f"{TD}/ns/shop/*"]}))], Call(CLIENT, *GET), True),
    ([policy("p", "ALLOW", rule({"principals": ["*/sa/client"]}))], Call(OTHER, *GET), True),
    ([policy("p", "ALLOW", rule({"namespaces": ["shop"]}))], Call(CLIENT, *GET), True),
    ([policy("p", "ALLOW", rule({"namespaces": ["shop"]}))], Call("ns/shop2/sa/client", *GET), False),
    ([policy("p", "ALLOW", rule({"namespaces": ["shop"]}))], Call("ns/x/sa/shop", *GET), False),
    ([policy("p", "ALLOW", rule({"namespaces": ["sh*"]}))], Call("ns/shop2/sa/client", *GET), True),
    ([policy("p", "ALLOW", rule({"namespaces": ["*op"]}))], Call(CLIENT, *GET), True),
    ([policy("p", "ALLOW", rule({"namespaces": ["*op"]}))], Call("ns/x/sa/op", *GET), False),
    ([policy("p", "ALLOW", rule({"namespaces": ["*"]}))], Call(None, *GET), False),
    ([policy("p", "ALLOW", rule({"notNamespaces": ["shop"]}))], Call(None, *GET), True),
    ([policy("p", "ALLOW", rule({"notNamespaces": ["shop"]}))], Call(CLIENT, *GET), False),
    (
        [policy("p", "ALLOW", rule({"namespaces": ["shop"], "notPrincipals": [f"{TD}/{ADMIN}"]}))],
        Call(ADMIN, *GET),
        False,
    ),
    ([policy("p", "ALLOW", rule(None, {"methods": ["GET", "HEAD"]}))], Call(None, "HEAD", "/"), True),
    ([policy("p", "ALLOW", rule(None, {"methods": ["GET"]}))], Call(None, "POST", "/"), False),
    ([policy("p", "ALLOW", rule(None, {"notMethods": ["DELETE"]}))], Call(None, "DELETE", "/"), False),
    ([policy("p", "DENY", rule(None, {"paths": ["/admin*"]}))], Call(CLIENT, "GET", "/admin/x"), False),
    ([policy("p", "DENY", rule(None, {"paths": ["/admin*"]}))], Call(CLIENT, "GET", "/Admin"), True),
    ([policy("p", "DENY", rule(None, {"paths": ["*.cfg"]}))], Call(CLIENT, "GET", "/a.cfg"), False),
    ([policy("p", "DENY", rule(None, {"paths": ["*"]}))], Call(CLIENT, "GET", "/"), False),
    ([policy("p", "ALLOW", rule(None, {"ports": ["8080"], "paths": ["/items"]}))], Call(None, *GET), True),
    ([policy("p", "ALLOW", rule(None, {"ports": ["9090"]}))], Call(None, *GET), False),
    ([policy("p", "DENY", rule(None, {"notPorts": ["9090"]}))], Call(None, *GET), False),
    ([policy("d", "DENY", rule({"namespaces": ["shop"]})), policy("a", None, {})], Call(CLIENT, *GET), False),
    ([policy("d", "DENY", rule({"namespaces": ["shop"]})), policy("a", None, {})], Call(OTHER, *GET), True),
    ([policy("n"), policy("a", "ALLOW", rule({"namespaces": ["shop"]}))], Call(CLIENT, *GET), True),
    ([policy("x", None, selector={"matchLabels": {"app": "db"}})], Call(CLIENT, *GET), True),
    ([policy("x", None, selector={"matchLabels": {"app": "web"}})], Call(CLIENT, *GET), False),
]


@pytest.mark.parametrize(("documents", "call", "expected"), HTTP_CASES)
def test_requests(documents: list[dict[str, Any]], call: Call, expected: bool) -> None:
    assert allowed(documents, call) is expected


def test_policies_of_the_root_namespace_hold_everywhere_and_others_at_home_only() -> None:
    everywhere = document("AuthorizationPolicy", "x", {}, ROOT)
    elsewhere = document("AuthorizationPolicy", "x", {}, "else")
    assert not allowed([everywhere], Call(CLIENT, *GET))
    assert allowed([elsewhere], Call(CLIENT, *GET))


TCP_CASES: list[tuple[dict[str, Any], bool]] = [
    (policy("a", "ALLOW", rule({"namespaces": ["shop"]})), True),
    (policy("a", "ALLOW", rule(None, {"methods": ["GET"]})), False),
    (policy("a", "ALLOW", rule(None, {"notPaths": ["/x"]})), False),
    (policy("a", "ALLOW", rule(None, {"ports": ["8080"], "methods": ["GET"]})), False),
    (
        policy(
            "a", "ALLOW", {"to": [{"operation": {"methods": ["GET"]}}, {"operation": {"ports": ["8080"]}}]}
        ),
        True,
    ),
    (policy("d", "DENY", rule(None, {"methods": ["GET"]})), False),
    (policy("d", "DENY", rule(None, {"ports": ["9090"], "paths": ["/x"]})), True),
    (policy("d", "DENY", rule({"namespaces": ["else"]}, {"paths": ["/x"]})), True),
]


@pytest.mark.parametrize(("body", "expected"), TCP_CASES)
def test_on_tcp_http_fields_make_allow_narrower_and_deny_wider(body: dict[str, Any], expected: bool) -> None:
    assert allowed([body], Call(CLIENT), http=False) is expected


def test_where_the_listener_has_another_port_the_apps_port_decides() -> None:
    body = policy("a", "ALLOW", rule(None, {"ports": ["8080"]}))
    assert allowed([body], Call(None, *GET, port=18080), port=8080)
    assert not allowed([body], Call(None, *GET, port=8080), port=9090)
