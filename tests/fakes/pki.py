"""Certificates of every sort, the wrong ones too, made with ``cryptography`` and without the code under test."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)
BOTH_EKUS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
LEAF_USAGE = frozenset({"digital_signature"})
CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Pair:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def name(common_name: str | None) -> x509.Name:
    return x509.Name([] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def make(
    *,
    signer: Pair | None = None,
    uris: Sequence[str] = ("spiffe://mesh.local/ns/default/sa/web",),
    others: Sequence[x509.GeneralName] = (),
    san_critical: bool = False,
    ca: bool | None = False,
    path_length: int | None = None,
    usage: frozenset[str] | None = LEAF_USAGE,
    usage_critical: bool = True,
    ekus: Sequence[x509.ObjectIdentifier] | None = BOTH_EKUS,
    subject: str | None = "leaf",
    not_before: datetime.datetime = NOW - datetime.timedelta(hours=1),
    not_after: datetime.datetime = NOW + datetime.timedelta(hours=23),
    key: ec.EllipticCurvePrivateKey | None = None,
    public_key: CertificatePublicKeyTypes | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Pair:
    """One certificate, self-signed without ``signer``; ``None`` leaves an extension out."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    public_key = public_key or key.public_key()
    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(name(subject))
        .issuer_name(name(subject) if signer is None else signer.certificate.subject)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .public_key(public_key)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    signer_key = key if signer is None else signer.key
    if signer is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    sans: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    sans += others
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=san_critical)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if usage is not None:
        flags = {flag: flag in usage for flag in _USAGES}
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=usage_critical)
    if ekus is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(ekus), critical=False)
    for value, critical in extra:
        builder = builder.add_extension(value, critical=critical)
    return Pair(key, builder.sign(signer_key, hashes.SHA256()))


def make_ca(
    trust_domain: str = "mesh.local",
    *,
    signer: Pair | None = None,
    subject: str = "root",
    uris: Sequence[str] | None = None,
    **overrides: object,
) -> Pair:
    settings: dict[str, object] = {
        "ca": True,
        "usage": CA_USAGE,
        "ekus": None,
        "uris": (f"spiffe://{trust_domain}",) if uris is None else uris,
        "not_before": NOW - datetime.timedelta(days=1),
        "not_after": NOW + datetime.timedelta(days=365),
    }
    return make(signer=signer, subject=subject, **{**settings, **overrides})  # type: ignore[arg-type]
