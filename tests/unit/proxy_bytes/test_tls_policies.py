"""Every setting of a TLS context, by what handshakes it allows and refuses: real ones, in memory."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import tempfile
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.bundle import split_pem
from certs.der import read_certificate
from proxy.model.matcher import StringMatcher
from proxy.model.tls import CommonTls, DataSource, DownstreamTls, SanMatcher, UpstreamTls, ValidationContext
from proxy.tls.context import Material, TlsContext, client_context, server_context
from proxy.tls.errors import SecretError
from tests.fakes import pki
from tests.fakes.handshake import HOUR, NOW, Shaken, ca, crl, leaf, shake

ROOT = ca()
ISSUER = ca("issuer", ROOT)
SERVER = leaf(ROOT, uris=("spiffe://mesh.local/ns/a/sa/server",), subject="server")
CLIENT = leaf(ROOT, uris=("spiffe://mesh.local/ns/a/sa/client",), subject="client")
TRUSTED = ROOT.pem.encode()
LIST = DataSource()


def server(
    *certificates: bytes,
    trusted: bytes | None = TRUSTED,
    common: CommonTls | None = None,
    lists: bytes | None = None,
    rules: dict[str, Any] | None = None,
    **options: Any,
) -> TlsContext:
    options.setdefault("require_client_certificate", trusted is not None)
    tls = DownstreamTls(common or CommonTls(), **options)
    validation = ValidationContext(crl=None if lists is None else LIST, **(rules or {}))
    return server_context(tls, Material(certificates or (SERVER,), trusted, lists, validation))


def client(
    certificate: bytes = CLIENT,
    trusted: bytes | None = TRUSTED,
    common: CommonTls | None = None,
    lists: bytes | None = None,
    rules: dict[str, Any] | None = None,
    **options: Any,
) -> TlsContext:
    validation = ValidationContext(crl=None if lists is None else LIST, **(rules or {}))
    tls = UpstreamTls(common or CommonTls(), **options)
    return client_context(tls, Material((certificate,), trusted, lists, validation))


def der(pem: bytes) -> bytes:
    return split_pem(pem.decode())[0]


def bare(pem: bytes, side: Any) -> ssl.SSLContext:
    """A context that does not look at its own certificate."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.load_verify_locations(cadata=ROOT.pem)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def sans(kind: Any, value: str, match: Any = "exact") -> dict[str, Any]:
    return {"match_typed_subject_alt_names": (SanMatcher(kind, StringMatcher(match, value)),)}


# Versions, suites, curves, renegotiation.


@pytest.mark.parametrize(
    ("limits", "peer", "agreed"),
    [
        (("TLSv1_2", "TLSv1_2"), ("TLSv1_2", "TLSv1_3"), "TLSv1.2"),
        (("TLSv1_3", "TLSv1_3"), ("TLSv1_2", "TLSv1_3"), "TLSv1.3"),
        (("TLSv1_2", "TLSv1_3"), ("TLSv1_2", "TLSv1_3"), "TLSv1.3"),
        (("TLSv1_3", "TLSv1_3"), ("TLSv1_2", "TLSv1_2"), ""),
    ],
)
def test_versions(limits: Any, peer: Any, agreed: str) -> None:
    found = shake(
        server(common=CommonTls(tls_minimum=limits[0], tls_maximum=limits[1])),
        client(common=CommonTls(tls_minimum=peer[0], tls_maximum=peer[1])),
    )
    assert (found.server.version() if found.agreed else "") == agreed


def test_cipher_suites_of_tls_1_2() -> None:
    def both(*suites: str) -> CommonTls:
        return CommonTls(tls_maximum="TLSv1_2", cipher_suites=suites)

    weak, strong = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
    assert shake(server(common=both()), client(common=both())).server.cipher()[0] == weak  # type: ignore[index]
    found = shake(server(common=both(strong, weak)), client(common=both(weak, strong)))
    assert found.server.cipher()[0] == strong  # type: ignore[index]
    found = shake(
        server(common=both(strong, weak), prefer_client_ciphers=True), client(common=both(weak, strong))
    )
    assert found.server.cipher()[0] == weak  # type: ignore[index]
    assert "NO_SHARED_CIPHER" in shake(server(common=both(strong)), client(common=both(weak))).server_refusal


def test_a_curve_is_the_only_one() -> None:
    only = CommonTls(ecdh_curve="P-384")
    assert shake(server(common=only), client(common=only)).agreed
    assert not shake(server(common=only), client(common=CommonTls(ecdh_curve="P-256"))).agreed


# Who must show what.


def test_client_certificates() -> None:
    nobody = client_context(UpstreamTls(CommonTls()), Material((), TRUSTED))
    assert "PEER_DID_NOT_RETURN" in shake(server(), nobody).server_refusal
    assert shake(server(require_client_certificate=False), nobody).agreed
    # One that is offered is looked at even where none is required.
    stranger = client(leaf(ca("elsewhere")))
    assert not shake(server(require_client_certificate=False), stranger).agreed
    assert not shake(server(), stranger).agreed
    assert shake(server(trusted=None), stranger).agreed


def test_wrong_purpose_both_ways() -> None:
    """CVE-2022-21657: a server's certificate is no client's, and the other way round."""
    no_id: dict[str, Any] = {"uris": ()}
    for_servers = leaf(ROOT, ekus=(ExtendedKeyUsageOID.SERVER_AUTH,), **no_id)
    for_clients = leaf(ROOT, ekus=(ExtendedKeyUsageOID.CLIENT_AUTH,), **no_id)
    assert shake(server(for_servers), client(for_clients)).agreed
    assert "unsuitable certificate purpose" in shake(server(for_clients), client()).client_refusal
    assert "unsuitable certificate purpose" in shake(server(), client(for_servers)).server_refusal


@pytest.mark.parametrize(
    ("names", "rules", "agreed"),
    [
        ((x509.DNSName("a.example"),), sans("DNS", "a.example"), True),
        ((x509.DNSName("A.Example"),), sans("DNS", "a.example"), True),
        ((x509.DNSName("*.example"),), sans("DNS", "a.example"), False),
        ((x509.DNSName("*.b.example"),), sans("DNS", "a.b.example"), True),
        ((x509.DNSName("*.b.example"),), sans("DNS", "a.a.b.example"), False),
        ((x509.DNSName("*.b.example"),), sans("DNS", "b.example"), False),
        ((x509.DNSName("*.b.example"),), sans("DNS", ".b.example", "suffix"), True),
        ((x509.DNSName("a.example"),), sans("DNS", "[a-c][.]example", "safe_regex"), True),
        ((x509.DNSName("a.example"),), sans("EMAIL", "a.example"), False),
        ((x509.RFC822Name("a@b.example"),), sans("EMAIL", "a@b.example"), True),
        ((x509.RFC822Name("a@b.example"),), sans("DNS", "a@b.example"), False),
        ((x509.IPAddress(ipaddress.ip_address("10.1.2.3")),), sans("IP_ADDRESS", "10.1.2.3"), True),
        ((x509.IPAddress(ipaddress.ip_address("10.1.2.3")),), sans("IP_ADDRESS", "10.1.2.4"), False),
        ((x509.IPAddress(ipaddress.ip_address("2001:db8::1")),), sans("IP_ADDRESS", "2001:db8::1"), True),
        ((x509.IPAddress(ipaddress.ip_address("10.1.2.3")),), sans("DNS", "10.1.2.3"), False),
    ],
)
def test_names_by_type(names: Any, rules: Any, agreed: bool) -> None:
    certificate = leaf(ROOT, uris=(), others=names)
    as_server = shake(server(certificate), client(rules=rules))
    as_client = shake(server(rules=rules), client(certificate))
    assert as_server.agreed is as_client.agreed is agreed
    if not agreed:
        assert as_server.client_refusal.startswith("san:") and as_client.server_refusal.startswith("san:")


def test_a_dns_name_is_no_spiffe_id() -> None:
    """CVE-2022-21656."""
    name = "spiffe://mesh.local/ns/a/sa/server"
    general: Any = x509.DNSName._init_without_validation(name)  # type: ignore[attr-defined]
    lying = leaf(ROOT, uris=(), others=(general,))
    for rules in (sans("URI", name), sans("URI", "spiffe://", "prefix")):
        assert not shake(server(lying), client(rules=rules)).agreed
        assert not shake(server(rules=rules), client(lying)).agreed


def test_a_nul_in_a_name_is_refused() -> None:
    """CVE-2025-66220: nobody reads only what stands before it."""
    name: Any = x509.DNSName._init_without_validation("good.example\0.evil.example")  # type: ignore[attr-defined]
    lying = leaf(ROOT, uris=(), others=(name,))
    for match, value in (("exact", "good.example"), ("prefix", "good.example"), ("suffix", ".evil.example")):
        rules = sans("DNS", value, match)
        assert not shake(bare(lying, ssl.PROTOCOL_TLS_SERVER), client(rules=rules)).agreed
        assert not shake(server(rules=rules), bare(lying, ssl.PROTOCOL_TLS_CLIENT)).agreed
    assert not shake(server(), bare(lying, ssl.PROTOCOL_TLS_CLIENT)).agreed
    # Nor can it be our own.
    with pytest.raises(SecretError, match="control character"):
        server(lying)


def test_pinned_certificates_and_keys() -> None:
    digest, other = hashlib.sha256(der(CLIENT)).digest(), hashlib.sha256(b"").digest()
    spki = hashlib.sha256(read_certificate(der(CLIENT)).public_key).digest()
    for rules, agreed in (
        ({"verify_certificate_hash": (other, digest)}, True),
        ({"verify_certificate_hash": (other,)}, False),
        ({"verify_certificate_spki": (spki,)}, True),
        ({"verify_certificate_spki": (digest,)}, False),
        ({"verify_certificate_hash": (other,), "verify_certificate_spki": (spki,)}, True),
    ):
        found = shake(server(rules=rules), client())
        assert found.agreed is agreed
        assert agreed or found.server_refusal.startswith("cert_hash:")
    # A client may trust a digest alone.
    digest = hashlib.sha256(der(SERVER)).digest()
    assert shake(server(), client(trusted=None, rules={"verify_certificate_hash": (digest,)})).agreed
    assert not shake(server(), client(trusted=None, rules={"verify_certificate_hash": (other,)})).agreed


def test_expired_certificates_and_those_that_may_be() -> None:
    old = leaf(ROOT, not_before=NOW - 2 * HOUR, not_after=NOW - HOUR)
    assert not shake(server(), client(old)).agreed
    assert not shake(server(old), client()).agreed
    allowed = {"allow_expired_certificate": True}
    assert shake(server(rules=allowed), client(old)).agreed
    assert shake(server(old), client(rules=allowed)).agreed


def test_chains_are_no_longer_than_allowed() -> None:
    """As in Envoy: the leaf does not count, the trust anchor does."""
    long = leaf(ISSUER, ISSUER)
    for depth, agreed in ((0, False), (1, False), (2, True), (None, True)):
        assert shake(server(rules={"max_verify_depth": depth}), client(long)).agreed is agreed
        assert shake(server(long), client(rules={"max_verify_depth": depth})).agreed is agreed
    assert shake(server(rules={"max_verify_depth": 1}), client()).agreed


# Revocation.


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize(
    ("lists", "options", "refusal"),
    [
        (crl(ROOT), {}, ""),
        (crl(ROOT, [CLIENT, SERVER]), {}, "revoked"),
        (crl(ROOT, last=NOW - 2 * HOUR, until=NOW - HOUR), {}, "CRL has expired"),
        (crl(ca("elsewhere")), {}, "unable to get certificate CRL"),
        # Without an expiry date for the wrong issuer: still nothing is known of this one.
        (crl(ISSUER), {}, "unable to get certificate CRL"),
    ],
)
def test_revocation_lists(side: str, lists: bytes, options: dict[str, Any], refusal: str) -> None:
    found = shake(server(lists=lists), client()) if side == "server" else shake(server(), client(lists=lists))
    said = found.server_refusal if side == "server" else found.client_refusal
    assert refusal in said and bool(said) == bool(refusal)


def test_lists_of_the_whole_chain_or_of_the_leaf_alone() -> None:
    long = leaf(ISSUER, ISSUER)
    both, leaf_only = crl(ROOT) + crl(ISSUER), crl(ISSUER)
    assert shake(server(lists=both), client(long)).agreed
    assert "unable to get certificate CRL" in shake(server(lists=leaf_only), client(long)).server_refusal
    rules = {"only_verify_leaf_cert_crl": True}
    assert shake(server(lists=leaf_only, rules=rules), client(long)).agreed
    revoked = crl(ROOT, [ISSUER.key_pem + ISSUER.pem.encode()]) + crl(ISSUER)
    assert "revoked" in shake(server(lists=revoked), client(long)).server_refusal
    assert shake(server(lists=revoked, rules=rules), client(long)).agreed


def test_settings_that_prove_nothing_are_refused() -> None:
    for build in (
        lambda: server(lists=b"junk"),
        lambda: server(lists=TRUSTED),
        lambda: server(trusted=None, lists=crl(ROOT)),
        lambda: server(lists=crl(ROOT), rules={"allow_expired_certificate": True}),
        lambda: server(trusted=None, rules=sans("DNS", "a")),
        lambda: server(trusted=None, require_client_certificate=True),
        lambda: client(trusted=None, rules=sans("DNS", "a")),
        lambda: client(trusted=None, rules={"max_verify_depth": 1}),
        lambda: client(trusted=None, auto_sni_san_validation=True),
    ):
        with pytest.raises(SecretError):
            build()


# Which certificate, for which name.


def named(name: str, *more: str, key: Any = None) -> bytes:
    names = tuple(x509.DNSName(one) for one in (name, *more))
    return leaf(ROOT, uris=(), others=names, subject=f"cn-{name}", key=key)


RSA: Any = rsa.generate_private_key(65537, 2048)
FIRST, SECOND = named("a.example"), named("b.example", "*.c.example")
SECOND_RSA = named("b.example", key=RSA)
NAMELESS = leaf(ROOT, uris=(), subject="d.example")


def shown(found: Shaken) -> bytes:
    assert found.agreed
    seen = found.client.getpeercert(True)
    assert seen is not None
    return seen


@pytest.mark.parametrize(
    ("sni", "full_scan", "expected"),
    [
        ("a.example", False, FIRST),
        ("B.Example", False, SECOND),
        ("x.c.example", False, SECOND),
        ("y.x.c.example", False, FIRST),
        ("c.example", False, FIRST),
        ("d.example", False, NAMELESS),
        ("elsewhere.example", False, FIRST),
        ("elsewhere.example", True, FIRST),
        (None, False, FIRST),
    ],
)
def test_certificates_by_server_name(sni: str | None, full_scan: bool, expected: bytes) -> None:
    context = server(FIRST, SECOND, NAMELESS, trusted=None, full_scan_certs_on_sni_mismatch=full_scan)
    assert shown(shake(context, client(), sni=sni)) == der(expected)


def test_certificates_by_key_type() -> None:
    context = server(FIRST, SECOND, SECOND_RSA, trusted=None)
    full = server(FIRST, SECOND_RSA, trusted=None, full_scan_certs_on_sni_mismatch=True)
    plain = CommonTls(tls_maximum="TLSv1_2")
    only_rsa = CommonTls(tls_maximum="TLSv1_2", cipher_suites=("ECDHE-RSA-AES128-GCM-SHA256",))
    assert shown(shake(context, client(common=plain), sni="b.example")) == der(SECOND)
    assert shown(shake(context, client(common=only_rsa), sni="b.example")) == der(SECOND_RSA)
    assert shown(shake(full, client(common=only_rsa), sni="nowhere.example")) == der(SECOND_RSA)
    # Envoy takes the first certificate for a name that none has, whatever the client can verify.
    assert not shake(context, client(common=only_rsa), sni="nowhere.example").agreed


def test_a_server_name_may_be_required() -> None:
    context = server(FIRST, SECOND, trusted=None, require_sni=True)
    assert shake(context, client(), sni="a.example").agreed
    for sni in (None, "nowhere.example"):
        assert not shake(context, client(), sni=sni).agreed


def test_rules_for_clients_hold_whichever_certificate_is_shown() -> None:
    context = server(FIRST, SECOND, lists=crl(ROOT, [CLIENT]))
    for sni in ("a.example", "b.example"):
        assert "revoked" in shake(context, client(), sni=sni).server_refusal
        assert shake(context, client(leaf(ROOT)), sni=sni).agreed
        assert not shake(context, client(leaf(ca("elsewhere"))), sni=sni).agreed


def test_the_server_name_that_was_sent_must_be_in_the_certificate() -> None:
    context = client(auto_sni_san_validation=True)
    assert shake(server(FIRST), context, sni="a.example", server_name="a.example").agreed
    refused = shake(server(FIRST), context, sni="b.example", server_name="b.example")
    assert refused.client_refusal.startswith("san:")


# Resumption.


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_sessions_are_resumed_or_not(version: Any) -> None:
    common = CommonTls(tls_minimum=version, tls_maximum=version)
    for options, resumed in (({}, True), ({"session_tickets": False}, version == "TLSv1_2")):
        ours, theirs = server(common=common, **options), client(common=common)
        first = shake(ours, theirs)
        assert first.agreed
        if first.session is None or not (first.session.has_ticket or version == "TLSv1_2"):
            assert not resumed
            continue
        again = shake(ours, theirs, session=first.session)
        assert again.agreed and again.server.session_reused is resumed


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_resumed_client_is_judged_again(version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2022-21654, the server's side: the leaf's end, the chain's end, the list's end."""
    now = datetime.datetime.now(datetime.UTC)
    common = CommonTls(tls_minimum=version, tls_maximum=version)
    issuer = ca("issuer", ROOT, not_after=now + HOUR / 4)
    for ours, theirs, seconds in (
        (server(common=common), client(leaf(ROOT, not_after=now + HOUR / 2), common=common), 1900),
        (server(common=common), client(leaf(issuer, issuer), common=common), 1000),
        (server(common=common, lists=crl(ROOT, until=now + HOUR / 4)), client(common=common), 1000),
        (server(common=common, session_timeout=600), client(common=common), 700),
    ):
        first = shake(ours, theirs)
        assert first.agreed
        assert shake(ours, theirs, session=first.session).server.session_reused
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda seconds=seconds: now.timestamp() + seconds)
            late = shake(ours, theirs, session=first.session)
            assert late.server.session_reused and late.server_refusal.startswith("error:")


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_resumed_server_is_judged_again(version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2022-21654, the client's side."""
    now = datetime.datetime.now(datetime.UTC)
    common = CommonTls(tls_minimum=version, tls_maximum=version)
    issuer = ca("issuer", ROOT, not_after=now + HOUR / 4)
    for ours, theirs, seconds in (
        (server(leaf(ROOT, not_after=now + HOUR / 2), common=common), client(common=common), 1900),
        (server(leaf(issuer, issuer), common=common), client(common=common), 1000),
        (server(common=common), client(common=common, lists=crl(ROOT, until=now + HOUR / 4)), 1000),
    ):
        first = shake(ours, theirs)
        assert shake(ours, theirs, session=first.session).client.session_reused
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda seconds=seconds: now.timestamp() + seconds)
            late = shake(ours, theirs, session=first.session)
            assert late.client.session_reused and late.client_refusal.startswith("error:")


def test_no_other_context_resumes_a_session() -> None:
    """Other rules, another bundle, another key: each means another context, and so other ticket keys."""
    ours, theirs = server(), client()
    first = shake(ours, theirs)
    again = shake(server(), theirs, session=first.session)
    assert again.agreed and not again.server.session_reused


def test_sessions_kept_by_a_client_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, kept in ((None, 3), (2, 2), (0, 0)):
        context = client(max_session_keys=limit)
        for key in ("a", "b", "c"):
            session = shake(server(), context).session
            assert session is not None
            context.remember(key, session)
        assert len(context.sessions) == kept
        assert (context.resumable("c") is not None) is bool(kept)
        monkeypatch.setattr("time.time", lambda: NOW.timestamp() + 90_000)
        assert context.resumable("c") is None
        monkeypatch.undo()


def test_the_key_types_of_certificates() -> None:
    assert read_certificate(der(SECOND_RSA)).is_rsa
    assert not read_certificate(der(SECOND)).is_rsa
    assert not read_certificate(pki.make(key=ec.generate_private_key(ec.SECP384R1())).der).is_rsa
    assert read_certificate(der(NAMELESS)).common_name() == "d.example"
