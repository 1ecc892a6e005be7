"""Certificate signing requests (PKCS #10, RFC 2986): building ours, and reading others' with suspicion.

Reading proves that the sender holds the key, and lists what else was asked for. Whether that may be had is
not decided here: a request never says who its sender is.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from certs import keys
from certs.keys import PublicKey
from certs.spiffe import SpiffeId

MAX_PEM_BYTES = 16 * 1024

MALFORMED = "malformed-csr"
WEAK_KEY = "weak-key"
WEAK_SIGNATURE = "weak-signature"
BAD_SIGNATURE = "bad-signature"

_GOOD_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class CsrError(ValueError):
    """A request is refused. ``reason`` is one of this module's codes."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose sender holds the key. ``names`` are its subjectAltNames as ``(kind, value)``, kind being
    ``URI``, ``DNS``, ``IP`` or another general name's type; ``wants_ca``: asks to be a CA or to sign
    certificates.
    """

    public_key: PublicKey
    names: tuple[tuple[str, str], ...]
    wants_ca: bool


def build(key: keys.PrivateKey, spiffe_id: SpiffeId | None = None) -> bytes:
    """A request (PEM) with an empty subject and, if given, the ID as its only subjectAltName."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if spiffe_id is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read(pem: str) -> CertificateRequest:
    """Read and verify a request. Raises :class:`CsrError`."""
    if len(pem) > MAX_PEM_BYTES:
        raise CsrError(MALFORMED, f"the CSR is longer than {MAX_PEM_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        offered = request.public_key()
    except UnsupportedAlgorithm as error:
        raise CsrError(WEAK_KEY, f"the CSR's key is of a kind that is not supported: {error}") from error
    except ValueError as error:
        raise CsrError(MALFORMED, "the CSR is not a PEM 'CERTIFICATE REQUEST' (PKCS #10)") from error
    try:
        public_key = keys.check_strength(offered)
    except keys.WeakKey as error:
        raise CsrError(WEAK_KEY, f"the CSR's key: {error}") from error
    _check_signature(request)
    try:
        names, wants_ca = _extensions(request.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CsrError(MALFORMED, f"the CSR's extensions cannot be read: {error}") from error
    return CertificateRequest(public_key, names, wants_ca)


def _check_signature(request: x509.CertificateSigningRequest) -> None:
    try:
        algorithm = request.signature_hash_algorithm
        if algorithm is not None and not isinstance(algorithm, _GOOD_HASHES):
            raise CsrError(WEAK_SIGNATURE, f"the CSR is signed with {algorithm.name}; use SHA-256 or better")
        valid = request.is_signature_valid
    except (UnsupportedAlgorithm, InvalidSignature) as error:
        raise CsrError(WEAK_SIGNATURE, f"the CSR's signature algorithm is not supported: {error}") from error
    if not valid:
        raise CsrError(
            BAD_SIGNATURE, "the CSR's signature does not fit its key: the sender does not hold the key"
        )


def _extensions(extensions: x509.Extensions) -> tuple[tuple[tuple[str, str], ...], bool]:
    names: list[tuple[str, str]] = []
    wants_ca = False
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names.extend(_name(name) for name in value)
        elif isinstance(value, x509.BasicConstraints):
            wants_ca = wants_ca or value.ca
        elif isinstance(value, x509.KeyUsage):
            wants_ca = wants_ca or value.key_cert_sign or value.crl_sign
    return tuple(names), wants_ca


def _name(name: x509.GeneralName) -> tuple[str, str]:
    if isinstance(name, x509.UniformResourceIdentifier):
        return "URI", name.value
    if isinstance(name, x509.DNSName):
        return "DNS", name.value
    if isinstance(name, x509.IPAddress):
        return "IP", str(name.value)
    return type(name).__name__, str(name.value)
