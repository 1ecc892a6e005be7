"""TLS contexts and secrets (``extensions.transport_sockets.tls.v3``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxy.model.matcher import StringMatcher


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
    """``CertificateValidationContext``: trust anchors and what a peer must be called (any matcher suffices)."""

    trusted_ca: DataSource | None = None
    match_typed_subject_alt_names: tuple[SanMatcher, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretRef:
    """``SdsSecretConfig``. ``from_ads`` false: a static secret, or the workload's own identity ("default")."""

    name: str
    from_ads: bool = False


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


@dataclass(frozen=True, slots=True)
class DownstreamTls:
    """``DownstreamTlsContext``."""

    common: CommonTls
    require_client_certificate: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """``UpstreamTlsContext``."""

    common: CommonTls
    sni: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    """``Secret``: one of the two kinds Tulle uses."""

    name: str
    certificate: TlsCertificate | None = None
    validation: ValidationContext | None = None
