"""Whether a chain of certificates leads from a leaf to a root of a bundle, outside of a TLS handshake.

For the moment when a certificate is received from the CA. Peers' chains are validated by the TLS library.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from cryptography import x509

from certs.authority import is_issued_by
from certs.bundle import TrustBundle
from certs.svid import Svid, SvidError, check_signer, read_leaf

MAX_LENGTH = 8


class ChainError(ValueError):
    """The chain does not lead from a valid leaf to a root of the bundle."""


def verify(chain: Sequence[bytes], bundle: TrustBundle, now: float, trust_domain: str | None = None) -> Svid:
    """Check leaf, signers, signatures and validity at ``now`` (Unix seconds). Raises :class:`ChainError`.

    ``chain`` is DER, leaf first, each signed by the next; the last is signed by (or is) a root of ``bundle``.
    """
    if not 1 <= len(chain) <= MAX_LENGTH:
        raise ChainError(f"a chain of {len(chain)} certificates; expected 1 to {MAX_LENGTH}")
    try:
        leaf = read_leaf(chain[0], trust_domain)
        for der in (*chain[1:], *bundle.roots):
            check_signer(der, leaf.spiffe_id.trust_domain)
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        roots = [x509.load_der_x509_certificate(der) for der in bundle.roots]
    except (SvidError, ValueError) as error:
        raise ChainError(str(error)) from error
    moment = datetime.fromtimestamp(now, UTC)
    for number, certificate in enumerate(certificates):
        _check_validity(certificate, moment, f"certificate {number + 1} of the chain")
    for number, (signed, signer) in enumerate(pairwise(certificates)):
        if not is_issued_by(signed, signer):
            raise ChainError(f"certificate {number + 1} of the chain is not signed by the one after it")
    last = certificates[-1]
    for root in roots:
        if last == root or is_issued_by(last, root):
            _check_validity(root, moment, "the root certificate")
            return leaf
    raise ChainError("the chain does not lead to a root of the trust bundle")


def _check_validity(certificate: x509.Certificate, moment: datetime, what: str) -> None:
    if moment < certificate.not_valid_before_utc:
        raise ChainError(
            f"{what} is not valid before {certificate.not_valid_before_utc.isoformat()}; "
            "check this host's clock"
        )
    if moment > certificate.not_valid_after_utc:
        raise ChainError(f"{what} expired at {certificate.not_valid_after_utc.isoformat()}")
