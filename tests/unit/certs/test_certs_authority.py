"""Templates, signing with re-verification, and chains."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certs import authority, chain, keys, svid, template
from certs.authority import Authority, SigningError
from certs.bundle import TrustBundle
from certs.chain import ChainError
from certs.spiffe import SpiffeId
from certs.template import TemplateError
from tests.fakes import pki
from tests.fakes.pki import NOW

WEB = SpiffeId.workload("mesh.local", "default", "web")
ROOT = authority.self_sign(template.root("mesh.local", serial=1, now=NOW), keys.generate())


def issuing_ca() -> Authority:
    key = keys.generate()
    wanted = template.issuing(
        "mesh.local", serial=2, now=NOW, signer_not_after=ROOT.certificate.not_valid_after_utc
    )
    der = ROOT.sign(wanted, key.public_key())
    return authority.load(key, der, (der,))


ISSUING = issuing_ca()


def web(**overrides: object) -> template.CertificateTemplate:
    settings: dict[str, object] = {
        "serial": 3,
        "now": NOW,
        "signer_not_after": ISSUING.certificate.not_valid_after_utc,
    }
    return template.svid(WEB, **{**settings, **overrides})  # type: ignore[arg-type]


def test_the_validity_begins_a_little_before_now() -> None:
    made = web(now=NOW + timedelta(microseconds=999_999))
    assert made.not_before == NOW - timedelta(minutes=2)
    assert made.not_after == NOW + timedelta(hours=24)


def test_a_short_validity_is_backdated_by_a_tenth_at_most() -> None:
    made = web(lifetime=timedelta(seconds=20))
    assert (made.not_before, made.not_after) == (NOW - timedelta(seconds=2), NOW + timedelta(seconds=20))


def test_a_leaf_never_outlives_its_signer() -> None:
    end = NOW + timedelta(hours=1)
    assert web(signer_not_after=end).not_after == end
    with pytest.raises(TemplateError, match="the signing CA expired"):
        web(signer_not_after=NOW)


@pytest.mark.parametrize(
    "lifetime", [timedelta(seconds=1), timedelta(days=4000), timedelta(0), -timedelta(days=1)]
)
def test_lifetimes_have_limits(lifetime: timedelta) -> None:
    with pytest.raises(TemplateError, match="outside"):
        web(lifetime=lifetime)


def test_a_leaf_needs_a_path_and_few_names() -> None:
    with pytest.raises(TemplateError, match="whole trust domain"):
        template.svid(SpiffeId("mesh.local", ""), serial=1, now=NOW, signer_not_after=NOW + timedelta(days=1))
    assert len(web(dns_names=("a",) * template.MAX_NAMES).dns_names) == template.MAX_NAMES
    with pytest.raises(TemplateError, match="more than 64"):
        web(dns_names=("a",) * template.MAX_NAMES, addresses=("::1",))


def test_a_bad_trust_domain_makes_no_root() -> None:
    with pytest.raises(ValueError, match="trust domain"):
        template.root("Mesh Local", serial=1, now=NOW)


def extension(
    certificate: x509.Certificate, kind: type[x509.ExtensionType]
) -> x509.Extension[x509.ExtensionType]:
    return certificate.extensions.get_extension_for_class(kind)


@pytest.mark.parametrize(("ca", "path_length"), [(ROOT, 1), (ISSUING, 0)])
def test_what_a_ca_certificate_holds(ca: Authority, path_length: int) -> None:
    certificate = ca.certificate
    basic = extension(certificate, x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, path_length)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature, "a signer never authenticates"
    assert svid.check_signer(ca.der, "mesh.local") == SpiffeId("mesh.local", "")
    with pytest.raises(svid.SvidError):
        svid.check_leaf(ca.der)


def test_what_a_leaf_holds() -> None:
    key = keys.generate()
    made = web(dns_names=("cp.example",), addresses=("10.0.0.1", "fd00::1"))
    certificate = x509.load_der_x509_certificate(ISSUING.sign(made, key.public_key()))
    names = extension(certificate, x509.SubjectAlternativeName)
    assert names.critical, "the subject is empty (RFC 5280 section 4.2.1.6)"
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]
    assert names.value.get_values_for_type(x509.DNSName) == ["cp.example"]
    assert names.value.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_address("fd00::1"),
    ]
    assert list(certificate.subject) == []
    assert certificate.serial_number == 3
    assert certificate.issuer == ISSUING.certificate.subject
    assert set(extension(certificate, x509.ExtendedKeyUsage).value) == set(pki.BOTH_EKUS)
    assert extension(certificate, x509.KeyUsage).critical
    assert len(certificate.extensions) == 6, "nothing that the template does not name"


def test_a_common_name_is_for_people() -> None:
    der = ISSUING.sign(web(common_name="admin"), keys.generate().public_key())
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.subject.rfc4514_string() == "CN=admin,O=Tulle"
    assert not extension(certificate, x509.SubjectAlternativeName).critical


def test_weak_keys_are_not_signed() -> None:
    with pytest.raises(keys.WeakKey):
        ISSUING.sign(web(), ec.generate_private_key(ec.SECP256K1()).public_key())


def test_a_template_that_outlives_the_signer_is_not_signed() -> None:
    made = dataclasses.replace(web(), not_after=NOW + timedelta(days=5000))
    with pytest.raises(SigningError, match="outlive"):
        ISSUING.sign(made, keys.generate().public_key())


@pytest.mark.parametrize(
    ("meant", "signed", "wrong"),
    [
        ({}, {"spiffe_id": SpiffeId.workload("mesh.local", "default", "other")}, "is of spiffe://.*/other"),
        ({}, {"spiffe_id": SpiffeId.workload("other.local", "default", "web")}, "not of trust domain"),
        ({}, {"is_ca": True}, "is a CA"),
        ({"is_ca": True, "spiffe_id": SpiffeId("mesh.local", "")}, {"is_ca": False}, "not a CA"),
        ({}, {"not_after": NOW + timedelta(hours=48)}, "another validity"),
    ],
)
def test_what_differs_from_its_template_is_not_handed_out(
    monkeypatch: pytest.MonkeyPatch, meant: dict[str, object], signed: dict[str, object], wrong: str
) -> None:
    """A fault in the signing step is caught by reading the result again."""
    honest = authority._sign
    monkeypatch.setattr(
        authority,
        "_sign",
        lambda made, *rest: honest(dataclasses.replace(made, **signed), *rest),
    )
    with pytest.raises(SigningError, match=wrong):
        ISSUING.sign(dataclasses.replace(web(), **meant), keys.generate().public_key())  # type: ignore[arg-type]


def test_a_certificate_for_another_key_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = authority._sign
    other = keys.generate().public_key()
    monkeypatch.setattr(authority, "_sign", lambda made, _key, *rest: honest(made, other, *rest))
    with pytest.raises(SigningError, match="another key"):
        ISSUING.sign(web(), keys.generate().public_key())


def test_key_and_certificate_must_belong_together() -> None:
    with pytest.raises(SigningError, match="do not belong together"):
        authority.load(keys.generate(), ROOT.der)
    with pytest.raises(SigningError, match="not a CA"):
        authority.load(keys.generate(), ISSUING.sign(web(), keys.generate().public_key()))


BUNDLE = TrustBundle.of([ROOT.der], "mesh.local")
LEAF = ISSUING.sign(web(), keys.generate().public_key())
AT = NOW.timestamp()


def test_a_whole_chain_is_verified() -> None:
    assert chain.verify([LEAF, ISSUING.der], BUNDLE, AT, "mesh.local").spiffe_id == WEB
    assert chain.verify([LEAF, ISSUING.der, ROOT.der], BUNDLE, AT).spiffe_id == WEB


def later(**delta: float) -> float:
    return (NOW + datetime.timedelta(**delta)).timestamp()


STRANGER = pki.make_ca(subject="stranger")


@pytest.mark.parametrize(
    ("certificates", "moment", "wrong"),
    [
        ([], AT, "a chain of 0"),
        ([LEAF] * 9, AT, "a chain of 9"),
        ([LEAF], AT, "does not lead to a root"),
        ([ISSUING.der], AT, "whole trust domain"),
        ([LEAF, ROOT.der], AT, "not signed by the one after it"),
        ([LEAF, STRANGER.der], AT, "not signed by the one after it"),
        ([pki.make(signer=STRANGER).der, STRANGER.der], AT, "does not lead to a root"),
        ([LEAF, LEAF], AT, "not a CA"),
        ([LEAF, ISSUING.der], later(hours=25), "certificate 1 of the chain expired"),
        ([LEAF, ISSUING.der], later(hours=-1), "check this host's clock"),
        ([b"\x30", ISSUING.der], AT, "cut short"),
    ],
)
def test_broken_chains_are_refused(certificates: list[bytes], moment: float, wrong: str) -> None:
    with pytest.raises(ChainError, match=wrong):
        chain.verify(certificates, BUNDLE, moment)


def test_a_chain_of_another_trust_domain_is_refused() -> None:
    with pytest.raises(ChainError, match="not of trust domain"):
        chain.verify([LEAF, ISSUING.der], BUNDLE, AT, "other.local")


def test_a_signer_of_another_trust_domain_is_refused() -> None:
    foreign = pki.make_ca("other.local", subject="foreign")
    with pytest.raises(ChainError, match="not of trust domain"):
        chain.verify([pki.make(signer=foreign).der, foreign.der], TrustBundle((foreign.der,)), AT)
