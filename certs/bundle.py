"""Trust bundles: the root certificates of one trust domain, as PEM and DER, and the pin of a root.

It must not decide whether a chain is valid (:mod:`certs.chain`, the TLS library) and imports no
``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from certs.svid import SvidError, check_signer

MAX_CERTIFICATES = 100
"""More certificates than this in one PEM text is an error: nobody's bundle or chain is that long."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")


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


def split_pem(pem: str) -> tuple[bytes, ...]:
    """The certificates of a PEM text as DER, in order; other blocks are passed over.

    Raises :class:`BundleError`.
    """
    found = []
    for number, match in enumerate(_CERTIFICATE.finditer(pem), 1):
        if number > MAX_CERTIFICATES:
            raise BundleError(f"PEM: more than {MAX_CERTIFICATES} certificates")
        try:
            found.append(base64.b64decode("".join(match[1].split()), validate=True))
        except binascii.Error as error:
            raise BundleError(f"PEM: certificate {number}: {error}") from error
    if pem.count("-----BEGIN CERTIFICATE-----") != len(found):
        raise BundleError(f"PEM: certificate {len(found) + 1} or a later one is damaged")
    return tuple(found)


def join_pem(ders: Iterable[bytes]) -> str:
    """Certificates (DER) as PEM, in order (RFC 7468)."""
    out = []
    for der in ders:
        text = base64.b64encode(der).decode("ascii")
        lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        out.append(f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    return "".join(out)
