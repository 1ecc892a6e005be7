"""Who gets in: the mesh's own certificates do, other CAs', none and plain text do not."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from control_plane.cli.demo.manifests import SERVICES
from control_plane.cli.demo.worlds import APP_PORT, module, run_fetch
from netns import namespace
from tests.e2e.conftest import WEB, Mesh

pytestmark = pytest.mark.netns


def bench_pki(directory: Path) -> None:
    """Another CA and a certificate of it with an identity that the mesh knows."""
    from bench import pki

    pki.write(directory)


def tls_request(mesh: Mesh, certificate: tuple[str, str] | None) -> bytes:
    """What a client in a pod without a sidecar gets from web's sidecar when it shows ``certificate``."""
    stranger = mesh.workloads["stranger"].pod
    assert stranger is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["tulle"])
    if certificate is not None:
        context.load_cert_chain(*certificate)
    address = (mesh.workloads["web-v1"].ip, APP_PORT)
    raw = namespace.run_in(stranger.netns_path, lambda: socket.create_connection(address, 5))
    with raw, context.wrap_socket(raw) as connection:
        connection.settimeout(5)
        connection.sendall(b"GET /stolen HTTP/1.1\r\nhost: web.shop\r\nconnection: close\r\n\r\n")
        return connection.recv(65536)


def test_only_certificates_of_the_mesh_are_let_in(mesh: Mesh, tmp_path: Path) -> None:
    mesh.add_bare("stranger")
    mesh.start("client", "web-v1")
    mesh.wait_service()
    bench_pki(tmp_path)
    foreign = (str(tmp_path / "client.crt"), str(tmp_path / "client.key"))
    for certificate in (foreign, None):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            answer = tls_request(mesh, certificate)
            if not answer:
                raise ConnectionError("closed without an answer")
    # The same connection with a certificate of the mesh is answered: it was the certificate that was refused.
    identity = str(mesh.workloads["client"].state_dir / "identity.pem")
    assert tls_request(mesh, (identity, identity)).startswith(b"HTTP/1.1 200")
    assert not [
        r
        for r in mesh.workloads["web-v1"].log_records()
        if r.get("path") == "/stolen" and not r.get("method")
    ]


def test_plaintext_is_refused_by_strict_and_allowed_by_permissive(mesh: Mesh) -> None:
    stranger = mesh.add_bare("stranger")
    mesh.start("client", "web-v1")
    mesh.wait_service()
    url = f"http://{mesh.workloads['web-v1'].ip}:{APP_PORT}/"
    child = stranger.popen(module("fetch", url), stdout=-1, stderr=-1, stdin=-3)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 1, out
    assert err.strip()
    mesh.apply(SERVICES.replace("mode: STRICT", "mode: PERMISSIVE"), "services.yaml")
    mesh.wait_programmed("peerauthentication", "default")
    status, _ = run_fetch(stranger.popen, module("fetch", url))
    assert status == 200
    assert mesh.request(mesh.workloads["client"], WEB)[0] == 200
    mesh.apply(SERVICES, "services.yaml")
    mesh.wait_programmed("peerauthentication", "default")
    child = stranger.popen(module("fetch", url), stdout=-1, stderr=-1, stdin=-3)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 1, out
