"""TLS contexts and secrets (``extensions.transport_sockets.tls.v3``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from proxy.model.frozen import dataclass
from proxy.model.matcher import StringMatcher

ALPN_OFFERS: Final[Mapping[Literal["HTTP1", "HTTP2", "AUTO"], tuple[str, ...]]] = {
    "HTTP1": ("http/1.1",),
    "HTTP2": ("h2",),
    "AUTO": ("h2", "http/1.1"),
}
"""What a connection for HTTP offers to the server where ``alpn_protocols`` is empty; one for TCP offers nothing."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """``config.core.v3.DataSource``: exactly one of the two is set."""

    filename: str | None = None
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """A certificate chain (leaf first, PEM) and its private key (PEM)."""

    certificate_chain: DataSource
    private_key: DataSource


@dataclass(frozen=True, slots=True)
class SanMatcher:
    """``SubjectAltNameMatcher``."""

    san_type: Literal["URI", "DNS", "EMAIL", "IP_ADDRESS"]
    matcher: StringMatcher


@dataclass(frozen=True, slots=True)
class ValidationContext:
    """``CertificateValidationContext``: trust anchors, revocation, and what a peer must be (any matcher suffices).

    ``verify_certificate_spki`` and ``verify_certificate_hash`` are SHA-256 digests; one match in either suffices.
    """

    trusted_ca: DataSource | None = None
    match_typed_subject_alt_names: tuple[SanMatcher, ...] = ()
    verify_certificate_spki: tuple[bytes, ...] = ()
    verify_certificate_hash: tuple[bytes, ...] = ()
    crl: DataSource | None = None
    only_verify_leaf_cert_crl: bool = False
    allow_expired_certificate: bool = False
    max_verify_depth: int | None = None


@dataclass(frozen=True, slots=True)
class SecretRef:
    """``SdsSecretConfig``. ``path``: the file that holds the ``Secret`` (``path_config_source``).

    With neither that nor ``from_ads``: a static secret, or the workload's own identity ("default").
    """

    name: str
    from_ads: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class CommonTls:
    """``CommonTlsContext``. A combined validation context is ``validation`` plus ``validation_secret``."""

    certificates: tuple[TlsCertificate, ...] = ()
    certificate_secrets: tuple[SecretRef, ...] = ()
    validation: ValidationContext | None = None
    validation_secret: SecretRef | None = None
    alpn_protocols: tuple[str, ...] = ()
    tls_minimum: Literal["TLSv1_2", "TLSv1_3"] = "TLSv1_2"
    tls_maximum: Literal["TLSv1_2", "TLSv1_3"] = "TLSv1_3"
    cipher_suites: tuple[str, ...] = ()
    ecdh_curve: str = ""


@dataclass(frozen=True, slots=True)
class DownstreamTls:
    """``DownstreamTlsContext``. ``session_timeout``: seconds that a session ticket is good for at most, 0 = OpenSSL's.

    ``session_tickets`` is the opposite of ``disable_stateless_session_resumption``.
    """

    common: CommonTls
    require_client_certificate: bool = False
    require_sni: bool = False
    session_tickets: bool = True
    session_timeout: int = 0
    full_scan_certs_on_sni_mismatch: bool = False
    prefer_client_ciphers: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """``UpstreamTlsContext``. ``max_session_keys``: sessions kept, 0 = no resumption, ``None`` = one for each host."""

    common: CommonTls
    sni: str = ""
    auto_host_sni: bool = False
    auto_sni_san_validation: bool = False
    allow_renegotiation: bool = False
    max_session_keys: int | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """``Secret``: one of the two kinds Tulle uses."""

    name: str
    certificate: TlsCertificate | None = None
    validation: ValidationContext | None = None
