"""Admission of documents: every published rule has a document that breaks it, named by its field path."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.kinds import KINDS, Problem, Reason, by_plural, by_type, field_path, validate
from tests.support.mesh_objects import MESH, document, grpc_route, route, service, slice_of, workload

R = Reason


def problems(body: Any) -> list[tuple[str, Reason]]:
    model, found = validate(body)
    assert (model is None) == bool(found)
    return [(problem.field, problem.reason) for problem in found]


def with_spec(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    changed["spec"].update(changes)
    return changed


def svc(**changes: Any) -> dict[str, Any]:
    return with_spec(service("web"), **changes)


def port(**fields: Any) -> dict[str, Any]:
    return {"name": "http", "port": 80, **fields}


def http_route(**rule: Any) -> dict[str, Any]:
    return route("r", "web", [rule])


def match(**fields: Any) -> dict[str, Any]:
    return http_route(matches=[fields])


def path(value: str, kind: str = "PathPrefix") -> dict[str, Any]:
    return match(path={"type": kind, "value": value})


def headers(**edits: Any) -> dict[str, Any]:
    return http_route(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": edits}])


def grpc(**rule: Any) -> dict[str, Any]:
    return grpc_route("r", "api", [rule])


def method(**fields: Any) -> dict[str, Any]:
    return grpc(matches=[{"method": fields}])


def grpc_edit(**fields: Any) -> dict[str, Any]:
    return grpc(filters=[fields])


def entry(**changes: Any) -> dict[str, Any]:
    spec = {"hosts": ["a.example.org"], "ports": [{"number": 80, "name": "http"}], "resolution": "DNS"}
    return document("ServiceEntry", "e", {**spec, **changes})


def peer(**spec: Any) -> dict[str, Any]:
    return document("PeerAuthentication", "p", spec)


def policy(**spec: Any) -> dict[str, Any]:
    return document("AuthorizationPolicy", "a", spec)


def source(**fields: Any) -> dict[str, Any]:
    return policy(rules=[{"from": [{"source": fields}]}])


def operation(**fields: Any) -> dict[str, Any]:
    return policy(rules=[{"to": [{"operation": fields}]}])


SOURCE = "spec.rules[0].from[0].source"
OPERATION = "spec.rules[0].to[0].operation"
MATCH = "spec.rules[0].matches[0]"
EDIT = "spec.rules[0].filters[0].requestHeaderModifier"
BACKEND = "spec.rules[0].backendRefs[0]"
VALUE = f"{MATCH}.path.value"


@pytest.mark.parametrize("part", MESH)
def test_good_documents_pass(part: str) -> None:
    for body in MESH[part]:
        assert problems(body) == [], body


METADATA = [
    ({**service("web"), "metadata": {}}, [("metadata.name", R.REQUIRED)]),
    ({**service("web"), "metadata": {"name": "Web"}}, [("metadata.name", R.INVALID)]),
    ({**service("web"), "metadata": {"name": "a", "namespace": "a.b"}}, [("metadata.namespace", R.INVALID)]),
    (
        {**service("web"), "metadata": {"name": "a", "finalizers": ["x"]}},
        [("metadata.finalizers", R.FORBIDDEN)],
    ),
    (
        {**service("web"), "metadata": {"name": "a", "labels": {"a.b/c": "!", "/x": "y"}}},
        [("metadata.labels[a.b/c]", R.INVALID), ("metadata.labels[/x]", R.INVALID)],
    ),
    (
        {**service("web"), "metadata": {"name": "a", "annotations": {"a": "x" * 262_144}}},
        [("metadata.annotations", R.TOO_LONG)],
    ),
]

SERVICE = [
    (svc(ports=[]), [("spec.ports", R.REQUIRED)]),
    (svc(ports=[port(port=0)]), [("spec.ports[0].port", R.INVALID)]),
    (svc(ports=[port(port="80")]), [("spec.ports[0].port", R.TYPE_INVALID)]),
    (svc(ports=[port(port=True)]), [("spec.ports[0].port", R.TYPE_INVALID)]),
    (svc(ports=[port(protocol="SCTP")]), [("spec.ports[0].protocol", R.NOT_SUPPORTED)]),
    (svc(ports=[port(targetPort=70000)]), [("spec.ports[0].targetPort", R.INVALID)]),
    (svc(ports=[port(targetPort="Not-A-Name")]), [("spec.ports[0].targetPort", R.INVALID)]),
    (svc(ports=[port(targetPort=[])]), [("spec.ports[0].targetPort", R.TYPE_INVALID)]),
    (svc(ports=[port(nodePort=30000)]), [("spec.ports[0].nodePort", R.FORBIDDEN)]),
    (
        svc(ports=[{"port": 80}, {"port": 81}]),
        [("spec.ports[0].name", R.REQUIRED), ("spec.ports[1].name", R.REQUIRED)],
    ),
    (
        svc(ports=[port(), port()]),
        [("spec.ports[1].name", R.DUPLICATE), ("spec.ports[1].port", R.DUPLICATE)],
    ),
    (svc(type="LoadBalancer"), [("spec.type", R.NOT_SUPPORTED)]),
    (svc(sessionAffinity="ClientIP"), [("spec.sessionAffinity", R.NOT_SUPPORTED)]),
    (svc(clusterIP="127.0.0.1"), [("spec.clusterIP", R.INVALID)]),
    (svc(clusterIP="10.0.0.1", clusterIPs=["10.0.0.2"]), [("spec.clusterIPs[0]", R.INVALID)]),
    (svc(externalName="x"), [("spec.externalName", R.FORBIDDEN)]),
    (svc(colour="red"), [("spec.colour", R.INVALID)]),
    (
        svc(ports=[port(nodePort=1, port=0)], type="NodePort", colour="red"),
        [
            ("spec.ports[0].port", R.INVALID),
            ("spec.ports[0].nodePort", R.FORBIDDEN),
            ("spec.type", R.NOT_SUPPORTED),
            ("spec.colour", R.INVALID),
        ],
    ),
]

SLICE = [
    (slice_of("s", "web", ["10.0.0.1"]) | {"addressType": "FQDN"}, [("addressType", R.NOT_SUPPORTED)]),
    (
        slice_of("s", "web", ["10.0.0.1", "fd00::1"]),
        [("endpoints[1].addresses[0]", R.INVALID)],
    ),
    (slice_of("s", "web", ["127.0.0.1"]), [("endpoints[0].addresses[0]", R.INVALID)]),
    (slice_of("s", "web", ["169.254.1.1"]), [("endpoints[0].addresses[0]", R.INVALID)]),
    (slice_of("s", "web", ["fe80::1%eth0"]), [("endpoints[0].addresses[0]", R.INVALID)]),
    (
        slice_of("s", "web", ["10.0.0.1"]) | {"endpoints": [{"addresses": []}]},
        [("endpoints[0].addresses", R.REQUIRED)],
    ),
    (slice_of("s", "web", ["10.0.0.1"] * 1001), [("endpoints", R.TOO_MANY)]),
    (
        slice_of("s", "web", ["10.0.0.1"]) | {"ports": [{"port": 1}, {"port": 2}]},
        [("ports[1].name", R.DUPLICATE)],
    ),
]

WORKLOAD = [
    (workload("w", "web", "unix:///x"), [("spec.address", R.FORBIDDEN)]),
    (workload("w", "web", "web.example.org"), [("spec.address", R.INVALID)]),
    (workload("w", "web", "10.0.0.1", ports={"http": 0}), [("spec.ports.http", R.INVALID)]),
    (workload("w", "web", "10.0.0.1", ports={"a_b": 1}), [("spec.ports.a_b", R.INVALID)]),
    (workload("w", "web", "10.0.0.1", network="n"), [("spec.network", R.FORBIDDEN)]),
    (workload("w", "web", "10.0.0.1", account="a/b"), [("spec.serviceAccount", R.INVALID)]),
]

ENTRY = [
    (entry(hosts=[]), [("spec.hosts", R.REQUIRED)]),
    (entry(hosts=["*.example.org"]), [("spec.hosts[0]", R.FORBIDDEN)]),
    (entry(hosts=["10.0.0.1"]), [("spec.hosts[0]", R.INVALID)]),
    (entry(hosts=["a.b", "A.b."]), [("spec.hosts[1]", R.DUPLICATE)]),
    (entry(ports=[]), [("spec.ports", R.REQUIRED)]),
    (
        entry(ports=[{"number": 80, "name": "a"}, {"number": 80, "name": "a"}]),
        [("spec.ports[1].number", R.DUPLICATE), ("spec.ports[1].name", R.DUPLICATE)],
    ),
    (
        entry(ports=[{"number": 80, "name": "a", "protocol": "UDP"}]),
        [("spec.ports[0].protocol", R.NOT_SUPPORTED)],
    ),
    (entry(addresses=["10.0.0.0/8"]), [("spec.addresses[0]", R.FORBIDDEN)]),
    (entry(addresses=["fd00::1", "fd00:0::1"]), [("spec.addresses[1]", R.DUPLICATE)]),
    (entry(resolution="NONE", endpoints=[{"address": "1.2.3.4"}]), [("spec.endpoints", R.FORBIDDEN)]),
    (entry(resolution="STATIC"), [("spec.endpoints", R.REQUIRED)]),
    (entry(resolution="STATIC", endpoints=[{"address": "a.b"}]), [("spec.endpoints[0].address", R.INVALID)]),
    (entry(resolution="DNS_SRV", endpoints=[{"address": "a.b"}]), [("spec.endpoints[0].address", R.INVALID)]),
    (
        entry(
            resolution="DNS_SRV", endpoints=[{"address": "_a._tcp.b", "weight": 1}, {"address": "_c._tcp.d"}]
        ),
        [("spec.endpoints[0].weight", R.FORBIDDEN), ("spec.endpoints", R.TOO_MANY)],
    ),
    (entry(endpoints=[{"address": "a.b", "ports": {"x": 1}}]), [("spec.endpoints[0].ports.x", R.INVALID)]),
    (entry(workloadSelector={}), [("spec.workloadSelector", R.FORBIDDEN)]),
    (entry(exportTo=["."]), [("spec.exportTo[0]", R.NOT_SUPPORTED)]),
]

ROUTE = [
    *[
        (path(value), [(VALUE, R.INVALID)])
        for value in (
            "//a",
            "/a//b",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/a/.",
            "/a%2fb",
            "/a%2Fb",
            "/a#b",
            "/a b",
            "/a%zz",
        )
    ],
    (path("a"), [(VALUE, R.INVALID)]),
    (path("/" + "a" * 1024), [(VALUE, R.TOO_LONG)]),
    (path("(", "RegularExpression"), [(VALUE, R.INVALID)]),
    (path("(?=a)", "RegularExpression"), [(VALUE, R.INVALID)]),
    (path(r"(a)\1", "RegularExpression"), [(VALUE, R.INVALID)]),
    (path("/a", "Glob"), [(f"{MATCH}.path.type", R.NOT_SUPPORTED)]),
    (match(method="CONNECT"), [(f"{MATCH}.method", R.FORBIDDEN)]),
    (match(method="get"), [(f"{MATCH}.method", R.NOT_SUPPORTED)]),
    (match(headers=[{"name": "a b", "value": "c"}]), [(f"{MATCH}.headers[0].name", R.INVALID)]),
    (match(headers=[{"name": "a", "value": ""}]), [(f"{MATCH}.headers[0].value", R.REQUIRED)]),
    (
        match(headers=[{"name": "a", "value": "1"}, {"name": "A", "value": "2"}]),
        [(f"{MATCH}.headers[1].name", R.DUPLICATE)],
    ),
    (match(headers=[{"name": f"h{i}", "value": "v"} for i in range(17)]), [(f"{MATCH}.headers", R.TOO_MANY)]),
    (match(queryParams=[{"name": "q", "value": "1"}] * 2), [(f"{MATCH}.queryParams[1].name", R.DUPLICATE)]),
    (headers(set=[{"name": "Host", "value": "x"}]), [(f"{EDIT}.set[0].name", R.FORBIDDEN)]),
    (headers(remove=["Content-Length"]), [(f"{EDIT}.remove[0]", R.FORBIDDEN)]),
    (headers(add=[{"name": "x", "value": "a\r\nb"}]), [(f"{EDIT}.add[0].value", R.INVALID)]),
    (
        headers(set=[{"name": "x", "value": "1"}, {"name": "X", "value": "2"}]),
        [(f"{EDIT}.set[1].name", R.DUPLICATE)],
    ),
    (
        http_route(filters=[{"type": "URLRewrite", "urlRewrite": {}}]),
        [("spec.rules[0].filters[0].type", R.FORBIDDEN)],
    ),
    (
        http_route(filters=[{"type": "RequestHeaderModifier", "cors": {}}]),
        [
            ("spec.rules[0].filters[0].requestHeaderModifier", R.REQUIRED),
            ("spec.rules[0].filters[0].cors", R.FORBIDDEN),
        ],
    ),
    (
        http_route(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": {}}] * 2),
        [("spec.rules[0].filters[1].type", R.DUPLICATE)],
    ),
    (http_route(backendRefs=[{"name": "a"}]), [(f"{BACKEND}.port", R.REQUIRED)]),
    (
        http_route(backendRefs=[{"name": "a", "port": 1, "weight": 1_000_001}]),
        [(f"{BACKEND}.weight", R.INVALID)],
    ),
    (http_route(backendRefs=[{"name": "a", "port": 1, "weight": -1}]), [(f"{BACKEND}.weight", R.INVALID)]),
    (http_route(backendRefs=[{"name": "a", "port": 1}] * 17), [("spec.rules[0].backendRefs", R.TOO_MANY)]),
    (http_route(timeouts={"request": "10"}), [("spec.rules[0].timeouts.request", R.INVALID)]),
    (
        http_route(timeouts={"request": "1s", "backendRequest": "1001ms"}),
        [("spec.rules[0].timeouts.backendRequest", R.INVALID)],
    ),
    (http_route(retry={}), [("spec.rules[0].retry", R.FORBIDDEN)]),
    (with_spec(route("r", "web", [{}]), hostnames=["a.b"]), [("spec.hostnames", R.FORBIDDEN)]),
    (
        with_spec(route("r", "web", [{}]), parentRefs=[{"name": "gw"}]),
        [("spec.parentRefs[0].kind", R.NOT_SUPPORTED)],
    ),
    (with_spec(route("r", "web", [{}]), parentRefs=[]), [("spec.parentRefs", R.REQUIRED)]),
    (route("r", "web", [{}] * 17), [("spec.rules", R.TOO_MANY)]),
    (http_route(matches=[{}] * 65), [("spec.rules[0].matches", R.TOO_MANY)]),
    (route("r", "web", [{"matches": [{}] * 64}] * 2 + [{}]), [("spec.rules", R.TOO_MANY)]),
    (route("r", "web", [{"name": "a"}, {"name": "a"}]), [("spec.rules[1].name", R.DUPLICATE)]),
]

METHOD = f"{MATCH}.method"
FILTER = "spec.rules[0].filters[0]"

GRPC = [
    (method(), [(METHOD, R.REQUIRED)]),
    (method(type="Exact"), [(METHOD, R.REQUIRED)]),
    (method(type="RegularExpression", service="", method=""), [(METHOD, R.REQUIRED)]),
    (method(type="Prefix", service="a"), [(f"{METHOD}.type", R.NOT_SUPPORTED)]),
    (method(service="shop/Orders"), [(f"{METHOD}.service", R.INVALID)]),
    (
        method(service="shop..Orders", method="Get/"),
        [(f"{METHOD}.{f}", R.INVALID) for f in ("service", "method")],
    ),
    (method(service="1shop"), [(f"{METHOD}.service", R.INVALID)]),
    (method(service="shop.Orders\n"), [(f"{METHOD}.service", R.INVALID)]),
    (method(service="", method="Get"), [(f"{METHOD}.service", R.INVALID)]),
    (method(method="a.b"), [(f"{METHOD}.method", R.INVALID)]),
    (method(service="s" * 1025), [(f"{METHOD}.service", R.TOO_LONG)]),
    (method(service=7), [(f"{METHOD}.service", R.TYPE_INVALID)]),
    (
        method(type="RegularExpression", service="(", method="(?=a)"),
        [(f"{METHOD}.service", R.INVALID), (f"{METHOD}.method", R.INVALID)],
    ),
    (method(service="a", path="/a"), [(f"{METHOD}.path", R.INVALID)]),
    (grpc(matches=[{"path": {"value": "/a"}}]), [(f"{MATCH}.path", R.INVALID)]),
    (
        grpc(matches=[{"headers": [{"name": "a", "value": "1"}, {"name": "A", "value": "2"}]}]),
        [(f"{MATCH}.headers[1].name", R.DUPLICATE)],
    ),
    (
        grpc(matches=[{"headers": [{"name": "a", "value": "(", "type": "RegularExpression"}]}]),
        [(f"{MATCH}.headers[0].value", R.INVALID)],
    ),
    (grpc(matches=[{}] * 65), [("spec.rules[0].matches", R.TOO_MANY)]),
    (grpc_edit(type="RequestMirror", requestMirror={}), [(f"{FILTER}.type", R.FORBIDDEN)]),
    (grpc_edit(type="ExtensionRef", extensionRef={}), [(f"{FILTER}.type", R.FORBIDDEN)]),
    (
        grpc_edit(type="URLRewrite", urlRewrite={}),
        [(f"{FILTER}.type", R.NOT_SUPPORTED), (f"{FILTER}.urlRewrite", R.INVALID)],
    ),
    (
        grpc_edit(type="ResponseHeaderModifier", requestHeaderModifier={}),
        [(f"{FILTER}.requestHeaderModifier", R.FORBIDDEN), (f"{FILTER}.responseHeaderModifier", R.REQUIRED)],
    ),
    (
        grpc(backendRefs=[{"name": "a", "port": 1, "filters": [{"type": "RequestMirror"}]}]),
        [(f"{BACKEND}.filters[0].type", R.FORBIDDEN)],
    ),
    (grpc(backendRefs=[{"name": "a"}]), [(f"{BACKEND}.port", R.REQUIRED)]),
    (grpc(backendRefs=[{"name": "a", "port": 1}] * 17), [("spec.rules[0].backendRefs", R.TOO_MANY)]),
    (grpc(timeouts={"request": "1s"}), [("spec.rules[0].timeouts", R.INVALID)]),
    (grpc(sessionPersistence={}), [("spec.rules[0].sessionPersistence", R.FORBIDDEN)]),
    (
        grpc_route("r", "api", [], hostnames=["a.b", "*.a.b", "*", "A.b", "a.*.b", "10.0.0.1", ""]),
        [
            ("spec.hostnames[2]", R.INVALID),
            ("spec.hostnames[3]", R.INVALID),
            ("spec.hostnames[4]", R.INVALID),
            ("spec.hostnames[5]", R.INVALID),
            ("spec.hostnames[6]", R.REQUIRED),
        ],
    ),
    (grpc_route("r", "api", [], hostnames=["a"] * 17), [("spec.hostnames", R.TOO_MANY)]),
    (
        grpc_route("r", "api", [], parentRefs=[{"name": "gw"}]),
        [("spec.parentRefs[0].kind", R.NOT_SUPPORTED)],
    ),
    (
        grpc_route("r", "api", [], parentRefs=[{"group": "", "kind": "Service", "name": "a"}] * 2),
        [("spec.parentRefs[1]", R.DUPLICATE)],
    ),
    (grpc_route("r", "api", [{}] * 17), [("spec.rules", R.TOO_MANY)]),
    (
        grpc_route("r", "api", [{"matches": [{}] * 64}] * 2 + [{"matches": [{}]}]),
        [("spec.rules", R.TOO_MANY)],
    ),
    (grpc_route("r", "api", [{"name": "a"}, {"name": "a"}]), [("spec.rules[1].name", R.DUPLICATE)]),
]

SECURITY = [
    (peer(mtls={"mode": "LOOSE"}), [("spec.mtls.mode", R.NOT_SUPPORTED)]),
    (peer(portLevelMtls={"80": {"mode": "STRICT"}}), [("spec.portLevelMtls", R.FORBIDDEN)]),
    (
        peer(selector={"matchLabels": {"a": "b"}}, portLevelMtls={"http": {"mode": "STRICT"}}),
        [("spec.portLevelMtls.http", R.INVALID)],
    ),
    (peer(selector={"matchLabels": {"a": "b"}}, portLevelMtls={}), [("spec.portLevelMtls", R.REQUIRED)]),
    (peer(selector={"matchLabels": {"a*": "b"}}), [("spec.selector.matchLabels[a*]", R.INVALID)]),
    (policy(action="AUDIT"), [("spec.action", R.FORBIDDEN)]),
    (policy(action="CUSTOM"), [("spec.action", R.FORBIDDEN)]),
    (policy(action="MAYBE"), [("spec.action", R.NOT_SUPPORTED)]),
    (policy(action="DENY"), [("spec.rules", R.REQUIRED)]),
    (policy(rules=[{"when": []}]), [("spec.rules[0].when", R.FORBIDDEN)]),
    (policy(rules=[{"from": []}]), [("spec.rules[0].from", R.REQUIRED)]),
    (policy(targetRefs=[]), [("spec.targetRefs", R.FORBIDDEN)]),
    (source(), [(SOURCE, R.REQUIRED)]),
    (source(principals=[]), [(f"{SOURCE}.principals", R.REQUIRED)]),
    (source(principals=[""]), [(f"{SOURCE}.principals[0]", R.REQUIRED)]),
    (source(principals=["a*b"]), [(f"{SOURCE}.principals[0]", R.INVALID)]),
    (source(principals=["*a*"]), [(f"{SOURCE}.principals[0]", R.INVALID)]),
    (source(ipBlocks=["10.0.0.0/8"]), [(f"{SOURCE}.ipBlocks", R.FORBIDDEN)]),
    (operation(), [(OPERATION, R.REQUIRED)]),
    (operation(ports=["http"]), [(f"{OPERATION}.ports[0]", R.INVALID)]),
    (operation(paths=["admin"]), [(f"{OPERATION}.paths[0]", R.INVALID)]),
    (operation(paths=["/a/{*}"]), [(f"{OPERATION}.paths[0]", R.FORBIDDEN)]),
    (operation(hosts=["a"]), [(f"{OPERATION}.hosts", R.FORBIDDEN)]),
]


@pytest.mark.parametrize(
    ("body", "expected"), [*METADATA, *SERVICE, *SLICE, *WORKLOAD, *ENTRY, *ROUTE, *GRPC, *SECURITY]
)
def test_each_breach_is_named(body: dict[str, Any], expected: list[tuple[str, Reason]]) -> None:
    assert problems(body) == expected


def test_a_document_without_type_or_of_an_unknown_kind() -> None:
    assert problems([]) == [("", R.TYPE_INVALID)]
    assert problems({"metadata": {}}) == [("apiVersion", R.REQUIRED), ("kind", R.REQUIRED)]
    assert problems({"apiVersion": 1, "kind": "Service"}) == [("apiVersion", R.TYPE_INVALID)]
    assert problems({"apiVersion": "v1", "kind": "Pod"}) == [("kind", R.NOT_SUPPORTED)]


def test_null_is_absent_and_a_printed_status_may_be_applied() -> None:
    body = service("web", clusterIP=None)
    body["status"] = {"conditions": []}
    model, found = validate(body)
    assert not found
    assert model is not None and model.model_dump()["spec"]["cluster_ip"] == ""


def test_messages_say_what_to_do() -> None:
    _, found = validate(with_spec(route("r", "web", [{}]), parentRefs=[{"name": "gw"}]))
    assert 'group: "" and kind: Service' in found[0].message
    _, found = validate(svc(nodePorts=1))
    assert str(found[0]) == "spec.nodePorts: unknown field"


def test_kinds_are_found_by_type_and_by_plural_in_every_served_version() -> None:
    for info in KINDS:
        assert by_type(info.api_version, info.kind) is info
        for version in (info.version, *info.also_served):
            assert by_plural(info.group, version, info.plural) is info
    assert by_type("networking.istio.io/v1beta1", "ServiceEntry") is by_type(
        "networking.istio.io/v1", "ServiceEntry"
    )
    assert by_plural("", "v2", "services") is None


def test_field_paths_are_those_of_kubernetes() -> None:
    assert (
        field_path(("spec", "rules", 0, "matches", 1, "path", "value"))
        == "spec.rules[0].matches[1].path.value"
    )
    assert field_path(("metadata", "labels", "a.b/c")) == "metadata.labels[a.b/c]"
    assert str(Problem("", "is odd", R.INVALID)) == "is odd"


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.sampled_from(["", "a", "/", "10.0.0.1", "*", "Service"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "port",
                    "ports",
                    "rules",
                    "from",
                    "source",
                    "principals",
                    "matches",
                    "path",
                    "value",
                    "method",
                    "service",
                    "type",
                    "headers",
                    "hostnames",
                    "filters",
                    "backendRefs",
                    "parentRefs",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(KINDS), _JSON, _JSON)
def test_no_document_makes_validation_fail_otherwise(info: Any, spec: Any, metadata: Any) -> None:
    body = {"apiVersion": info.api_version, "kind": info.kind, "metadata": metadata, "spec": spec}
    model, found = validate(body)
    assert (model is None) == bool(found)
