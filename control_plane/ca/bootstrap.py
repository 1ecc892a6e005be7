"""Makes the mesh's root and issuing CA on the first start, loads them afterwards, and rotates the issuing CA.

Files in the directory: ``root.crt`` (0644), ``root.key`` (0600, may be taken away to keep the root offline) and
``issuing.pem`` (0600, key and certificate in one file, so that they never mismatch). It must not decide who gets
a certificate.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from certs import authority, files, keys, template
from certs.authority import Authority, SigningError
from certs.bundle import TrustBundle, join_pem, pin, split_pem
from certs.svid import SvidError, check_signer

log = logging.getLogger(__name__)

PASSPHRASE_VARIABLE = "TULLE_CA_PASSPHRASE"
DEFAULT_TRUST_DOMAIN = "mesh.local"

Clock = Callable[[], datetime]


class BootstrapError(Exception):
    """The CA's files cannot be used; the message says which one and what to do."""


class MeshAuthority:
    """Root and issuing CA of one trust domain."""

    __slots__ = (
        "_clock",
        "_issuing",
        "_passphrase",
        "_root",
        "_serial",
        "bundle",
        "directory",
        "trust_domain",
    )

    def __init__(
        self,
        directory: Path,
        trust_domain: str,
        bundle: TrustBundle,
        root: Authority | None,
        issuing: Authority | None,
        *,
        clock: Clock,
        serial: Callable[[], int],
        passphrase: bytes | None,
    ) -> None:
        self.directory = directory
        self.trust_domain = trust_domain
        self.bundle = bundle
        self._root = root
        self._issuing = issuing
        self._clock = clock
        self._serial = serial
        self._passphrase = passphrase

    @property
    def root_pin(self) -> str:
        """SHA-256 of the root's DER, hex: the part of a join token that names the mesh."""
        return pin(self.bundle.roots[0])

    def issuing(self) -> Authority:
        """The CA that signs now. Past half of its life a successor is made, if the root's key is at hand.

        Certificates of the predecessor stay valid: each is sent with the issuer that signed it.
        Raises :class:`BootstrapError` when there is none that can sign.
        """
        now = self._clock()
        current = self._issuing
        if current is not None and now < _half_life(current.certificate):
            return current
        if self._root is not None:
            self._issuing = current = self._make_issuing(self._root, now)
            log.info("issuing CA made, valid until %s", current.certificate.not_valid_after_utc.isoformat())
            return current
        if current is None or now >= current.certificate.not_valid_after_utc:
            raise BootstrapError(
                f"the issuing CA has expired and {self.directory / 'root.key'} is not there to make the next one; "
                "bring the root's key back and restart"
            )
        return current

    def _make_issuing(self, root: Authority, now: datetime) -> Authority:
        key = keys.generate()
        wanted = template.issuing(
            self.trust_domain,
            serial=self._serial(),
            now=now,
            signer_not_after=root.certificate.not_valid_after_utc,
        )
        der = root.sign(wanted, key.public_key())
        sealed = keys.dump(key, self._passphrase)
        files.write_private(self.directory / "issuing.pem", sealed + join_pem([der]).encode("ascii"))
        return authority.load(key, der, (der,))


def load_or_create(
    directory: Path,
    trust_domain: str = DEFAULT_TRUST_DOMAIN,
    *,
    clock: Clock,
    serial: Callable[[], int] = x509.random_serial_number,
    passphrase: bytes | None = None,
) -> MeshAuthority:
    """The CA kept in ``directory``, which is made when it does not exist. Raises :class:`BootstrapError`.

    ``passphrase`` seals new keys and opens sealed ones. A crash while making leaves no half CA behind.
    """
    if not directory.exists():
        _create(directory, trust_domain, clock(), serial, passphrase)
    try:
        made = _load(directory, trust_domain, clock, serial, passphrase)
    except (OSError, SigningError, ValueError) as error:
        hint = f" (set {PASSPHRASE_VARIABLE} or --ca-passphrase-file)" if "passphrase" in str(error) else ""
        raise BootstrapError(f"CA in {directory}: {error}{hint}") from error
    made.issuing()
    return made


def read_passphrase(path: Path | None, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The passphrase from a file (first line) or, without one, from ``TULLE_CA_PASSPHRASE``; ``None``: unsealed keys.

    Raises :class:`BootstrapError`.
    """
    if path is None:
        return environment.get(PASSPHRASE_VARIABLE, "").encode() or None
    try:
        lines = files.read_private(path).splitlines()
    except OSError as error:
        raise BootstrapError(f"CA passphrase file: {error}") from error
    if not lines or not lines[0]:
        raise BootstrapError(f"CA passphrase file {path}: its first line is empty")
    return lines[0]


def _half_life(certificate: x509.Certificate) -> datetime:
    lifetime: timedelta = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + lifetime / 2


def _create(
    directory: Path, trust_domain: str, now: datetime, serial: Callable[[], int], passphrase: bytes | None
) -> None:
    """Make the root beside its place and rename it there whole."""
    try:
        wanted = template.root(trust_domain, serial=serial(), now=now)
    except ValueError as error:
        raise BootstrapError(f"--trust-domain: {error}") from error
    key = keys.generate()
    root = authority.self_sign(wanted, key)
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    files.make_private_directory(beside)
    files.write_private(beside / "root.key", keys.dump(key, passphrase))
    files.write_public(beside / "root.crt", join_pem([root.der]).encode("ascii"))
    try:
        beside.rename(directory)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        if not directory.exists():
            raise
        log.info("another process made the CA in %s at the same time; using that one", directory)
        return
    files.sync_directory(directory.parent)
    log.info("root CA of trust domain %s made in %s, pin %s", trust_domain, directory, pin(root.der))


def _load(
    directory: Path, trust_domain: str, clock: Clock, serial: Callable[[], int], passphrase: bytes | None
) -> MeshAuthority:
    roots = split_pem((directory / "root.crt").read_text("ascii"))
    if len(roots) != 1:
        raise BootstrapError(f"{directory / 'root.crt'}: {len(roots)} certificates; expected one")
    try:
        found = check_signer(roots[0])
    except SvidError as error:
        raise BootstrapError(f"{directory / 'root.crt'}: {error}") from error
    if found is None or found.trust_domain != trust_domain:
        raise BootstrapError(
            f"{directory / 'root.crt'} is the root of trust domain {found and found.trust_domain!r}, "
            f"but {trust_domain!r} is configured; a mesh cannot be renamed: use another data directory"
        )
    root_key, issuing_file = directory / "root.key", directory / "issuing.pem"
    root = None
    if root_key.exists():
        key = keys.load(files.read_private(root_key), passphrase, where=str(root_key))
        root = authority.load(key, roots[0])
    issuing = None
    if issuing_file.exists():
        pem = files.read_private(issuing_file)
        ders = split_pem(pem.decode("ascii", "replace"))
        if len(ders) != 1:
            raise BootstrapError(f"{issuing_file}: {len(ders)} certificates; expected one")
        issuing = authority.load(keys.load(pem, passphrase, where=str(issuing_file)), ders[0], ders)
        if not authority.is_issued_by(issuing.certificate, x509.load_der_x509_certificate(roots[0])):
            raise BootstrapError(f"{issuing_file}: not signed by {directory / 'root.crt'}")
    bundle = TrustBundle.of(roots, trust_domain)
    return MeshAuthority(
        directory, trust_domain, bundle, root, issuing, clock=clock, serial=serial, passphrase=passphrase
    )
