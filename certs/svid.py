"""Whether a certificate is an X.509-SVID, and whose. Every MUST of the X509-SVID standard has a reason code here.

It checks no signature and no time: the TLS library validated the path (RFC 5280) before this is asked, and
callers that keep a connection look at ``not_after`` again themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from certs import der as _der
from certs.spiffe import SpiffeId, SpiffeIdError

MALFORMED = "malformed"
NO_URI_SAN = "no-uri-san"
MANY_URI_SANS = "many-uri-sans"
BAD_SPIFFE_ID = "bad-spiffe-id"
ROOT_PATH = "root-path"
FOREIGN_TRUST_DOMAIN = "foreign-trust-domain"
IS_CA = "is-ca"
NO_KEY_USAGE = "no-key-usage"
KEY_USAGE_NOT_CRITICAL = "key-usage-not-critical"
NO_DIGITAL_SIGNATURE = "no-digital-signature"
SIGNING_KEY_USAGE = "signing-key-usage"
INCOMPLETE_EKU = "incomplete-eku"
NOT_A_CA = "not-a-ca"
NO_CERT_SIGN = "no-cert-sign"
SIGNER_WITH_PATH = "signer-with-path"


class SvidError(ValueError):
    """A certificate breaks a rule. ``reason`` is one of this module's codes; the message says it in words."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Svid:
    """A leaf that keeps the rules. Times are Unix seconds."""

    spiffe_id: SpiffeId
    serial_number: int
    not_before: int
    not_after: int
    dns_names: tuple[str, ...]
    subject: bytes
    public_key: bytes


def check_leaf(der: bytes, trust_domain: str | None = None) -> SpiffeId:
    """The identity that a leaf certificate proves. Raises :class:`SvidError`.

    ``trust_domain``: the only one accepted; ``None`` accepts any (say so only where the bundle decides).
    """
    return read_leaf(der, trust_domain).spiffe_id


def read_leaf(der: bytes, trust_domain: str | None = None) -> Svid:
    """As :func:`check_leaf`, with the leaf's other facts. Raises :class:`SvidError`."""
    fields = _read(der)
    found = _spiffe_id(fields)
    if found is None:
        raise SvidError(
            NO_URI_SAN, "the certificate has no URI in its subjectAltName; an SVID has exactly one"
        )
    if not found.path:
        raise SvidError(ROOT_PATH, f"{found} names a whole trust domain; a workload's ID has a path")
    if fields.is_ca:
        raise SvidError(IS_CA, f"the certificate of {found} is a CA (basicConstraints cA is true)")
    usage = fields.key_usage
    if usage is None:
        raise SvidError(NO_KEY_USAGE, f"the certificate of {found} has no keyUsage")
    if not fields.key_usage_critical:
        raise SvidError(KEY_USAGE_NOT_CRITICAL, f"keyUsage of {found} is not marked critical")
    if not usage & _der.DIGITAL_SIGNATURE:
        raise SvidError(NO_DIGITAL_SIGNATURE, f"keyUsage of {found} lacks digitalSignature")
    if usage & (_der.KEY_CERT_SIGN | _der.CRL_SIGN):
        raise SvidError(SIGNING_KEY_USAGE, f"keyUsage of {found} has keyCertSign or cRLSign")
    extended = fields.extended_key_usage
    if extended is not None and (_der.SERVER_AUTH not in extended or _der.CLIENT_AUTH not in extended):
        raise SvidError(INCOMPLETE_EKU, f"extKeyUsage of {found} must have both serverAuth and clientAuth")
    if trust_domain is not None and found.trust_domain != trust_domain:
        raise SvidError(FOREIGN_TRUST_DOMAIN, f"{found} is not of trust domain {trust_domain!r}")
    return Svid(
        found,
        fields.serial_number,
        fields.not_before,
        fields.not_after,
        fields.dns_names,
        fields.subject,
        fields.public_key,
    )


def check_signer(der: bytes, trust_domain: str | None = None) -> SpiffeId | None:
    """The trust domain's ID that a signing certificate carries, ``None`` when it carries none.

    Raises :class:`SvidError`.
    """
    fields = _read(der)
    if not fields.is_ca:
        raise SvidError(NOT_A_CA, "the certificate is not a CA (basicConstraints cA is not true)")
    if fields.key_usage is None or not fields.key_usage & _der.KEY_CERT_SIGN:
        raise SvidError(NO_CERT_SIGN, "keyUsage of the CA certificate lacks keyCertSign")
    found = _spiffe_id(fields)
    if found is None:
        return None
    if found.path:
        raise SvidError(SIGNER_WITH_PATH, f"the CA certificate carries {found}; a signer's ID has no path")
    if trust_domain is not None and found.trust_domain != trust_domain:
        raise SvidError(FOREIGN_TRUST_DOMAIN, f"{found} is not of trust domain {trust_domain!r}")
    return found


def _read(der: bytes) -> _der.CertificateFields:
    try:
        return _der.read_certificate(der)
    except _der.DerError as error:
        raise SvidError(MALFORMED, str(error)) from error


def _spiffe_id(fields: _der.CertificateFields) -> SpiffeId | None:
    uris = fields.uris
    if not uris:
        return None
    if len(uris) > 1:
        raise SvidError(
            MANY_URI_SANS,
            f"the certificate has {len(uris)} URIs in its subjectAltName; an SVID has exactly one",
        )
    try:
        return SpiffeId.parse(uris[0])
    except SpiffeIdError as error:
        raise SvidError(BAD_SPIFFE_ID, str(error)) from error
