"""A real Envoy in a sidecar's place: same ADS, same identity, same routes and policies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from control_plane.cli.demo import manifests
from control_plane.cli.demo.worlds import MARK, NAMESPACE, Workload, http_get, tulle
from netns import namespace
from tests.e2e.conftest import WEB, Mesh

pytestmark = [pytest.mark.netns(timeout=180), pytest.mark.envoy]

ENVOY = str(Path(sys.executable).parent / "envoy")


def start_envoy(mesh: Mesh, workload: Workload) -> None:
    """Enrol and start an Envoy where ``tulle proxy`` would run, and wait until it has its listeners."""
    token_file = mesh.directory / f"{workload.name}.token"
    token_file.write_text(
        mesh.cli(
            "token", "create", "--namespace", NAMESPACE, "--service-account", workload.account, "--ttl", "5m"
        )
    )
    labels = [word for key, value in workload.labels.items() for word in ("--label", f"{key}={value}")]
    directory = mesh.directory / "envoy" / workload.name
    enrol = workload.popen(
        tulle(
            "envoy-bootstrap",
            *("--control-plane", f"{mesh.gateway}:15012", "--token-file", str(token_file)),
            *("--namespace", NAMESPACE, "--service-account", workload.account, "--name", workload.name),
            *("--ip", workload.ip, "--capture-mark", str(MARK), "--access-log", str(workload.access_log)),
            *("--out", str(directory), *labels),
        ),
        stdout=-1,
        stderr=-2,
    )
    out, _ = enrol.communicate(timeout=30)
    assert enrol.returncode == 0, out.decode()
    workload.sidecar = mesh.processes.start(
        f"{workload.name}.envoy",
        [
            ENVOY,
            "-c",
            str(directory / "envoy.yaml"),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
            # Envoy lets connections finish under the listener that they were accepted with: here, at most one request.
            *("--drain-time-s", "1", "--drain-strategy", "immediate", "--file-flush-interval-msec", "50"),
        ],
        popen=workload.popen,
    )
    pod = workload.pod
    assert pod is not None

    def ready() -> bool:
        try:
            status, _ = namespace.run_in(
                pod.netns_path, lambda: http_get("http://127.0.0.1:15000/ready", timeout=1)
            )
            listeners = namespace.run_in(
                pod.netns_path, lambda: http_get("http://127.0.0.1:15000/listeners", timeout=1)
            )
        except OSError:
            return False
        return status == 200 and "virtualInbound" in listeners[1]

    workload.sidecar.wait_until(ready, "Envoy being ready", timeout=60)


@pytest.mark.parametrize("envoy", ["client", "web-v1"])
def test_an_envoy_calls_and_is_called(mesh: Mesh, envoy: str) -> None:
    for name in ("client", "web-v1", "web-v2", "intruder"):
        mesh.workload(name)
    mesh.start_control_plane()
    mesh.apply(manifests.SERVICES, "services.yaml")
    mesh.start_dns(manifests.zone({"web.shop.mesh.local": "10.96.0.10"}, {}))
    for name, workload in mesh.workloads.items():
        mesh.start_app(workload)
        if name == envoy:
            start_envoy(mesh, workload)
        else:
            mesh.start_sidecar(workload)
    client, intruder = mesh.workloads["client"], mesh.workloads["intruder"]
    mesh.apply(manifests.route(100, 0), "route.yaml")
    mesh.wait_programmed("httproute", "web", sidecars=4, timeout=30)
    mesh.wait_service()
    # The caller's identity crosses from one kind of proxy to the other.
    status, body = mesh.request(client, f"{WEB}way")
    assert status == 200
    assert client.spiffe_id in body
    assert '"served-by": "web-v1"' in body
    # The same route: all to the other version.
    mesh.apply(manifests.route(0, 100), "route.yaml")
    mesh.wait_programmed("httproute", "web", sidecars=4, timeout=30)
    assert '"served-by": "web-v2"' in mesh.request(client, WEB)[1]
    mesh.apply(manifests.route(100, 0), "route.yaml")
    # The same policy.
    mesh.apply(manifests.POLICY, "policy.yaml")
    mesh.wait_programmed("authorizationpolicy", "only-the-client", sidecars=2, timeout=30)
    mesh.wait_programmed("httproute", "web", sidecars=4, timeout=30)
    assert mesh.request(client, WEB)[0] == 200
    assert client.sidecar is not None
    client.sidecar.wait_until(lambda: mesh.request(client, WEB, method="POST")[0] == 403, "POST being denied")
    denied, text = mesh.request(intruder, WEB)
    assert (denied, text) == (403, "RBAC: access denied")
    web = mesh.workloads["web-v1"]
    assert web.sidecar is not None
    # Both kinds of proxy write their logs a moment later.
    web.sidecar.wait_until(
        lambda: {200, 403} <= {r.get("response_code") for r in web.log_records()}, "log lines of both answers"
    )
    assert any(r.get("downstream_peer_uri_san") == client.spiffe_id for r in web.log_records())
