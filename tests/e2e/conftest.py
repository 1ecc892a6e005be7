"""A small mesh in the test's own namespaces: a control plane, a client and a web service with sidecars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from control_plane.cli.demo import manifests
from control_plane.cli.demo.traffic import Traffic
from control_plane.cli.demo.worlds import PodWorld, Workload, module

WEB = "http://web.shop.mesh.local/"


class Mesh(PodWorld):
    """The demo's world with shorthands for tests."""

    def start(self, *names: str, options: Sequence[str] = ()) -> None:
        """Start the control plane with further ``options``, DNS, and a workload with app and sidecar for each of
        ``names``."""
        for name in names:
            self.workload(name)
        self.start_control_plane(*options)
        self.apply(manifests.SERVICES, "services.yaml")
        self.start_dns(
            manifests.zone({"web.shop.mesh.local": "10.96.0.10", "pay.legacy.test": "10.96.200.1"}, {})
        )
        for name in names:
            workload = self.workloads[name]
            self.start_app(workload)
            self.start_sidecar(workload)

    def workload(self, name: str) -> Workload:
        """``web-v1`` is version v1 of web; any other name is its own account."""
        if name.startswith("web-"):
            return self.add_workload(name, "web", {"app": "web", "version": name.removeprefix("web-")})
        return self.add_workload(name, name, {"app": name})

    def wait_service(self, source: str = "client", url: str = WEB) -> None:
        """Wait until a request from ``source`` succeeds: every part has its configuration."""
        client = self.workloads[source]
        assert client.sidecar is not None
        client.sidecar.wait_until(lambda: self.request(client, url)[0] == 200, f"a 200 from {url}")

    def traffic(self, source: str, url: str = WEB, rate: float = 100) -> Traffic:
        """Steady requests from ``source``, stopped with the mesh."""
        workload = self.workloads[source]
        process = self.processes.start(
            f"load-{len(self.processes.running)}",
            module("load", "--url", url, "--rate", str(rate)),
            popen=workload.popen,
            stdout=-1,
        )
        return Traffic(process)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """A mesh that has not started anything yet; on failure its logs are in the report."""
    made = Mesh(tmp_path / "mesh")
    try:
        yield made
    finally:
        made.close()
        for log in sorted((tmp_path / "mesh" / "logs").iterdir()):
            text = log.read_text(errors="replace")
            print(f"--- {log.name}\n{text[-4000:]}")
