"""A small mesh as documents, and the view and nodes made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from control_plane.api.kinds import by_type, validate
from control_plane.registry.view import View
from control_plane.store.base import Key, Snapshot, Stored
from control_plane.translate.node import Node, parse_node

Document = dict[str, Any]


def document(
    kind: str, name: str, spec: Mapping[str, Any], namespace: str = "shop", **metadata: Any
) -> Document:
    """An object of one of the kinds, by its bare kind name."""
    versions = {
        "Service": "v1",
        "WorkloadEntry": "networking.istio.io/v1",
        "ServiceEntry": "networking.istio.io/v1",
        "GRPCRoute": "gateway.networking.k8s.io/v1",
        "HTTPRoute": "gateway.networking.k8s.io/v1",
        "PeerAuthentication": "security.istio.io/v1",
        "AuthorizationPolicy": "security.istio.io/v1",
    }
    return {
        "apiVersion": versions[kind],
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": dict(spec),
    }


def service(
    name: str, *, port: int = 80, target: int | str = 8080, http: bool = True, **spec: Any
) -> Document:
    """A Service whose selector is ``app: <name>``."""
    one = {"name": "http" if http else "tcp", "port": port, "targetPort": target}
    return document("Service", name, {"selector": {"app": name}, "ports": [one], **spec})


def grpc_service(name: str, *, port: int = 50051, target: int = 9090, **spec: Any) -> Document:
    """A Service with a gRPC port, whose selector is ``app: <name>``."""
    return service(name, ports=[{"name": "grpc", "port": port, "targetPort": target}], **spec)


def workload(
    name: str, app: str, address: str, *, sidecar: bool = True, account: str = "", **spec: Any
) -> Document:
    """A WorkloadEntry labelled ``app: <app>``, by default with a sidecar and the app's name as service account."""
    labels = {"app": app, **({"security.istio.io/tlsMode": "tulle"} if sidecar else {})}
    return document(
        "WorkloadEntry",
        name,
        {
            "address": address,
            "serviceAccount": account or app,
            "labels": {**labels, **spec.pop("labels", {})},
            **spec,
        },
    )


def slice_of(
    name: str, service_name: str, addresses: Sequence[str], *, port: int = 8080, port_name: str = "http"
) -> Document:
    """An EndpointSlice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": port_name, "port": port}],
    }


def route(name: str, parent: str, rules: Sequence[Mapping[str, Any]], **parent_fields: Any) -> Document:
    """An HTTPRoute bound to a Service."""
    ref = {"group": "", "kind": "Service", "name": parent, **parent_fields}
    return document("HTTPRoute", name, {"parentRefs": [ref], "rules": list(rules)})


def grpc_route(name: str, parent: str, rules: Sequence[Mapping[str, Any]], **spec: Any) -> Document:
    """A GRPCRoute bound to a Service; further keywords are fields of its ``spec``."""
    ref = {"group": "", "kind": "Service", "name": parent}
    return document("GRPCRoute", name, {"parentRefs": [ref], "rules": list(rules), **spec})


def stored(documents: Iterable[Mapping[str, Any]], first: int = 1) -> dict[Key, Stored]:
    """The documents as a store has them, one revision each; raises for one that admission would refuse."""
    objects = {}
    for revision, body in enumerate(documents, first):
        info = by_type(body["apiVersion"], body["kind"])
        assert info is not None
        _, problems = validate(body)
        assert not problems, problems
        metadata = body["metadata"]
        key = Key(info.group, info.plural, metadata.get("namespace", "default"), metadata["name"])
        objects[key] = Stored(key, body, revision, revision, 1)
    return objects


def snapshot(documents: Iterable[Mapping[str, Any]]) -> Snapshot:
    """A snapshot of the documents."""
    objects = stored(documents)
    return Snapshot(len(objects), objects)


def view_of(documents: Iterable[Mapping[str, Any]]) -> View:
    """The view of the documents."""
    return View().at(snapshot(documents))


def node(
    name: str = "web-1", app: str = "web", namespace: str = "shop", agent: str = "tulle", **metadata: Any
) -> Node:
    """A node labelled ``app: <app>``; further keywords are metadata fields."""
    fields = {
        "NAME": name,
        "NAMESPACE": namespace,
        "SERVICE_ACCOUNT": app,
        "LABELS": {"app": app},
        "INSTANCE_IPS": "10.1.0.5",
        **metadata,
    }
    node_id = f"sidecar~10.1.0.5~{name}.{namespace}~{namespace}.svc.mesh.local"
    return parse_node(node_id, f"{app}.{namespace}", fields, agent)


MESH: dict[str, list[Document]] = {
    "services": [
        service("web", clusterIP="10.96.0.10"),
        service("web-v1", selector={"app": "web", "version": "v1"}),
        service("web-v2", selector={"app": "web", "version": "v2"}),
        service(
            "db",
            port=5432,
            target=5432,
            http=False,
            clusterIP="10.96.0.11",
            clusterIPs=["10.96.0.11", "fd96::11"],
        ),
        workload("web-1", "web", "10.1.0.5", labels={"version": "v1"}),
        workload("web-2", "web", "10.1.0.6", labels={"version": "v2"}, locality="eu/eu-1/a", weight=3),
        workload("db-1", "db", "10.1.0.7"),
        slice_of("web-old", "web", ["10.1.0.8"]),
        slice_of("web-six", "web", ["fd00::8"]),
    ],
    "strict": [document("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})],
    "disable": [document("PeerAuthentication", "default", {"mtls": {"mode": "DISABLE"}})],
    "policies": [
        document(
            "AuthorizationPolicy",
            "no-admin",
            {
                "action": "DENY",
                "rules": [
                    {
                        "from": [{"source": {"notPrincipals": ["mesh.local/ns/shop/sa/admin", "*/sa/root"]}}],
                        "to": [
                            {
                                "operation": {
                                    "paths": ["/admin*", "*.cfg", "/exact", "*"],
                                    "notMethods": ["GET"],
                                }
                            }
                        ],
                    }
                ],
            },
        ),
        document(
            "AuthorizationPolicy",
            "callers",
            {
                "rules": [
                    {
                        "from": [
                            {"source": {"namespaces": ["shop", "*-dev", "qa*", "*"], "principals": ["*"]}}
                        ]
                    },
                    {"to": [{"operation": {"ports": ["8080"], "notPorts": ["9000"]}}]},
                    {},
                ]
            },
        ),
        document("AuthorizationPolicy", "nothing", {}),
    ],
    "routes": [
        route(
            "web",
            "web",
            [
                {
                    "name": "canary",
                    "matches": [
                        {"path": {"type": "Exact", "value": "/v2"}, "method": "GET"},
                        {"path": {"type": "RegularExpression", "value": "/u/[0-9]+"}},
                        {
                            "path": {"value": "/api/"},
                            "headers": [
                                {"name": "X-Canary", "value": "yes"},
                                {"name": "x-build", "type": "RegularExpression", "value": "b[0-9]+"},
                            ],
                            "queryParams": [{"name": "q", "value": "1"}],
                        },
                    ],
                    "filters": [
                        {
                            "type": "RequestHeaderModifier",
                            "requestHeaderModifier": {
                                "set": [{"name": "x-set", "value": "100%"}],
                                "add": [{"name": "x-add", "value": "a"}],
                                "remove": ["x-gone"],
                            },
                        }
                    ],
                    "backendRefs": [
                        {"name": "web-v1", "port": 80, "weight": 90},
                        {
                            "name": "web-v2",
                            "port": 80,
                            "weight": 10,
                            "filters": [
                                {
                                    "type": "ResponseHeaderModifier",
                                    "responseHeaderModifier": {"set": [{"name": "x-version", "value": "v2"}]},
                                }
                            ],
                        },
                        {"name": "missing", "port": 80, "weight": 1},
                    ],
                    "timeouts": {"request": "10s", "backendRequest": "2s"},
                },
                {"backendRefs": [{"name": "web-v1", "port": 80}]},
                {"matches": [{"path": {"value": "/nowhere"}}]},
            ],
        )
    ],
    "grpc": [
        grpc_service("api", clusterIP="10.96.0.20"),
        grpc_service("api-v1", selector={"app": "api", "version": "v1"}),
        service("h2", ports=[{"name": "http2-h2", "port": 50051}]),
        workload("api-1", "api", "10.1.0.9", labels={"version": "v1"}),
    ],
    "grpc-routes": [
        grpc_route(
            "api",
            "api",
            [
                {
                    "name": "orders",
                    "matches": [
                        {"method": {"service": "shop.Orders", "method": "Get"}},
                        {"method": {"service": "shop.Carts"}},
                        {"method": {"method": "Check"}, "headers": [{"name": "X-Canary", "value": "yes"}]},
                        {
                            "method": {
                                "type": "RegularExpression",
                                "service": "(?i)shop\\.(a|b)|c",
                                "method": "Get|List",
                            }
                        },
                        {"method": {"type": "RegularExpression", "method": "G.*"}},
                    ],
                    "filters": [
                        {
                            "type": "RequestHeaderModifier",
                            "requestHeaderModifier": {"add": [{"name": "x-add", "value": "a"}]},
                        }
                    ],
                    "backendRefs": [
                        {"name": "api-v1", "port": 50051, "weight": 9},
                        {
                            "name": "h2",
                            "port": 50051,
                            "filters": [
                                {
                                    "type": "ResponseHeaderModifier",
                                    "responseHeaderModifier": {"set": [{"name": "x-via", "value": "h2"}]},
                                }
                            ],
                        },
                        {"name": "missing", "port": 50051},
                    ],
                },
                {"matches": [{"method": {"service": "nowhere"}}]},
                {"backendRefs": [{"name": "api-v1", "port": 50051}]},
            ],
            hostnames=["*.example.org"],
        ),
    ],
    "entries": [
        document(
            "ServiceEntry",
            "static",
            {
                "hosts": ["static.example.org"],
                "resolution": "STATIC",
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                "endpoints": [{"address": "192.0.2.1"}, {"address": "192.0.2.2", "ports": {"http": 8080}}],
            },
        ),
        document(
            "ServiceEntry",
            "dns",
            {
                "hosts": ["api.example.org"],
                "resolution": "DNS",
                "ports": [
                    {"number": 80, "name": "http", "protocol": "HTTP"},
                    {"number": 443, "name": "https", "protocol": "HTTPS"},
                ],
            },
        ),
        document(
            "ServiceEntry",
            "plain",
            {"hosts": ["plain.example.org"], "ports": [{"number": 8888, "name": "http", "protocol": "HTTP"}]},
        ),
        document(
            "ServiceEntry",
            "srv",
            {
                "hosts": ["pay.example.org"],
                "resolution": "DNS_SRV",
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            },
        ),
    ],
}
"""Parts of a mesh that touch everything translate can make."""
