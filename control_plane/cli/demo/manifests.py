"""The demo's configuration: just what a user would write in YAML files."""

from __future__ import annotations

SERVICES = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  clusterIP: 10.96.0.10
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
---
apiVersion: v1
kind: Service
metadata: {name: web-v1, namespace: shop}
spec:
  selector: {app: web, version: v1}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
---
apiVersion: v1
kind: Service
metadata: {name: web-v2, namespace: shop}
spec:
  selector: {app: web, version: v2}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec:
  mtls: {mode: STRICT}
"""

SRV_SERVICE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: pay, namespace: shop}
spec:
  hosts: [pay.legacy.test]
  location: MESH_EXTERNAL
  resolution: DNS_SRV
  ports:
  - {number: 80, name: http, protocol: HTTP}
"""

POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-the-client, namespace: shop}
spec:
  selector:
    matchLabels: {app: web}
  action: ALLOW
  rules:
  - from:
    - source:
        principals: ["mesh.local/ns/shop/sa/client"]
    to:
    - operation:
        methods: ["GET"]
"""


def route(v1: int, v2: int) -> str:
    """An HTTPRoute that splits ``web`` between its two versions."""
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  parentRefs:
  - {{group: "", kind: Service, name: web, port: 80}}
  rules:
  - backendRefs:
    - {{name: web-v1, port: 80, weight: {v1}}}
    - {{name: web-v2, port: 80, weight: {v2}}}
"""


def zone(addresses: dict[str, str], backends: dict[str, tuple[int, int, str, int]]) -> str:
    """A zone of every name that the demo's pods ask for.

    ``addresses`` maps names to IPv4 literals: the services' virtual addresses. ``backends`` maps labels to priority,
    weight, address and port of the SRV records of ``pay.legacy.test``.
    """
    lines = [
        "$ORIGIN .",
        "$TTL 2",
        "@ IN SOA ns.legacy.test. admin.legacy.test. 1 60 60 600 2",
        "@ IN NS ns.legacy.test.",
        "ns.legacy.test. IN A 127.0.0.1",
    ]
    lines += [f"{name}. IN A {address}" for name, address in addresses.items()]
    for label, (priority, weight, address, port) in backends.items():
        lines.append(f"_http._tcp.pay.legacy.test. IN SRV {priority} {weight} {port} {label}.legacy.test.")
        lines.append(f"{label}.legacy.test. IN A {address}")
    return "\n".join(lines) + "\n"
