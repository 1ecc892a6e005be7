"""``tulle control-plane`` and the command line as real processes, over TLS."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TULLE = [sys.executable, "-m", "control_plane.cli.main"]
GOOD = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: web, port: 80}]
"""
BAD = """\
# One right, three wrong in several ways.
apiVersion: v1
kind: Service
metadata: {name: fine}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - matches:
    - path:
        type: PathPrefix
        value: nope
    backendRefs:
    - name: web
      port: 99999
    bogus: 1
---
apiVersion: v1
kind: Servce
metadata: {name: x}
---
apiVersion: v1
kind: Service
metadata: {name: twice, name: thrice}
"""


class Plane:
    """One control plane in a data directory, as a process."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self.log: list[str] = []

    def start(self) -> None:
        """Returns once it says that all ports are open."""
        arguments = ["--data-dir", str(self.directory), "--api-address", "127.0.0.1:0"]
        arguments += ["--monitoring", "127.0.0.1:0", "--xds-address", "127.0.0.1:0", *self.options]
        process = subprocess.Popen(
            [*TULLE, "control-plane", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        self.process = process
        for line in process.stdout:
            self.log.append(line)
            if line.startswith("administrator"):
                break
        else:
            pytest.fail("the control plane did not start:\n" + "".join(self.log))
        threading.Thread(target=self.log.extend, args=(process.stdout,), daemon=True).start()

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=20)

    @property
    def run(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "run.json").read_text())
        return found

    def tulle(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run a command as the administrator; its standard output, or its error output if it shall fail."""
        environment = os.environ | {"TULLE_CONFIG": str(self.directory / "admin.conf")}
        done = subprocess.run(
            [*TULLE, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    def get(self, path: str, context: ssl.SSLContext, **headers: str) -> tuple[int, dict[str, Any]]:
        host, _, port = self.run["api"].rpartition(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else {}
        finally:
            connection.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One control plane for the tests that leave no trace."""
    plane = Plane(tmp_path_factory.mktemp("plane") / "data")
    plane.start()
    yield plane
    plane.end(signal.SIGTERM)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    plane = Plane(tmp_path / "data")
    plane.start()
    yield plane
    if plane.process is not None and plane.process.poll() is None:
        plane.end(signal.SIGKILL)


def stored(plane: Plane) -> list[dict[str, Any]]:
    """All Services as they are stored, without the status, which is of the moment."""
    items = json.loads(plane.tulle("get", "services", "-A", "-o", "json"))["items"]
    return [{name: value for name, value in item.items() if name != "status"} for item in items]


def trusting(plane: Plane) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(plane.directory / "ca" / "root.crt"))


def test_applying_getting_and_deleting(plane: Plane, tmp_path: Path) -> None:
    assert plane.tulle("apply", "-f", "-", stdin=GOOD) == (
        "Service default/web created\nHTTPRoute default/web created\nrevision 1\n"
    )
    assert plane.tulle("apply", "-f", "-", stdin=GOOD).count("unchanged") == 2
    table = plane.tulle("get", "svc").splitlines()
    assert table[0].split() == ["NAME", "CLUSTER-IP", "PORTS", "PROGRAMMED", "AGE"]
    assert table[1].split()[0] == "web"
    whole = json.loads(plane.tulle("get", "HTTPRoute", "web", "-o", "json"))
    assert whole["metadata"]["resourceVersion"] == "1"

    # What get prints can be applied again and changes nothing.
    for output in ("yaml", "json"):
        again = plane.tulle("apply", "-f", "-", stdin=plane.tulle("get", "services", "-A", "-o", output))
        assert again == "Service default/web unchanged\nrevision 1\n"

    assert plane.tulle("delete", "httproute", "web", "--dry-run").endswith("deleted (dry run)\n")
    (tmp_path / "all.yaml").write_text(GOOD)
    assert plane.tulle("delete", "-f", str(tmp_path)).count("deleted") == 2
    history = plane.tulle("history").splitlines()
    assert [line.split()[0] for line in history] == ["REVISION", "2", "1"]
    assert "-kind: Service" in plane.tulle("history", "2")


def test_wrong_manifests_are_told_with_every_line_and_nothing_is_stored(
    shared: Plane, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    before = shared.tulle("history")
    lines = shared.tulle("apply", "-f", str(file), code=1).splitlines()
    where = [re.sub(r"(: [^:]*)$", "", line) for line in lines]
    assert where[:4] == [
        f"{file}:18: HTTPRoute default/web: spec.rules[0].matches[0].path.value",
        f"{file}:21: HTTPRoute default/web: spec.rules[0].backendRefs[0].port",
        f"{file}:22: HTTPRoute default/web: spec.rules[0].bogus",
        f"{file}:25: Servce default/x: kind",
    ]
    assert lines[4].startswith(f"{file}:30: metadata.name: key 'name' is here twice")
    assert lines[5:] == ["5 problems: nothing was applied"]
    assert shared.tulle("history") == before


def test_a_watch_shows_changes_as_they_come_and_survives_a_restart(plane: Plane) -> None:
    # The next life must be found at the same address.
    port = plane.run["api"].rpartition(":")[2]
    environment = os.environ | {"TULLE_CONFIG": str(plane.directory / "admin.conf"), "PYTHONUNBUFFERED": "1"}
    watching = subprocess.Popen(
        [*TULLE, "get", "services", "-w", "-o", "name"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert watching.stdout is not None
    try:
        one, two = GOOD.split("---\n")[0], GOOD.split("---\n")[0].replace("web", "api")
        plane.tulle("apply", "-f", "-", stdin=one)
        assert watching.stdout.readline() == "services/web\n"
        plane.end(signal.SIGTERM)
        plane.options = ("--api-address", f"127.0.0.1:{port}")
        plane.start()
        plane.tulle("apply", "-f", "-", stdin=two)
        assert watching.stdout.readline() == "services/api\n"
    finally:
        watching.send_signal(signal.SIGINT)
        watching.wait(timeout=10)
        watching.stdout.close()


def test_an_applied_object_survives_kill_9(plane: Plane) -> None:
    plane.tulle("apply", "-f", "-", stdin=GOOD)
    before = stored(plane)
    assert plane.end(signal.SIGKILL) == -signal.SIGKILL
    plane.start()
    assert stored(plane) == before


def test_sigterm_ends_it_cleanly_and_the_next_start_keeps_everything(plane: Plane) -> None:
    root = (plane.directory / "ca" / "root.crt").read_bytes()
    admin = (plane.directory / "admin.pem").read_bytes()
    assert plane.run["pid"] == (plane.process.pid if plane.process else None)
    assert plane.end(signal.SIGTERM) == 0
    assert not (plane.directory / "run.json").exists()
    assert "Traceback" not in "".join(plane.log)
    plane.start()
    assert (plane.directory / "ca" / "root.crt").read_bytes() == root
    assert (plane.directory / "admin.pem").read_bytes() == admin
    assert plane.tulle("get", "services") == ""


def test_a_second_one_on_the_same_data_is_refused(shared: Plane) -> None:
    other = subprocess.run(
        [*TULLE, "control-plane", "--data-dir", str(shared.directory), "--api-address", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert other.returncode == 1
    assert "another control plane is running on this data directory" in other.stderr
    assert "Traceback" not in other.stderr


def test_a_taken_port_is_said(shared: Plane, tmp_path: Path) -> None:
    other = subprocess.run(
        [*TULLE, "control-plane", "--data-dir", str(tmp_path / "d"), "--api-address", shared.run["api"]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert other.returncode == 1
    assert "address already in use" in other.stderr
    assert "Traceback" not in other.stderr


def test_nobody_gets_in_without_a_credential(shared: Plane) -> None:
    context = trusting(shared)
    assert shared.get("/healthz", context)[0] == 200
    assert shared.get("/readyz", context)[0] == 200
    assert shared.get("/ca/v1/bundle", context)[0] == 200
    code, status = shared.get("/api/v1/services", context)
    assert (code, status["reason"]) == (401, "Unauthorized")
    assert shared.get("/api/v1/services", context, Authorization="Bearer tulle_guess")[0] == 401


def test_the_administrators_certificate_is_admin(shared: Plane) -> None:
    context = trusting(shared)
    context.load_cert_chain(shared.directory / "admin.pem")
    code, listed = shared.get("/api/v1/services", context)
    assert (code, listed["kind"]) == (200, "ServiceList")


def test_a_certificate_of_another_ca_does_not_even_connect(shared: Plane, tmp_path: Path) -> None:
    other = Plane(tmp_path / "other")
    other.start()
    try:
        context = trusting(shared)
        context.load_cert_chain(other.directory / "admin.pem")
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            shared.get("/api/v1/services", context)
    finally:
        other.end(signal.SIGKILL)


def test_a_workloads_certificate_is_good_for_the_ca_alone(shared: Plane, tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    token = shared.tulle(
        "token", "create", "--namespace", "shop", "--service-account", "cart", "--ttl", "5m"
    ).strip()
    assert re.fullmatch(r"tulle1\.shop-[0-9a-f]+\.[A-Za-z0-9_-]+\.[0-9a-f]{64}", token)
    host, _, port = shared.run["api"].rpartition(":")

    def enrol(context: ssl.SSLContext, **more: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
        body = {"csr": request.public_bytes(serialization.Encoding.PEM).decode(), **more}
        connection.request("POST", "/ca/v1/certificates", json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    code, issued = enrol(trusting(shared), token=token)
    assert (code, issued["spiffeId"]) == (201, "spiffe://mesh.local/ns/shop/sa/cart")
    code, status = enrol(trusting(shared), token=token)
    assert (code, status["status"]) == (401, "Failure")

    identity = tmp_path / "svid.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    identity.write_bytes(private + issued["certificates"].encode())
    context = trusting(shared)
    context.load_cert_chain(identity)
    code, status = shared.get("/api/v1/services", context)
    assert (code, status["reason"]) == (403, "Forbidden")
    assert enrol(context)[0] == 201

    listed = shared.tulle("token", "ls", "-n", "shop").splitlines()
    assert shared.tulle("token", "ls", "-A").splitlines() == listed
    namespace, name, account, used, _ = listed[1].split()
    assert (namespace, account, used) == ("shop", "cart", "1/1")
    assert shared.tulle("token", "revoke", name) == f"join token {name} revoked\n"


def test_access_tokens_work_while_it_runs(shared: Plane) -> None:
    data = ("--data-dir", str(shared.directory))
    token = shared.tulle("access-token", "create", "ci", "--role", "view", "-n", "shop", *data).strip()
    context = trusting(shared)
    bearer = {"Authorization": f"Bearer {token}"}
    assert shared.get("/api/v1/namespaces/shop/services", context, **bearer)[0] == 200
    assert shared.get("/api/v1/namespaces/other/services", context, **bearer)[0] == 403
    assert shared.tulle("access-token", "ls", *data).splitlines()[1].split() == [
        "ci",
        "view",
        "shop",
        "never",
    ]
    shared.tulle("access-token", "revoke", "ci", *data)
    assert shared.get("/api/v1/namespaces/shop/services", context, **bearer)[0] == 401


def test_secrets_are_the_owners_alone(shared: Plane) -> None:
    assert stat.S_IMODE(shared.directory.stat().st_mode) == 0o700
    private = [f for f in shared.directory.rglob("*") if f.is_file() and f.name != "root.crt"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in private} == {0o600}, private


def test_sidecars_without_a_certificate_of_the_mesh_are_not_served(shared: Plane) -> None:
    host, _, port = shared.run["xds"].rpartition(":")
    context = trusting(shared)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        pytest.raises((OSError, ssl.SSLError)),
        context.wrap_socket(raw) as tls,
    ):
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        if not tls.recv(1):
            raise ConnectionResetError


def test_metrics_are_prometheus_text(shared: Plane) -> None:
    host, _, port = shared.run["monitoring"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for name in (
        "tulle_store_revision",
        "tulle_api_watches",
        "tulle_ca_certificates_issued_total",
        "tulle_xds_pushes_total",
    ):
        assert re.search(rf"^{name} \d+$", text, re.MULTILINE), name


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_reads_the_administrators_configuration(shared: Plane) -> None:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", str(shared.directory / "admin.conf"), "get", "services", "-A"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
