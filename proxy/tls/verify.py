"""Who a peer is, judged after the handshake and before any byte is passed on.

OpenSSL has validated the chain (RFC 5280, strict, revocation). This adds what it does not know: the SPIFFE X.509-SVID
rules, the configured names and digests, the chain's depth, and the leaf's validity once more, because a resumed session
skips OpenSSL's look.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from certs.der import CertificateFields, DerError, read_certificate
from certs.svid import SvidError, check_leaf
from proxy.match.strings import compile_str
from proxy.model.config import ConfigError
from proxy.model.connection import PeerCertificate
from proxy.model.tls import SanMatcher, ValidationContext
from proxy.tls.errors import PeerRefusedError, SecretError


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A leaf that was read. ``problem``: why it is no X.509-SVID, "" if it is one."""

    peer: PeerCertificate
    principal: str | None
    problem: str
    not_before: int
    not_after: int
    digest: bytes
    spki: bytes
    emails: tuple[str, ...]
    addresses: tuple[str, ...]


Names = Callable[[_Leaf], bool]


class PeerVerifier:
    """What one TLS context asks of its peers. ``required``: a peer without a certificate is refused."""

    __slots__ = ("_allow_expired", "_digests", "_max_depth", "_mesh", "_names", "_required", "_spki")

    def __init__(self, rules: ValidationContext, *, required: bool) -> None:
        """Raises ``SecretError`` for a matcher that cannot be compiled."""
        matchers = rules.match_typed_subject_alt_names
        self._required = required
        self._names: tuple[Names, ...] = tuple(_compile(matcher) for matcher in matchers)
        self._mesh = any(matcher.san_type == "URI" for matcher in matchers)
        self._digests = frozenset(rules.verify_certificate_hash)
        self._spki = frozenset(rules.verify_certificate_spki)
        self._allow_expired = rules.allow_expired_certificate
        self._max_depth = rules.max_verify_depth

    def check(
        self, der: bytes | None, now: float, *, chain: Sequence[bytes] = (), server_name: str = ""
    ) -> tuple[PeerCertificate | None, str | None]:
        """The peer and its principal (its SPIFFE ID, or ``None``). ``now`` is Unix time.

        ``chain``: how OpenSSL verified it, empty for a resumed session. ``server_name``: a DNS name that it must have.
        Raises ``PeerRefusedError``.
        """
        if der is None:
            if self._required:
                raise PeerRefusedError("no_cert", "the peer sent no certificate")
            return None, None
        leaf = _read(der)
        peer = leaf.peer
        if not self._allow_expired and not leaf.not_before <= now <= leaf.not_after:
            raise PeerRefusedError("error", f"the certificate of {_name(peer)} is not valid at this time")
        if self._max_depth is not None and len(chain) - 1 > self._max_depth:
            raise PeerRefusedError("error", f"the certificate chain of {_name(peer)} is longer than allowed")
        # SVID rules bind those who claim a SPIFFE ID, and those from whom one is demanded.
        if leaf.problem and any(uri.lower().startswith("spiffe:") for uri in peer.uris):
            raise PeerRefusedError("error", leaf.problem)
        if self._names and not any(matches(leaf) for matches in self._names):
            raise PeerRefusedError("san", f"the certificate of {_name(peer)} has none of the names asked for")
        if leaf.problem and self._mesh:
            raise PeerRefusedError("error", leaf.problem)
        if server_name and not any(dns_name_matches(server_name, name) for name in peer.dns):
            raise PeerRefusedError("san", f"the certificate of {_name(peer)} is not for {server_name}")
        if (self._digests or self._spki) and leaf.digest not in self._digests and leaf.spki not in self._spki:
            raise PeerRefusedError(
                "cert_hash", f"the certificate of {_name(peer)} is not one of those pinned"
            )
        return peer, leaf.principal


def dns_name_matches(name: str, pattern: str) -> bool:
    """Whether a certificate's DNS name ``pattern`` is for the host ``name``: equal but for case, or with ``*`` as its
    whole first label (RFC 9525 section 6.3)."""
    name, pattern = name.lower(), pattern.lower()
    if name == pattern:
        return True
    first, _, rest = pattern.partition(".")
    return first == "*" and "." in rest and name.partition(".")[2] == rest


def _name(peer: PeerCertificate) -> str:
    return ", ".join(peer.uris or peer.dns) or peer.subject or f"serial {peer.serial}"


@lru_cache(maxsize=1024)
def _read(der: bytes) -> _Leaf:
    """Facts of a leaf; the same few peers come again and again. Raises ``PeerRefusedError``."""
    try:
        fields = read_certificate(der)
    except DerError as error:
        raise PeerRefusedError("error", f"the peer's certificate cannot be read: {error}") from error
    principal: str | None = None
    problem = ""
    try:
        principal = str(check_leaf(der))
    except SvidError as error:
        problem = str(error)
    digest = hashlib.sha256(der).digest()
    return _Leaf(
        _facts(der, digest, fields),
        principal,
        problem,
        fields.not_before,
        fields.not_after,
        digest,
        hashlib.sha256(fields.public_key).digest(),
        fields.emails,
        tuple(str(ipaddress.ip_address(raw)) for raw in fields.addresses),
    )


def _facts(der: bytes, digest: bytes, fields: CertificateFields) -> PeerCertificate:
    return PeerCertificate(
        subject=fields.subject_text(),
        uris=fields.uris,
        dns=fields.dns_names,
        sha256=digest.hex(),
        serial=f"{fields.serial_number:x}",
        pem=ssl.DER_cert_to_PEM_cert(der),
    )


def _compile(matcher: SanMatcher) -> Names:
    try:
        matches = compile_str(matcher.matcher, "matcher")
    except ConfigError as error:
        raise SecretError(f"match_typed_subject_alt_names: {error}") from error
    kind = matcher.san_type
    if kind == "URI":
        return lambda leaf: any(map(matches, leaf.peer.uris))
    if kind == "EMAIL":
        return lambda leaf: any(map(matches, leaf.emails))
    if kind == "IP_ADDRESS":
        return lambda leaf: any(map(matches, leaf.addresses))
    if matcher.matcher.kind == "exact":
        wanted = matcher.matcher.value
        return lambda leaf: any(dns_name_matches(wanted, name) for name in leaf.peer.dns)
    return lambda leaf: any(map(matches, leaf.peer.dns))
