"""From a TLS configuration and its material to an ``ssl.SSLContext``.

It resolves no names, reads no files and keeps nothing.

What Python's ``ssl`` cannot be told is refused when the configuration is decoded (``proxy.xds.decode.tls``).
"""

from __future__ import annotations

import math
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from ssl import SSLContext, SSLObject
from typing import TYPE_CHECKING, Final

from certs.bundle import BundleError, split_pem
from certs.der import CertificateFields, DerError, read_certificate, read_crl_end
from proxy.model.connection import PeerCertificate
from proxy.model.tls import CommonTls, DownstreamTls, UpstreamTls, ValidationContext
from proxy.tls.chain import expiry, verified_chain
from proxy.tls.errors import PeerRefusedError, SecretError
from proxy.tls.select import Selection, select
from proxy.tls.verify import PeerVerifier

if TYPE_CHECKING:
    from _ssl import SSLSession

MAX_SESSIONS: Final = 1024
"""Sessions kept for resumption by one client context, one for each server, unless ``max_session_keys`` says less."""
LOOK_INTERVAL: Final = 60.0
"""Seconds between two looks at the sessions of one server, unless it goes on to accept the one at hand."""
TICKET_KEY_LIFETIME: Final = 86_400.0
"""Seconds after which a server context makes way for one with new ticket keys: who steals them reads no older past."""
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305"
    ":ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305"
    ":ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
)
"""Envoy's defaults for TLS 1.2. Those of TLS 1.3 cannot be chosen, in Envoy or here."""
CURVES: Final = {"X25519": "X25519", "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}

_NO_RULES: Final = ValidationContext()
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which ``ssl`` has no name."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a context is made of, as PEM: own keys with their chains, whom to trust, who is revoked; and the rules that
    were merged from a default and a dynamic validation context. ``None`` = absent."""

    certificates: tuple[bytes, ...] = ()
    trusted: bytes | None = None
    crl: bytes | None = None
    rules: ValidationContext = _NO_RULES


@dataclass(slots=True, eq=False)
class TlsContext:
    """A context and the judge of its peers. ``local_uri`` is the own SPIFFE ID ("" without one).

    ``sessions`` (clients only): what can be resumed, by server. They live and die with the context, as the ticket keys
    of a server do, so nothing is resumed across a change of key, roots or rules. ``renew_at`` (Unix time): from then on
    a new context must take this one's place, because something that OpenSSL looks at in full handshakes only has
    expired, or because of its age.
    """

    ssl: SSLContext
    verifier: PeerVerifier
    local_uri: str = ""
    sni: str | None = None
    max_sessions: int = MAX_SESSIONS
    renew_at: float = math.inf
    sessions: OrderedDict[str, SSLSession] = field(default_factory=OrderedDict)
    uris: Mapping[SSLContext, str] = field(default_factory=dict)
    _looked: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def wants_session(self, key: str, *, resumed: bool) -> bool:
        """Whether to look at the session of a connection to ``key`` that was, or was not, ``resumed``.

        Each look costs memory for ever: CPython's ``SSLObject.session`` duplicates the session (about 6 KB) and loses
        the duplicate. So the one at hand serves for half of its life, and looks are ``LOOK_INTERVAL`` apart.
        """
        if not self.max_sessions:
            return False
        now = time.time()
        session = self.sessions.get(key)
        if resumed and session is not None and now < session.time + session.timeout / 2:
            return False
        if now < self._looked.get(key, 0.0) + LOOK_INTERVAL:
            return False
        self._looked[key] = now
        self._looked.move_to_end(key)
        if len(self._looked) > self.max_sessions:
            self._looked.popitem(last=False)
        return True

    def remember(self, key: str, session: SSLSession) -> None:
        """Keep the newest session for ``key``."""
        if not self.max_sessions:
            return
        self.sessions[key] = session
        self.sessions.move_to_end(key)
        if len(self.sessions) > self.max_sessions:
            self.sessions.popitem(last=False)

    def resumable(self, key: str) -> SSLSession | None:
        """A session of the server ``key``, if it is still good."""
        session = self.sessions.get(key)
        if session is not None and session.time + session.timeout <= time.time():
            del self.sessions[key]
            return None
        return session

    def judge(self, tls: SSLObject, server_name: str = "") -> tuple[PeerCertificate | None, str | None]:
        """Who the peer of a finished handshake is: certificate and principal. Raises ``PeerRefusedError``."""
        now = time.time()
        if tls.session_reused:
            if now >= self.renew_at:
                raise PeerRefusedError("error", "the session is older than what it was verified with")
            return self.verifier.check(tls.getpeercert(True), now, server_name=server_name)
        chain = verified_chain(tls)
        for der in chain[1:]:
            end = expiry(der)
            if now < end < self.renew_at:
                self.renew_at = end
        return self.verifier.check(tls.getpeercert(True), now, chain=chain, server_name=server_name)

    def uri_of(self, chosen: SSLContext) -> str:
        """The own SPIFFE ID on a connection for which ``chosen`` was selected by server name."""
        return self.uris.get(chosen, self.local_uri)


def server_context(tls: DownstreamTls, material: Material) -> TlsContext:
    """A context for accepted connections. Raises ``SecretError``."""
    if not material.certificates:
        raise SecretError("a TLS server needs a certificate and none is configured")
    _check_rules(material)
    if material.trusted is None:
        if tls.require_client_certificate:
            raise SecretError("client certificates are required and no trusted_ca says which are good")
        if _names_peers(material.rules):
            raise SecretError(
                "the validation context asks for certain client certificates without a trusted_ca"
            )
    leaves = [_leaf(pem) for pem in material.certificates]
    made: dict[tuple[int, ...], ssl.SSLContext] = {}
    uris: dict[ssl.SSLContext, str] = {}

    def engine(numbers: tuple[int, ...]) -> ssl.SSLContext:
        found = made.get(numbers)
        if found is None:
            found = made[numbers] = _server_engine(tls, material, numbers)
            uris[found] = _uri(leaves[numbers[0]])
        return found

    selection = Selection.of(leaves, full_scan=tls.full_scan_certs_on_sni_mismatch)
    main = engine(selection.default)
    if len(leaves) > 1 or tls.require_sni:
        main.sni_callback = select(selection, engine, require=tls.require_sni)
    age = min(tls.session_timeout or TICKET_KEY_LIFETIME, TICKET_KEY_LIFETIME)
    verifier = PeerVerifier(material.rules, required=tls.require_client_certificate)
    return TlsContext(
        main, verifier, uris[main], renew_at=min(time.time() + age, _crl_end(material.crl)), uris=uris
    )


def client_context(tls: UpstreamTls, material: Material, engine: ssl.SSLContext | None = None) -> TlsContext:
    """A context for upstream connections; without trust roots the server's chain is not verified, as in Envoy.

    ``engine``: one that ``client_engine`` made for the same material. Raises ``SecretError``.
    """
    _check_rules(material)
    rules = material.rules
    if material.trusted is None:
        if rules.match_typed_subject_alt_names or tls.auto_sni_san_validation:
            raise SecretError("match_typed_subject_alt_names without trusted_ca proves nothing")
        if rules.crl is not None or rules.max_verify_depth is not None:
            raise SecretError("crl and max_verify_depth without trusted_ca check nothing")
    hashes = bool(rules.verify_certificate_hash or rules.verify_certificate_spki)
    verifier = PeerVerifier(rules, required=material.trusted is not None or hashes)
    return TlsContext(
        engine or client_engine(tls, material),
        verifier,
        _uri(_leaf(material.certificates[0])) if material.certificates else "",
        tls.sni or None,
        MAX_SESSIONS if tls.max_session_keys is None else tls.max_session_keys,
        _crl_end(material.crl),
    )


def client_engine(tls: UpstreamTls, material: Material) -> ssl.SSLContext:
    """The part of a client context that clusters can share: it knows no names and no sessions.

    Raises ``SecretError``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if material.trusted is None else ssl.CERT_REQUIRED
    _configure(context, tls.common, material)
    if not tls.allow_renegotiation:
        context.options |= ssl.OP_NO_RENEGOTIATION
    for pem in material.certificates[:1]:
        _load_key_and_chain(context, pem)
    return context


def _server_engine(tls: DownstreamTls, material: Material, numbers: tuple[int, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 1 if tls.session_tickets else 0
    if not tls.session_tickets:
        context.options |= ssl.OP_NO_TICKET
    if material.trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    _configure(context, tls.common, material)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if tls.prefer_client_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    for number in numbers:
        _load_key_and_chain(context, material.certificates[number])
    return context


def _configure(context: ssl.SSLContext, common: CommonTls, material: Material) -> None:
    context.minimum_version = ssl.TLSVersion[common.tls_minimum]
    context.maximum_version = ssl.TLSVersion[common.tls_maximum]
    context.options |= ssl.OP_NO_COMPRESSION
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.set_ciphers(":".join(common.cipher_suites) or CIPHERS)
        if common.ecdh_curve:
            context.set_ecdh_curve(CURVES[common.ecdh_curve])
    except (ssl.SSLError, ValueError) as error:
        raise SecretError(f"tls_params: this OpenSSL cannot use them ({error})") from error
    if common.alpn_protocols:
        context.set_alpn_protocols(common.alpn_protocols)
    if material.trusted is not None:
        try:
            context.load_verify_locations(cadata=material.trusted.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise SecretError(f"trusted_ca: not a list of PEM certificates ({error})") from error
    rules = material.rules
    if rules.allow_expired_certificate:
        context.verify_flags |= _NO_CHECK_TIME
    if material.crl is not None:
        leaf_only = rules.only_verify_leaf_cert_crl
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF if leaf_only else ssl.VERIFY_CRL_CHECK_CHAIN
        try:
            with _Memory(material.crl) as path:
                context.load_verify_locations(cafile=path)
        except (ssl.SSLError, OSError) as error:
            raise SecretError(f"crl: not a list of PEM revocation lists ({error})") from error


def _check_rules(material: Material) -> None:
    if material.crl is None:
        return
    if material.trusted is None:
        raise SecretError("crl: without trusted_ca there is nobody whose list could count")
    if material.rules.allow_expired_certificate:
        raise SecretError(
            "allow_expired_certificate with crl: OpenSSL would take expired revocation lists too"
        )


def _names_peers(rules: ValidationContext) -> bool:
    return bool(
        rules.match_typed_subject_alt_names or rules.verify_certificate_hash or rules.verify_certificate_spki
    )


def _crl_end(pem: bytes | None) -> float:
    """When the first of the revocation lists expires that have not yet; those that have refuse full handshakes."""
    if pem is None:
        return math.inf
    try:
        lists = split_pem(pem.decode("ascii", "replace"), "X509 CRL")
        ends = [end for end in map(read_crl_end, lists) if end is not None]
    except (BundleError, DerError) as error:
        raise SecretError(f"crl: {error}") from error
    if not lists:
        raise SecretError("crl: no revocation list (X509 CRL) in it")
    now = time.time()
    return min((end for end in ends if end > now), default=math.inf)


class _Memory:
    """A file that is on no disk, for what ``ssl`` reads from files only."""

    def __init__(self, data: bytes) -> None:
        self._descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(self._descriptor), "wb") as file:
            file.write(data)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


def _load_key_and_chain(context: ssl.SSLContext, pem: bytes) -> None:
    try:
        with _Memory(pem) as path:
            context.load_cert_chain(path, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SecretError(f"certificate chain and private key cannot be used together: {error}") from error


def _no_password() -> str:
    """Without this OpenSSL would ask on the terminal for an encrypted key's password."""
    raise ValueError("the private key is encrypted; give it unencrypted")


def _leaf(pem: bytes) -> CertificateFields:
    try:
        chain = split_pem(pem.decode("ascii", "replace"))
        if not chain:
            raise SecretError("certificate_chain: no certificate in it")
        return read_certificate(chain[0])
    except (BundleError, DerError) as error:
        raise SecretError(f"own certificate: {error}") from error


def _uri(leaf: CertificateFields) -> str:
    return leaf.uris[0] if len(leaf.uris) == 1 else ""
