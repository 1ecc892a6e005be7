"""HTTP/1.1 between apps that goes over HTTP/2 between their sidecars."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import WEB, Mesh

pytestmark = [pytest.mark.netns(timeout=120)]


@pytest.mark.parametrize(("policy", "between"), [("UPGRADE", "HTTP/2"), ("DO_NOT_UPGRADE", "HTTP/1.1")])
def test_apps_hear_http_1_whatever_is_spoken_between_sidecars(mesh: Mesh, policy: str, between: str) -> None:
    mesh.start("client", "web-v1", options=("--h2-upgrade-policy", policy))
    mesh.wait_service()
    client, web = mesh.workloads["client"], mesh.workloads["web-v1"]
    assert web.sidecar is not None
    assert mesh.request(client, WEB)[0] == 200
    web.sidecar.wait_until(lambda: len(web.log_records()) > 1, "the log lines")
    assert {record["protocol"] for record in client.log_records()} == {"HTTP/1.1"}
    assert {record["protocol"] for record in web.log_records() if record["response_code"] == 200} == {between}
