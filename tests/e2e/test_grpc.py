"""gRPC between pods whose traffic is captured: by a GRPCRoute, without one, and to a host that nobody declared."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from control_plane.cli.demo.processes import first_line
from control_plane.cli.demo.worlds import Workload
from tests.e2e.conftest import Mesh
from tests.e2e.test_envoy import start_envoy

pytestmark = [pytest.mark.netns(timeout=180), pytest.mark.envoy]

APP = [sys.executable, "-m", "tests.support.grpc_app"]
SERVICES = """\
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  selector: {app: api}
  clusterIP: 10.96.0.30
  ports: [{name: grpc, port: 50051, targetPort: 9090}]
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec:
  selector: {app: other}
  clusterIP: 10.96.0.31
  ports: [{name: main, port: 50051, targetPort: 9090, appProtocol: kubernetes.io/h2c}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec:
  mtls: {mode: STRICT}
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules:
  - matches: [{method: {service: shop.Orders}}]
    backendRefs: [{name: api, port: 50051}]
  - matches: [{method: {service: shop.Orders, method: Audit}}]
    backendRefs: [{name: other, port: 50051}]
"""


def start_sidecar(mesh: Mesh, workload: Workload, kind: str) -> None:
    if kind == "envoy":
        start_envoy(mesh, workload)
    else:
        mesh.start_sidecar(workload)


def serve(mesh: Mesh, workload: Workload, port: int) -> None:
    workload.app = mesh.processes.start(
        f"{workload.name}.app",
        [*APP, "serve", workload.name, f"0.0.0.0:{port}"],
        popen=workload.popen,
        stdout=subprocess.PIPE,
    )
    first_line(workload.app.popen.stdout, workload.app)


def call(workload: Workload, address: str, path: str) -> dict[str, Any]:
    process = workload.popen([*APP, "call", address, path], stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize(("client", "server"), [("tulle", "tulle"), ("envoy", "tulle"), ("tulle", "envoy")])
def test_captured_calls_are_routed_and_secured(mesh: Mesh, client: str, server: str) -> None:
    caller, *servers = (mesh.workload(name) for name in ("client", "api", "other"))
    mesh.start_control_plane()
    mesh.apply(SERVICES, "services.yaml")
    for workload, kind in ((caller, client), *((one, server) for one in servers)):
        if workload is not caller:
            serve(mesh, workload, 9090)
        start_sidecar(mesh, workload, kind)
    assert caller.sidecar is not None

    # Without a route: the service's own endpoints.
    for address, name in (("10.96.0.30:50051", "api"), ("10.96.0.31:50051", "other")):
        caller.sidecar.wait_until(
            lambda address=address, name=name: call(caller, address, "/a.B/C").get("name") == name,  # type: ignore[misc]
            f"a call to {name}",
            timeout=60,
        )
    mesh.apply(ROUTE, "route.yaml")
    mesh.wait_programmed("grpcroute", "api", timeout=30)
    caller.sidecar.wait_until(
        lambda: call(caller, "10.96.0.30:50051", "/a.B/C")["code"] == "UNIMPLEMENTED", "the route holding"
    )
    for path, name in (("/shop.Orders/Get", "api"), ("/shop.Orders/Audit", "other")):
        assert call(caller, "10.96.0.30:50051", path) == {"code": "OK", "name": name, "path": path}

    def record(workload: Workload) -> dict[str, Any] | None:
        return next((one for one in workload.log_records() if one["path"] == "/shop.Orders/Audit"), None)

    other = servers[1]
    assert other.sidecar is not None
    other.sidecar.wait_until(lambda: record(other) is not None, "the log line")
    seen = record(other)
    assert seen is not None
    assert (seen["protocol"], seen["downstream_peer_uri_san"]) == ("HTTP/2", caller.spiffe_id)


@pytest.mark.parametrize("client", ["envoy", "tulle"])
def test_a_call_to_a_host_that_nobody_declared_stays_http2(mesh: Mesh, client: str) -> None:
    """Its port number is that of a service, whose listener takes every address."""
    caller, bare = mesh.workload("client"), mesh.add_bare("bare")
    mesh.start_control_plane()
    mesh.apply(SERVICES, "services.yaml")
    start_sidecar(mesh, caller, client)
    serve(mesh, bare, 50051)
    assert caller.sidecar is not None
    expected = {"code": "OK", "name": "bare", "path": "/a.B/C"}
    caller.sidecar.wait_until(
        lambda: call(caller, f"{bare.ip}:50051", "/a.B/C") == expected, "a call to it", timeout=30
    )
    caller.sidecar.wait_until(
        lambda: any(
            (one["upstream_cluster"], one["response_code"]) == ("PassthroughCluster", 200)
            for one in caller.log_records()
        ),
        "the sidecar's log of it",
    )
