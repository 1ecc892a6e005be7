"""From a TLS configuration and its secrets to an ``ssl.SSLContext``. It resolves no secret names and keeps nothing."""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from certs.bundle import BundleError, split_pem
from certs.der import DerError, read_certificate
from proxy.model.tls import CommonTls, DataSource
from proxy.tls.errors import SecretError
from proxy.tls.verify import PeerVerifier

if TYPE_CHECKING:
    from _ssl import SSLSession

MAX_SESSIONS: Final = 1024
"""Sessions kept for resumption by one client context, one for each server."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a context is made of, as PEM: own key and chain, and whom to trust. ``None`` = absent."""

    key_and_chain: bytes | None
    trusted: bytes | None


@dataclass(slots=True, eq=False)
class TlsContext:
    """A context and the judge of its peers. ``local_uri`` is the own SPIFFE ID ("" without one).

    ``sessions`` (clients only): what can be resumed, by server. They live and die with the context, so nothing is
    resumed across a change of key, roots or rules.
    """

    ssl: ssl.SSLContext
    verifier: PeerVerifier
    local_uri: str = ""
    sni: str | None = None
    sessions: OrderedDict[str, SSLSession] = field(default_factory=OrderedDict)

    def remember(self, key: str, session: SSLSession) -> None:
        """Keep the newest session for ``key``."""
        self.sessions[key] = session
        self.sessions.move_to_end(key)
        if len(self.sessions) > MAX_SESSIONS:
            self.sessions.popitem(last=False)


def server_context(common: CommonTls, material: Material, *, require_client_certificate: bool) -> TlsContext:
    """A context for accepted connections. Raises ``SecretError``."""
    if material.key_and_chain is None:
        raise SecretError("a TLS server needs a certificate and none is configured")
    if require_client_certificate and material.trusted is None:
        raise SecretError("client certificates are required and no trusted_ca says which are good")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 1
    if material.trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED if require_client_certificate else ssl.CERT_OPTIONAL
    return _finish(context, common, material, required=require_client_certificate)


def client_context(common: CommonTls, material: Material, sni: str) -> TlsContext:
    """A context for upstream connections; without trust roots the server is not verified, as in Envoy.

    Raises ``SecretError``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if material.trusted is None else ssl.CERT_REQUIRED
    if material.trusted is None and common.validation and common.validation.match_typed_subject_alt_names:
        raise SecretError("match_typed_subject_alt_names without trusted_ca proves nothing")
    made = _finish(context, common, material, required=material.trusted is not None)
    made.sni = sni or None
    return made


def read_source(source: DataSource) -> bytes:
    """The bytes of a ``DataSource``. Raises ``SecretError``."""
    if source.inline is not None:
        return source.inline
    if source.filename is None:
        raise SecretError("data source: neither filename nor inline bytes")
    try:
        return Path(source.filename).read_bytes()
    except OSError as error:
        raise SecretError(f"cannot read {source.filename}: {error.strerror}") from error


def _finish(context: ssl.SSLContext, common: CommonTls, material: Material, *, required: bool) -> TlsContext:
    context.minimum_version = ssl.TLSVersion[common.tls_minimum]
    context.maximum_version = ssl.TLSVersion[common.tls_maximum]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    # There is no HTTP/2 codec here yet: a peer must not be told that there is.
    protocols = [protocol for protocol in common.alpn_protocols if protocol != "h2"]
    if protocols:
        context.set_alpn_protocols(protocols)
    local_uri = ""
    if material.key_and_chain is not None:
        _load_key_and_chain(context, material.key_and_chain)
        local_uri = _own_uri(material.key_and_chain)
    if material.trusted is not None:
        try:
            context.load_verify_locations(cadata=material.trusted.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise SecretError(f"trusted_ca: not a list of PEM certificates ({error})") from error
    matchers = common.validation.match_typed_subject_alt_names if common.validation is not None else ()
    return TlsContext(context, PeerVerifier(matchers, required=required), local_uri)


def _load_key_and_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """``ssl`` reads keys from files only; an anonymous one in memory keeps the key off every disk."""
    descriptor = os.memfd_create("tls-key", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SecretError(f"certificate chain and private key cannot be used together: {error}") from error
    finally:
        os.close(descriptor)


def _no_password() -> str:
    """Without this OpenSSL would ask on the terminal for an encrypted key's password."""
    raise ValueError("the private key is encrypted; give it unencrypted")


def _own_uri(pem: bytes) -> str:
    try:
        chain = split_pem(pem.decode("ascii", "replace"))
        uris = read_certificate(chain[0]).uris if chain else ()
    except (BundleError, DerError) as error:
        raise SecretError(f"own certificate: {error}") from error
    return uris[0] if len(uris) == 1 else ""
