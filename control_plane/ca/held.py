"""The identities that the control plane itself holds: its server certificate and the administrator's client file.

Each is one 0600 file with key and chain, kept fresh at half-life. It must not decide what a certificate contains.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from certs import chain, files
from certs.bundle import TrustBundle, split_pem
from certs.chain import ChainError
from certs.svid import Svid
from control_plane.ca.errors import CertificateRefused
from control_plane.ca.service import CertificateService, IssuedIdentity

log = logging.getLogger(__name__)

CHECK_INTERVAL = 60.0
"""Seconds between looks at the clock at the most: a clock may jump."""

Clock = Callable[[], datetime]


class HeldIdentity:
    """One identity in one file. ``path`` may be given to ``load_cert_chain`` or ``curl --cert``."""

    __slots__ = ("_bundle", "_clock", "_issue", "_subscribers", "_svid", "chain_pem", "key_pem", "path")

    def __init__(
        self, path: Path, issue: Callable[[], IssuedIdentity], bundle: TrustBundle, clock: Clock
    ) -> None:
        self.path = path
        self._issue = issue
        self._bundle = bundle
        self._clock = clock
        self._subscribers: list[Callable[[HeldIdentity], None]] = []
        self._svid: Svid | None = None
        self.key_pem = b""
        self.chain_pem = b""

    def subscribe(self, callback: Callable[[HeldIdentity], None]) -> None:
        """Call ``callback`` after each rotation, in the event loop's thread; it must not raise."""
        self._subscribers.append(callback)

    def renew(self) -> None:
        """Make a new one now. Raises :class:`CertificateRefused`, :class:`OSError`; the old one then stays."""
        made = self._issue()
        pem = made.key_pem + made.certificate.certificates.encode("ascii")
        files.write_private(self.path, pem)
        self._take(pem)
        log.info(
            "%s: certificate of %s valid until %s", self.path, made.certificate.spiffe_id, self.not_after
        )
        for callback in self._subscribers:
            callback(self)

    def ensure(self) -> None:
        """Use the file when it holds a certificate of this mesh before its half-life, else make a new one."""
        try:
            self._take(files.read_private(self.path))
        except (OSError, ValueError) as error:
            log.info("%s: made anew (%s)", self.path, error)
            self.renew()
            return
        self.renew_if_due()

    def renew_if_due(self) -> bool:
        """Renew past half of the validity; says whether it did."""
        assert self._svid is not None, "ensure() or renew() comes first"
        half = (self._svid.not_before + self._svid.not_after) / 2
        if self._clock().timestamp() < half:
            return False
        self.renew()
        return True

    @property
    def not_after(self) -> float:
        """Unix seconds."""
        return 0.0 if self._svid is None else float(self._svid.not_after)

    def _take(self, pem: bytes) -> None:
        """Raises :class:`ValueError` when the file is of another mesh, expired or damaged."""
        ders = split_pem(pem.decode("ascii"))
        try:
            svid = chain.verify(ders, self._bundle, self._clock().timestamp())
        except ChainError as error:
            raise ValueError(str(error)) from error
        key_end = pem.index(b"-----BEGIN CERTIFICATE-----")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.path)  # the key fits the certificate
        self._svid = svid
        self.key_pem, self.chain_pem = pem[:key_end], pem[key_end:]


def server_identity(
    service: CertificateService,
    path: Path,
    *,
    dns_names: tuple[str, ...],
    addresses: tuple[str, ...],
    clock: Clock,
) -> HeldIdentity:
    """The control plane's server identity, always made anew: its names may have changed since the last start."""
    held = HeldIdentity(path, lambda: service.issue_server(dns_names, addresses), service.bundle, clock)
    held.renew()
    return held


def admin_identity(service: CertificateService, path: Path, *, clock: Clock) -> HeldIdentity:
    """The administrator's client certificate, written on the first start and renewed in place."""
    held = HeldIdentity(path, service.issue_admin, service.bundle, clock)
    held.ensure()
    return held


def server_context(held: HeldIdentity, bundle: TrustBundle) -> ssl.SSLContext:
    """A TLS server that asks for a client certificate of this mesh and takes none as an answer.

    The context follows rotations by itself. Sessions are not resumed, so each connection is validated afresh.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=bundle.to_pem())
    context.load_cert_chain(held.path)
    held.subscribe(lambda rotated: context.load_cert_chain(rotated.path))
    return context


async def keep_fresh(
    identities: Sequence[HeldIdentity], *, interval: float = CHECK_INTERVAL, stop: asyncio.Event | None = None
) -> None:
    """Renew each identity at its half-life, until cancelled or ``stop``. A failure is logged and tried again."""
    stop = stop or asyncio.Event()
    while not stop.is_set():
        for held in identities:
            try:
                held.renew_if_due()
            except (CertificateRefused, OSError, ssl.SSLError) as error:
                log.warning("%s: not renewed, tried again in %g s: %s", held.path, interval, error)
        try:
            async with asyncio.timeout(interval):
                await stop.wait()
        except TimeoutError:
            continue
