"""What the certificates of a mesh contain: root, issuing CA, SVID. Pure data; clock and serial come in.

It must not sign, read a clock or draw a random number. Sources: RFC 5280, the X509-SVID standard.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from certs.spiffe import SpiffeId

ROOT_LIFETIME = timedelta(days=3650)
ISSUING_LIFETIME = timedelta(days=365)
SVID_LIFETIME = timedelta(hours=24)
MIN_SVID_LIFETIME = timedelta(seconds=2)
MAX_SVID_LIFETIME = timedelta(days=366)

MAX_BACKDATE = timedelta(minutes=2)
"""How far a validity begins in the past, for peers whose clocks are late."""

MAX_NAMES = 64
"""DNS names and addresses in one certificate."""

ORGANISATION = "Tulle"


class TemplateError(ValueError):
    """No certificate can be made like that."""


@dataclass(frozen=True, slots=True)
class CertificateTemplate:
    """One certificate to be made. ``subject`` is a list of (attribute, value), attribute being ``O`` or ``CN``;
    when it is empty the subjectAltName is critical. ``path_length`` matters for a CA only. Times are aware,
    whole seconds.
    """

    serial: int
    subject: tuple[tuple[str, str], ...]
    not_before: datetime
    not_after: datetime
    spiffe_id: SpiffeId
    is_ca: bool
    path_length: int | None = None
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def root(
    trust_domain: str, *, serial: int, now: datetime, lifetime: timedelta = ROOT_LIFETIME
) -> CertificateTemplate:
    """A mesh's root: signs issuing CAs only (path length 1)."""
    return _ca(trust_domain, "root", 1, serial, *_validity(now, lifetime, None))


def issuing(
    trust_domain: str,
    *,
    serial: int,
    now: datetime,
    signer_not_after: datetime,
    lifetime: timedelta = ISSUING_LIFETIME,
) -> CertificateTemplate:
    """An issuing CA:

    signs SVIDs only (path length 0) and ends no later than its signer. Raises :class:`TemplateError`.
    """
    return _ca(trust_domain, "issuing CA", 0, serial, *_validity(now, lifetime, signer_not_after))


def svid(
    spiffe_id: SpiffeId,
    *,
    serial: int,
    now: datetime,
    signer_not_after: datetime,
    lifetime: timedelta = SVID_LIFETIME,
    dns_names: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
    common_name: str | None = None,
) -> CertificateTemplate:
    """A leaf: exactly one URI SAN, ends no later than its signer. Raises :class:`TemplateError`.

    DNS names and addresses are for the control plane's own server certificate; ``common_name`` is for people.
    """
    if not spiffe_id.path:
        raise TemplateError(f"{spiffe_id} names a whole trust domain; an SVID needs a workload's ID")
    if not MIN_SVID_LIFETIME <= lifetime <= MAX_SVID_LIFETIME:
        raise TemplateError(
            f"SVID lifetime {lifetime} is outside {MIN_SVID_LIFETIME} … {MAX_SVID_LIFETIME.days} days"
        )
    if len(dns_names) + len(addresses) > MAX_NAMES:
        raise TemplateError(f"more than {MAX_NAMES} DNS names and addresses for one certificate")
    not_before, not_after = _validity(now, lifetime, signer_not_after)
    subject = () if common_name is None else (("O", ORGANISATION), ("CN", common_name))
    return CertificateTemplate(
        serial, subject, not_before, not_after, spiffe_id, False, None, dns_names, addresses
    )


def _ca(
    trust_domain: str, role: str, path_length: int, serial: int, not_before: datetime, not_after: datetime
) -> CertificateTemplate:
    spiffe_id = SpiffeId.of_trust_domain(trust_domain)
    # The serial tells apart the names of successive CAs: path building must never take one for another.
    subject = (("O", ORGANISATION), ("CN", f"{_shortened(trust_domain)} {role} {serial % 2**32:08x}"))
    return CertificateTemplate(serial, subject, not_before, not_after, spiffe_id, True, path_length)


def _shortened(trust_domain: str) -> str:
    """A common name holds 64 characters (RFC 5280, ub-common-name)."""
    return trust_domain if len(trust_domain) <= 40 else trust_domain[:39] + "~"


def _validity(
    now: datetime, lifetime: timedelta, signer_not_after: datetime | None
) -> tuple[datetime, datetime]:
    start = now.replace(microsecond=0)
    # A tenth at most, so that half of a short validity is never over at once.
    backdate = timedelta(seconds=int(min(MAX_BACKDATE, lifetime / 10).total_seconds()))
    not_after = start + lifetime
    if signer_not_after is not None and signer_not_after < not_after:
        not_after = signer_not_after
    if not_after <= now:
        raise TemplateError(f"the signing CA expired at {not_after.isoformat()}; rotate it before issuing")
    return start - backdate, not_after
