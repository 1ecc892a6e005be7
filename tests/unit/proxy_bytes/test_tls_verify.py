"""Who a peer is: SVID rules, names, validity, and what is reported of it."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509

from proxy.model.matcher import StringMatcher
from proxy.model.tls import SanMatcher, ValidationContext
from proxy.tls.errors import PeerRefusedError, SecretError
from proxy.tls.verify import PeerVerifier
from tests.fakes import pki

WEB = "spiffe://mesh.local/ns/default/sa/web"
NOW = pki.NOW.timestamp()


def uri(kind: str, value: str, *, ignore_case: bool = False) -> SanMatcher:
    return SanMatcher("URI", StringMatcher(kind, value, ignore_case))  # type: ignore[arg-type]


ANY_WEB = (uri("exact", WEB),)


def verifier(matchers: tuple[SanMatcher, ...], *, required: bool = True, **rules: object) -> PeerVerifier:
    return PeerVerifier(
        ValidationContext(match_typed_subject_alt_names=matchers, **rules),  # type: ignore[arg-type]
        required=required,
    )


def test_a_workload_is_known_by_its_uri() -> None:
    leaf = pki.make(others=(x509.DNSName("web.example"),))
    peer, principal = verifier(ANY_WEB, required=True).check(leaf.der, NOW)
    assert peer is not None and principal == WEB
    assert (peer.uris, peer.dns, peer.subject) == ((WEB,), ("web.example",), "CN=leaf")
    assert peer.sha256 == hashlib.sha256(leaf.der).hexdigest()
    assert peer.serial == f"{leaf.certificate.serial_number:x}"
    assert peer.pem.strip() == leaf.pem.strip()


@pytest.mark.parametrize(
    ("matcher", "accepted"),
    [
        (uri("exact", WEB), True),
        (uri("exact", WEB.upper()), False),
        (uri("exact", WEB.upper(), ignore_case=True), True),
        (uri("prefix", "spiffe://mesh.local/ns/default/"), True),
        (uri("prefix", "spiffe://mesh.local/ns/other/"), False),
        (uri("suffix", "/sa/web"), True),
        (uri("contains", "/default/"), True),
        (uri("safe_regex", "spiffe://mesh.local/ns/[a-z]+/sa/web"), True),
        (uri("safe_regex", "spiffe://mesh.local/ns/[a-z]+"), False),
        (SanMatcher("DNS", StringMatcher("exact", "web.example")), True),
        (SanMatcher("DNS", StringMatcher("exact", WEB)), False),
    ],
)
def test_names(matcher: SanMatcher, accepted: bool) -> None:
    leaf = pki.make(others=(x509.DNSName("web.example"),))
    judge = verifier((uri("exact", "spiffe://other/x"), matcher), required=True)
    if accepted:
        assert judge.check(leaf.der, NOW)[1] == WEB
    else:
        with pytest.raises(PeerRefusedError) as caught:
            judge.check(leaf.der, NOW)
        assert caught.value.kind == "san"


@pytest.mark.parametrize(
    "options",
    [
        {"uris": (WEB, WEB + "2")},
        {"uris": ("spiffe://mesh.local",)},
        {"uris": ("spiffe://Mesh.local/a",)},
        {"ca": True},
        {"usage": None},
        {"usage": frozenset({"digital_signature", "crl_sign"})},
        {"ekus": (pki.ExtendedKeyUsageOID.SERVER_AUTH,)},
    ],
)
def test_what_claims_a_spiffe_id_must_be_an_svid(options: dict[str, object]) -> None:
    leaf = pki.make(**options)  # type: ignore[arg-type]
    for matchers in (ANY_WEB, ()):
        with pytest.raises(PeerRefusedError) as caught:
            verifier(matchers, required=True).check(leaf.der, NOW)
        assert caught.value.kind == "error"


def test_a_dns_name_that_reads_like_an_id_is_none() -> None:
    leaf = pki.make(uris=(), others=(x509.DNSName("spiffe.mesh.local"), x509.DNSName("web.example")))
    with pytest.raises(PeerRefusedError):
        verifier(ANY_WEB, required=True).check(leaf.der, NOW)
    peer, principal = verifier((), required=True).check(leaf.der, NOW)
    assert principal is None and peer is not None and peer.uris == ()


def test_validity_is_looked_at_again() -> None:
    leaf = pki.make()
    judge = verifier(ANY_WEB, required=True)
    judge.check(leaf.der, NOW)
    for moment in (NOW - 7200, NOW + 24 * 3600):
        with pytest.raises(PeerRefusedError):
            judge.check(leaf.der, moment)


def test_no_certificate_and_no_certificate_at_all() -> None:
    assert verifier((), required=False).check(None, NOW) == (None, None)
    with pytest.raises(PeerRefusedError) as caught:
        verifier((), required=True).check(None, NOW)
    assert caught.value.kind == "no_cert"
    with pytest.raises(PeerRefusedError):
        verifier((), required=True).check(b"junk", NOW)


def test_matchers_that_mean_nothing_are_refused() -> None:
    for matcher in (uri("safe_regex", "("), uri("safe_regex", "(?=a)b"), uri("prefix", "")):
        with pytest.raises(SecretError, match="match_typed_subject_alt_names"):
            verifier((matcher,), required=True)
