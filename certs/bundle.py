"""Trust bundles: the root certificates of one trust domain, as PEM and DER, and the pin of a root.

It must not decide whether a chain is valid (:mod:`certs.chain`, the TLS library) and imports no
``cryptography``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from certs.svid import SvidError, check_signer

MAX_CERTIFICATES = 100
"""More certificates than this in one PEM text is an error: nobody's bundle or chain is that long."""

CERTIFICATE = "CERTIFICATE"


class BundleError(ValueError):
    """A PEM text does not hold what was expected; the message says which certificate is wrong."""


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Root certificates (DER), in order, without repetition.

    Never empty when made by :meth:`of` or :meth:`parse`.
    """

    roots: tuple[bytes, ...]

    @classmethod
    def of(cls, roots: Iterable[bytes], trust_domain: str | None = None) -> TrustBundle:
        """Check that each root may sign and, if it carries an ID, that it is of ``trust_domain``.

        Raises :class:`BundleError`.
        """
        kept = tuple(dict.fromkeys(roots))
        if not kept:
            raise BundleError("trust bundle: no certificate in it")
        for number, der in enumerate(kept, 1):
            try:
                check_signer(der, trust_domain)
            except SvidError as error:
                raise BundleError(f"trust bundle: certificate {number}: {error}") from error
        return cls(kept)

    @classmethod
    def parse(cls, pem: str, trust_domain: str | None = None) -> TrustBundle:
        """Read roots from PEM. Raises :class:`BundleError`."""
        return cls.of(split_pem(pem), trust_domain)

    def to_pem(self) -> str:
        return join_pem(self.roots)

    def find(self, sha256: str) -> bytes | None:
        """The root whose :func:`pin` is ``sha256`` (hex, any case), or ``None``."""
        wanted = sha256.lower()
        return next((der for der in self.roots if pin(der) == wanted), None)


def pin(der: bytes) -> str:
    """SHA-256 of a certificate's DER, in lower-case hex."""
    return hashlib.sha256(der).hexdigest()


def split_pem(pem: str, label: str = CERTIFICATE) -> tuple[bytes, ...]:
    """The blocks of a PEM text that carry ``label``, as DER, in order; others are passed over.

    Raises :class:`BundleError`.
    """
    begin, end = f"-----BEGIN {label}-----", f"-----END {label}-----"
    found = []
    for number, part in enumerate(pem.split(begin)[1:], 1):
        if number > MAX_CERTIFICATES:
            raise BundleError(f"PEM: more than {MAX_CERTIFICATES} certificates")
        content, closed, _ = part.partition(end)
        if not closed:
            raise BundleError(f"PEM: certificate {number} has no end line")
        try:
            found.append(base64.b64decode("".join(content.split()), validate=True))
        except ValueError as error:
            raise BundleError(f"PEM: certificate {number}: {error}") from error
    return tuple(found)


def join_pem(ders: Iterable[bytes], label: str = CERTIFICATE) -> str:
    """Certificates (DER) as PEM, in order (RFC 7468)."""
    out = []
    for der in ders:
        text = base64.b64encode(der).decode("ascii")
        lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        out.append(f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
    return "".join(out)
