"""Signing: a template becomes a certificate, which is read again and compared before anyone gets it.

It must not decide who gets what; the template says all. Keys stay inside.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs import keys
from certs.keys import PublicKey
from certs.svid import SvidError, check_signer, read_leaf
from certs.template import CertificateTemplate

_NAME_OIDS = {"O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME}


class SigningError(Exception):
    """What was signed is not what was meant, or the signer may not sign it. Nothing was handed out."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA:

    its key and certificate. ``intermediates`` (DER) are sent after each leaf, leaf's signer first, root
    left out.
    """

    key: keys.PrivateKey
    certificate: x509.Certificate
    intermediates: tuple[bytes, ...] = ()

    def sign(self, template: CertificateTemplate, public_key: PublicKey) -> bytes:
        """Sign for ``public_key`` and return the certificate's DER.

        Raises :class:`SigningError`, :class:`keys.WeakKey`.
        """
        keys.check_strength(public_key)
        if template.not_after > self.certificate.not_valid_after_utc:
            raise SigningError("the certificate would outlive its signer")
        signed = _sign(template, public_key, self.key, self.certificate)
        _verify(signed, template, public_key, self.certificate)
        return signed.public_bytes(serialization.Encoding.DER)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def self_sign(template: CertificateTemplate, key: keys.PrivateKey) -> Authority:
    """A root: ``template`` signed with its own key. Raises :class:`SigningError`."""
    signed = _sign(template, key.public_key(), key, None)
    _verify(signed, template, key.public_key(), signed)
    return Authority(key, signed)


def load(key: keys.PrivateKey, der: bytes, intermediates: tuple[bytes, ...] = ()) -> Authority:
    """An authority from its stored parts. Raises :class:`SigningError` when they do not fit together."""
    try:
        check_signer(der)
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise SigningError(f"the CA certificate cannot be used: {error}") from error
    if keys.public_der(keys.check_strength(certificate.public_key())) != keys.public_der(key.public_key()):
        raise SigningError("the CA's key and certificate do not belong together")
    return Authority(key, certificate, intermediates)


def _name(attributes: tuple[tuple[str, str], ...]) -> x509.Name:
    return x509.Name([x509.NameAttribute(_NAME_OIDS[kind], value) for kind, value in attributes])


def _sign(
    template: CertificateTemplate,
    public_key: PublicKey,
    signer_key: keys.PrivateKey,
    signer: x509.Certificate | None,
) -> x509.Certificate:
    subject = _name(template.subject)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(template.spiffe_id))]
    names += [x509.DNSName(name) for name in template.dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in template.addresses]
    builder = (
        x509.CertificateBuilder()
        .serial_number(template.serial)
        .subject_name(subject)
        .issuer_name(subject if signer is None else signer.subject)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
        .public_key(public_key)
        .add_extension(x509.BasicConstraints(template.is_ca, template.path_length), critical=True)
        .add_extension(_key_usage(template.is_ca), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=not template.subject)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    if not template.is_ca:
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(both, critical=False)
    if signer is not None:
        identifier = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = builder.add_extension(authority, critical=False)
    return builder.sign(signer_key, hashes.SHA256())


def _key_usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _verify(
    signed: x509.Certificate, template: CertificateTemplate, public_key: PublicKey, signer: x509.Certificate
) -> None:
    """Read the signed bytes with the parser that peers will use, and compare with what was meant."""
    der = signed.public_bytes(serialization.Encoding.DER)
    try:
        signed.verify_directly_issued_by(signer)
        if template.is_ca:
            identity = check_signer(der, template.spiffe_id.trust_domain)
        else:
            leaf = read_leaf(der, template.spiffe_id.trust_domain)
            identity = leaf.spiffe_id
            if leaf.public_key != keys.public_der(public_key):
                raise SigningError("the signed certificate holds another key than the one asked for")
            if (leaf.not_before, leaf.not_after) != (
                int(template.not_before.timestamp()),
                int(template.not_after.timestamp()),
            ):
                raise SigningError("the signed certificate has another validity than its template")
    except (SvidError, InvalidSignature, ValueError, TypeError) as error:
        raise SigningError(f"the signed certificate breaks a rule: {error}") from error
    if identity != template.spiffe_id:
        raise SigningError(f"the signed certificate is of {identity}, not of {template.spiffe_id}")


def is_issued_by(signed: x509.Certificate, signer: x509.Certificate) -> bool:
    """Whether names and signature fit; says nothing of validity or extensions."""
    try:
        signed.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
