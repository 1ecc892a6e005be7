"""The data plane without its control plane, and changes that must not get through."""

from __future__ import annotations

import json

import pytest

from control_plane.cli.demo import manifests
from control_plane.cli.demo.processes import DemoFailed
from tests.e2e.conftest import Mesh

pytestmark = pytest.mark.netns


def test_killed_and_restarted_under_traffic(mesh: Mesh) -> None:
    mesh.start("client", "web-v1", "web-v2")
    mesh.wait_service()
    mesh.apply(manifests.route(100, 0), "route.yaml")
    mesh.wait_programmed("httproute", "web")
    traffic = mesh.traffic("client")
    assert traffic.collect(50).share("web-v1") == 1.0
    assert mesh.control_plane is not None
    mesh.control_plane.kill()
    assert traffic.collect(100).failed + traffic.before.failed == 0
    mesh.start_control_plane()
    # The store kept what was acknowledged, and the sidecars come back to it.
    mesh.apply(manifests.route(0, 100), "route.yaml")
    mesh.wait_programmed("httproute", "web", sidecars=3, timeout=40)
    after = traffic.collect(100)
    assert after.failed + traffic.before.failed == 0
    assert after.share("web-v2") == 1.0
    traffic.stop()


def test_an_acknowledged_change_survives_kill_9_at_once(mesh: Mesh) -> None:
    mesh.start("client")
    mesh.apply(manifests.route(70, 30), "route.yaml")
    assert mesh.control_plane is not None
    mesh.control_plane.kill()
    mesh.start_control_plane()
    stored = json.loads(mesh.cli("get", "httproute", "web", "-n", "shop", "-o", "json"))
    assert [b["weight"] for b in stored["spec"]["rules"][0]["backendRefs"]] == [70, 30]


def test_a_sidecar_restarts_from_disk_while_the_control_plane_is_down(mesh: Mesh) -> None:
    mesh.start("client", "web-v1")
    mesh.wait_service()
    assert mesh.control_plane is not None
    mesh.control_plane.kill()
    for name in ("client", "web-v1"):
        workload = mesh.workloads[name]
        assert workload.sidecar is not None
        workload.sidecar.stop()
        mesh.start_sidecar(workload)
    mesh.wait_service()


def test_a_refused_apply_changes_nothing(mesh: Mesh) -> None:
    mesh.start("client", "web-v1", "web-v2")
    mesh.wait_service()
    mesh.apply(manifests.route(100, 0), "route.yaml")
    mesh.wait_programmed("httproute", "web")
    bad = (
        manifests.route(0, 100)
        + "---\n"
        + manifests.route(1, 1)
        .replace("weight: 1}", "weight: -1}")
        .replace("name: web, namespace", "name: other, namespace")
    )
    with pytest.raises(DemoFailed) as refused:
        mesh.apply(bad, "bad.yaml")
    message = str(refused.value)
    # Both wrong weights are named, each with its file and line.
    assert message.count("bad.yaml:") == 2
    assert "spec.rules[0].backendRefs[0].weight" in message
    assert "spec.rules[0].backendRefs[1].weight" in message
    traffic = mesh.traffic("client")
    assert traffic.collect(50).share("web-v1") == 1.0
    traffic.stop()
    assert "other" not in mesh.cli("get", "httproutes", "-n", "shop")
