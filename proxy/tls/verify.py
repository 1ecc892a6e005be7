"""Who a peer is, judged after the handshake and before any byte is passed on.

OpenSSL has validated the chain (RFC 5280, strict). This adds what it does not know: the SPIFFE X.509-SVID rules, the
configured subject alternative names, and the leaf's validity once more, because a resumed session skips OpenSSL's look.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from certs.der import CertificateFields, DerError, read_certificate
from certs.svid import SvidError, check_leaf
from proxy.model.connection import PeerCertificate
from proxy.model.matcher import StringMatcher
from proxy.model.tls import SanMatcher
from proxy.tls.errors import PeerRefusedError, SecretError

Names = Callable[[PeerCertificate], bool]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A leaf that was read. ``problem``: why it is no X.509-SVID, "" if it is one."""

    peer: PeerCertificate
    principal: str | None
    problem: str
    not_before: int
    not_after: int


class PeerVerifier:
    """What one TLS context asks of its peers.

    ``required``: a peer without a certificate is refused. ``matchers``: any of them suffices, none = any name.
    """

    __slots__ = ("_mesh", "_names", "_required")

    def __init__(self, matchers: tuple[SanMatcher, ...], *, required: bool) -> None:
        """Raises ``SecretError`` for a matcher that cannot be compiled."""
        self._required = required
        self._names: tuple[Names, ...] = tuple(_compile(matcher) for matcher in matchers)
        self._mesh = any(matcher.san_type == "URI" for matcher in matchers)

    def check(self, der: bytes | None, now: float) -> tuple[PeerCertificate | None, str | None]:
        """The peer and its principal (its SPIFFE ID, or ``None``). ``now`` is Unix time.

        Raises ``PeerRefusedError``.
        """
        if der is None:
            if self._required:
                raise PeerRefusedError("no_cert", "the peer sent no certificate")
            return None, None
        leaf = _read(der)
        peer = leaf.peer
        if not leaf.not_before <= now <= leaf.not_after:
            raise PeerRefusedError("error", f"the certificate of {_name(peer)} is not valid at this time")
        # SVID rules bind those who claim a SPIFFE ID, and those from whom one is demanded.
        if leaf.problem and (self._mesh or any(uri.lower().startswith("spiffe:") for uri in peer.uris)):
            raise PeerRefusedError("error", leaf.problem)
        if self._names and not any(matches(peer) for matches in self._names):
            raise PeerRefusedError("san", f"the certificate of {_name(peer)} has none of the names asked for")
        return peer, leaf.principal


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
    return _Leaf(_facts(der, fields), principal, problem, fields.not_before, fields.not_after)


def _facts(der: bytes, fields: CertificateFields) -> PeerCertificate:
    return PeerCertificate(
        subject=fields.subject_text(),
        uris=fields.uris,
        dns=fields.dns_names,
        sha256=hashlib.sha256(der).hexdigest(),
        serial=f"{fields.serial_number:x}",
        pem=ssl.DER_cert_to_PEM_cert(der),
    )


def _compile(matcher: SanMatcher) -> Names:
    matches = _compile_string(matcher.matcher)
    if matcher.san_type == "URI":
        return lambda peer: any(map(matches, peer.uris))
    if matcher.san_type == "DNS":
        return lambda peer: any(map(matches, peer.dns))
    raise SecretError(
        f"match_typed_subject_alt_names: san_type {matcher.san_type} is not supported; use URI or DNS"
    )


def _compile_string(matcher: StringMatcher) -> Callable[[str], bool]:
    value = matcher.value
    if matcher.kind == "safe_regex":
        try:
            pattern = re.compile(value, re.IGNORECASE if matcher.ignore_case else 0)
        except re.error as error:
            raise SecretError(f"match_typed_subject_alt_names: safe_regex {value!r}: {error}") from error
        return lambda text: pattern.fullmatch(text) is not None
    fold: Callable[[str], str] = str.lower if matcher.ignore_case else str
    value = fold(value)
    if matcher.kind == "exact":
        return lambda text: fold(text) == value
    if matcher.kind == "prefix":
        return lambda text: fold(text).startswith(value)
    if matcher.kind == "suffix":
        return lambda text: fold(text).endswith(value)
    return lambda text: value in fold(text)
