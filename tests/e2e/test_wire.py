"""What someone sees who listens on the bridge."""

from __future__ import annotations

import json
import subprocess

import pytest

from control_plane.cli.demo.processes import first_line
from control_plane.cli.demo.worlds import APP_PORT, module
from tests.e2e.conftest import WEB, Mesh

pytestmark = pytest.mark.netns


def test_the_bridge_carries_no_plaintext(mesh: Mesh) -> None:
    mesh.start("client", "web-v1")
    mesh.wait_service()
    tap = mesh.processes.start(
        "wiretap",
        module("wiretap", "--interface", mesh.bridge, "--port", str(APP_PORT), "--needle", "open-sesame"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    first_line(tap.popen.stdout, tap)
    status, body = mesh.request(mesh.workloads["client"], f"{WEB}?secret=open-sesame")
    assert status == 200
    assert "open-sesame" in body  # the app has seen it
    seen = json.loads(tap.popen.communicate(timeout=20)[0])
    assert seen["tls_records"]["application_data"] > 0
    assert seen["needles"] == 0
    assert seen["plaintext_http"] == 0


def test_the_tap_would_see_plaintext(mesh: Mesh) -> None:
    """The control of the test above: between pods without sidecars the same tap sees everything."""
    mesh.add_bare("a")
    mesh.add_bare("b")
    for name in ("a", "b"):
        mesh.start_app(mesh.workloads[name])
    tap = mesh.processes.start(
        "wiretap",
        module("wiretap", "--interface", mesh.bridge, "--port", str(APP_PORT), "--needle", "open-sesame"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    first_line(tap.popen.stdout, tap)
    url = f"http://{mesh.workloads['b'].ip}:{APP_PORT}/?secret=open-sesame"
    assert mesh.request(mesh.workloads["a"], url)[0] == 200
    seen = json.loads(tap.popen.communicate(timeout=20)[0])
    assert seen["needles"] > 0
    assert seen["plaintext_http"] > 0
