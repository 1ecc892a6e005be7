"""Who gets a certificate: attestation gives the identity, a template gives the content, a CSR only proves the key.

It must not speak HTTP and touches no key but those that it makes for the control plane itself. Refusals are
:class:`CertificateRefused`; each is counted and logged.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from certs import csr, keys, template
from certs.authority import SigningError
from certs.bundle import TrustBundle, join_pem, pin
from certs.csr import CertificateRequest, CsrError
from certs.keys import PublicKey
from certs.spiffe import SpiffeId, SpiffeIdError
from certs.svid import Svid, SvidError, read_leaf
from control_plane.ca import errors
from control_plane.ca.bootstrap import BootstrapError, MeshAuthority
from control_plane.ca.errors import CertificateRefused
from control_plane.ca.issuance_log import IssuanceLog
from control_plane.ca.tokens import JoinTokens, timestamp

log = logging.getLogger(__name__)

SYSTEM_NAMESPACE = "tulle-system"
CONTROL_PLANE_ACCOUNT = "control-plane"
ADMIN_ACCOUNT = "admin"
RESERVED_ACCOUNTS = frozenset({CONTROL_PLANE_ACCOUNT, ADMIN_ACCOUNT})
"""Identities of :data:`SYSTEM_NAMESPACE` that no join token can buy."""

SERVER_LIFETIME = timedelta(hours=24)
ADMIN_LIFETIME = timedelta(days=365)
MAX_WORKLOAD_LIFETIME = timedelta(days=30)
"""There is no revocation: a stolen key is good until its certificate ends."""

__all__ = ["CertificateRefused", "CertificateService", "IssuedCertificate", "IssuedIdentity"]


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """``certificates``: PEM, leaf first, then the issuing CA; ``bundle``: PEM of the roots. Times are aware UTC."""

    certificates: str
    bundle: str
    spiffe_id: SpiffeId
    not_before: datetime
    not_after: datetime
    serial: int


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """A certificate with the key that was made for it here. ``key_pem`` is unsealed PKCS #8."""

    key_pem: bytes
    certificate: IssuedCertificate


class CertificateService:
    """Issues the certificates of one mesh. One event loop uses it; signing takes well under a millisecond.

    ``issued`` counts by way of attestation, ``refused`` by reason.
    """

    __slots__ = ("_authority", "_clock", "_log", "_serial", "_svid_lifetime", "issued", "refused", "tokens")

    def __init__(
        self,
        authority: MeshAuthority,
        tokens: JoinTokens,
        issuance_log: IssuanceLog,
        *,
        clock: Callable[[], datetime],
        svid_lifetime: timedelta = template.SVID_LIFETIME,
        serial: Callable[[], int] = x509.random_serial_number,
    ) -> None:
        """Raises :class:`ValueError` when ``svid_lifetime`` is too short or too long."""
        if not template.MIN_SVID_LIFETIME <= svid_lifetime <= MAX_WORKLOAD_LIFETIME:
            raise ValueError(
                f"SVID lifetime {svid_lifetime} is outside "
                f"{template.MIN_SVID_LIFETIME} … {MAX_WORKLOAD_LIFETIME.days} days"
            )
        self._authority = authority
        self.tokens = tokens
        self._log = issuance_log
        self._clock = clock
        self._svid_lifetime = svid_lifetime
        self._serial = serial
        self.issued: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    @property
    def trust_domain(self) -> str:
        return self._authority.trust_domain

    @property
    def bundle(self) -> TrustBundle:
        return self._authority.bundle

    @property
    def control_plane_id(self) -> SpiffeId:
        return SpiffeId.workload(self.trust_domain, SYSTEM_NAMESPACE, CONTROL_PLANE_ACCOUNT)

    @property
    def admin_id(self) -> SpiffeId:
        return SpiffeId.workload(self.trust_domain, SYSTEM_NAMESPACE, ADMIN_ACCOUNT)

    async def issue_with_token(
        self, csr_pem: str, token: str, *, peer: str | None = None
    ) -> IssuedCertificate:
        """Attest by join token and issue. The token is used up only when the certificate is sure to be made.

        ``peer``: the caller's address, for the log. Raises :class:`CertificateRefused`.
        """
        try:
            grant = await self.tokens.check(token)
            identity = self._attested(grant.namespace, grant.service_account)
            request = _read_csr(csr_pem, identity)
            made = self._sign(identity, request.public_key, self._svid_lifetime)
            await self.tokens.consume(grant)
        except CertificateRefused as refusal:
            self._count(refusal, "join token", peer)
            raise
        self._record(made, request.public_key, "token", {"token": grant.token_id, "peer": peer})
        return made

    async def renew(
        self, peer_certificate: bytes, csr_pem: str, *, peer: str | None = None
    ) -> IssuedCertificate:
        """Issue again for the identity of a current SVID, whose path the TLS library has validated.

        ``peer_certificate`` is the leaf's DER. Raises :class:`CertificateRefused`.
        """
        try:
            current = self._current(peer_certificate)
            request = _read_csr(csr_pem, current.spiffe_id)
            lifetime = self._svid_lifetime
            if current.spiffe_id == self.admin_id:
                lifetime = ADMIN_LIFETIME
            made = self._sign(current.spiffe_id, request.public_key, lifetime)
        except CertificateRefused as refusal:
            self._count(refusal, "current certificate", peer)
            raise
        self._record(made, request.public_key, "renewal", {"renews": pin(peer_certificate), "peer": peer})
        return made

    def issue_server(
        self, dns_names: tuple[str, ...], addresses: tuple[str, ...], *, lifetime: timedelta = SERVER_LIFETIME
    ) -> IssuedIdentity:
        """The control plane's own server identity, for these names. Raises :class:`CertificateRefused`."""
        key = keys.generate()
        made = self._sign(
            self.control_plane_id, key.public_key(), lifetime, dns_names=dns_names, addresses=addresses
        )
        self._record(made, key.public_key(), "server", {"dns": dns_names, "addresses": addresses})
        return IssuedIdentity(keys.dump(key), made)

    def issue_admin(self, *, lifetime: timedelta = ADMIN_LIFETIME) -> IssuedIdentity:
        """A client identity for the administrator. Raises :class:`CertificateRefused`."""
        key = keys.generate()
        made = self._sign(self.admin_id, key.public_key(), lifetime, common_name=ADMIN_ACCOUNT)
        self._record(made, key.public_key(), "admin", {})
        return IssuedIdentity(keys.dump(key), made)

    def _attested(self, namespace: str, service_account: str) -> SpiffeId:
        if namespace == SYSTEM_NAMESPACE and service_account in RESERVED_ACCOUNTS:
            raise CertificateRefused(
                errors.OTHER_IDENTITY,
                f"{namespace}/{service_account} is the mesh's own identity; no join token is good for it",
            )
        try:
            return SpiffeId.workload(self.trust_domain, namespace, service_account)
        except SpiffeIdError as error:
            raise CertificateRefused(errors.OTHER_IDENTITY, str(error)) from error

    def _current(self, peer_certificate: bytes) -> Svid:
        """Read the peer's SVID. Its validity counts again here: a connection may outlive its certificate."""
        try:
            current = read_leaf(peer_certificate, self.trust_domain)
        except SvidError as error:
            raise CertificateRefused(errors.NOT_AN_SVID, f"client certificate: {error}") from error
        if self._clock().timestamp() > current.not_after:
            raise CertificateRefused(
                errors.EXPIRED_CERTIFICATE,
                f"the client certificate of {current.spiffe_id} has expired; enrol again with a join token",
            )
        return current

    def _sign(
        self,
        identity: SpiffeId,
        public_key: PublicKey,
        lifetime: timedelta,
        *,
        dns_names: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        common_name: str | None = None,
    ) -> IssuedCertificate:
        try:
            authority = self._authority.issuing()
            wanted = template.svid(
                identity,
                serial=self._serial(),
                now=self._clock(),
                signer_not_after=authority.certificate.not_valid_after_utc,
                lifetime=lifetime,
                dns_names=dns_names,
                addresses=addresses,
                common_name=common_name,
            )
            der = authority.sign(wanted, public_key)
        except (BootstrapError, template.TemplateError, SigningError, OSError) as error:
            log.error("the CA cannot sign for %s: %s", identity, error)
            raise CertificateRefused(errors.CA_UNAVAILABLE, f"the CA cannot sign now: {error}") from error
        chain = join_pem((der, *authority.intermediates))
        return IssuedCertificate(
            chain, self.bundle.to_pem(), identity, wanted.not_before, wanted.not_after, wanted.serial
        )

    def _record(
        self, made: IssuedCertificate, public_key: PublicKey, attestation: str, facts: dict[str, object]
    ) -> None:
        record = {
            "time": timestamp(self._clock()),
            "attestation": attestation,
            "spiffeId": str(made.spiffe_id),
            "serial": f"{made.serial:x}",
            "notBefore": timestamp(made.not_before),
            "notAfter": timestamp(made.not_after),
            "publicKeySha256": pin(keys.public_der(public_key)),
            **facts,
        }
        try:
            self._log.append(record)
        except OSError as error:
            log.error(
                "certificate for %s withheld: the issuance log cannot be written: %s", made.spiffe_id, error
            )
            raise CertificateRefused(
                errors.CA_UNAVAILABLE, f"the issuance log cannot be written: {error}"
            ) from error
        self.issued[attestation] += 1

    def _count(self, refusal: CertificateRefused, attestation: str, peer: str | None) -> None:
        self.refused[refusal.reason] += 1
        log.warning(
            "certificate refused (%s, by %s, from %s): %a", refusal.reason, attestation, peer, refusal.message
        )


def _read_csr(csr_pem: str, identity: SpiffeId) -> CertificateRequest:
    """Read a CSR for ``identity``: it may repeat that ID as its only name, and ask for nothing else."""
    try:
        request = csr.read(csr_pem)
    except CsrError as error:
        raise CertificateRefused(error.reason, str(error)) from error
    if request.wants_ca:
        raise CertificateRefused(
            errors.WANTS_CA, f"the CSR asks to be a CA or to sign certificates; {identity} gets a leaf only"
        )
    own = ("URI", str(identity))
    others = [name for name in request.names if name != own]
    if others or len(request.names) > 1:
        kind, value = others[0] if others else own
        raise CertificateRefused(
            errors.OTHER_IDENTITY,
            f"the CSR asks for {kind} {value[:200]!r}, but its sender is {identity}; "
            "leave subjectAltName out or name only that ID",
        )
    return request
