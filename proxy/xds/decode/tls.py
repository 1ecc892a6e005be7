"""TLS contexts, secrets and the sources they come from (``extensions.transport_sockets.tls.v3``)."""

from __future__ import annotations

from typing import Any, Literal

from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from proxy.model.config import ConfigError
from proxy.model.tls import (
    CommonTls,
    DataSource,
    DownstreamTls,
    SanMatcher,
    Secret,
    SecretRef,
    TlsCertificate,
    UpstreamTls,
    ValidationContext,
)
from proxy.xds.decode import matcher
from proxy.xds.decode.fields import UNSUPPORTED, check, enum, forbid, known, only, required, unpack, wrapped

_TRANSPORT_SOCKET = known("typed_config", without_effect={"name": "is a label; the type URL decides"})
_DOWNSTREAM = known("common_tls_context", "require_client_certificate", "require_sni")
_UPSTREAM = known(
    "common_tls_context",
    "sni",
    without_effect={"max_session_keys": "how many sessions are kept for resumption changes no outcome"},
)
_COMMON = known(
    "tls_params",
    "tls_certificates",
    "tls_certificate_sds_secret_configs",
    "validation_context",
    "validation_context_sds_secret_config",
    "combined_validation_context",
    "alpn_protocols",
)
_PARAMETERS = known("tls_minimum_protocol_version", "tls_maximum_protocol_version")
_COMBINED = known("default_validation_context", "validation_context_sds_secret_config")
_VALIDATION = known("trusted_ca", "match_typed_subject_alt_names", "trust_chain_verification")
_CERTIFICATE = known("certificate_chain", "private_key")
_SAN = known("san_type", "matcher")
_SECRET = known("name", "tls_certificate", "validation_context")
_SDS = known("name", "sds_config")
_CONFIG_SOURCE = known("ads", "resource_api_version")
_EMPTY = known()
_DATA_SOURCE = known("filename", "inline_bytes", "inline_string")

_Version = Literal["TLSv1_2", "TLSv1_3"]
_SAN_TYPES: dict[str, Literal["URI", "DNS", "EMAIL", "IP_ADDRESS"]] = {
    "URI": "URI",
    "DNS": "DNS",
    "EMAIL": "EMAIL",
    "IP_ADDRESS": "IP_ADDRESS",
}


def downstream(message: Any, path: str) -> DownstreamTls | None:
    """A filter chain's ``transport_socket``; ``None`` is plaintext."""
    context, path = _context(message, path, tls_pb2.DownstreamTlsContext)
    if context is None:
        return None
    check(context, path, _DOWNSTREAM)
    only(context, path, "require_sni", False)
    common = _common(context.common_tls_context, f"{path}.common_tls_context", "TLSv1_3")
    forbid(
        not common.certificates and not common.certificate_secrets,
        f"{path}.common_tls_context",
        "a server needs tls_certificates or tls_certificate_sds_secret_configs",
    )
    return DownstreamTls(common, wrapped(context, "require_client_certificate", False))


def upstream(message: Any, path: str) -> UpstreamTls | None:
    """A cluster's ``transport_socket``; ``None`` is plaintext."""
    context, path = _context(message, path, tls_pb2.UpstreamTlsContext)
    if context is None:
        return None
    check(context, path, _UPSTREAM)
    # As a client Envoy goes up to TLS 1.2 unless told otherwise.
    return UpstreamTls(
        _common(context.common_tls_context, f"{path}.common_tls_context", "TLSv1_2"), context.sni
    )


def _context(message: Any, path: str, kind: Any) -> tuple[Any | None, str]:
    check(message, path, _TRANSPORT_SOCKET)
    path = f"{path}.typed_config"
    context = unpack(message.typed_config, path, (kind, raw_buffer_pb2.RawBuffer))
    return (context if isinstance(context, kind) else None), path


def _common(message: Any, path: str, newest: _Version) -> CommonTls:
    check(message, path, _COMMON)
    at = f"{path}.tls_params"
    check(message.tls_params, at, _PARAMETERS)
    plain: dict[str, _Version] = {"TLSv1_2": "TLSv1_2", "TLSv1_3": "TLSv1_3"}
    minimum = enum(message.tls_params, at, "tls_minimum_protocol_version", {**plain, "TLS_AUTO": "TLSv1_2"})
    maximum = enum(message.tls_params, at, "tls_maximum_protocol_version", {**plain, "TLS_AUTO": newest})
    forbid(minimum > maximum, at, f"tls_minimum_protocol_version {minimum} is above the maximum {maximum}")
    certificates = tuple(
        _certificate(item, f"{path}.tls_certificates[{index}]")
        for index, item in enumerate(message.tls_certificates)
    )
    secrets = tuple(
        secret_ref(item, f"{path}.tls_certificate_sds_secret_configs[{index}]")
        for index, item in enumerate(message.tls_certificate_sds_secret_configs)
    )
    forbid(bool(certificates and secrets), path, "set tls_certificates or ..._sds_secret_configs, not both")
    context, context_secret = _validation_of(message, path)
    for index, protocol in enumerate(message.alpn_protocols):
        forbid(
            not 1 <= len(protocol.encode()) <= 255,
            f"{path}.alpn_protocols[{index}]",
            "must have 1 to 255 bytes (RFC 7301)",
        )
    alpn = tuple(message.alpn_protocols)
    return CommonTls(certificates, secrets, context, context_secret, alpn, minimum, maximum)


def _validation_of(message: Any, path: str) -> tuple[ValidationContext | None, SecretRef | None]:
    kind = message.WhichOneof("validation_context_type")
    if kind is None:
        return None, None
    value = getattr(message, kind)
    path = f"{path}.{kind}"
    if kind == "validation_context":
        return _validation(value, path), None
    if kind == "validation_context_sds_secret_config":
        return None, secret_ref(value, path)
    check(value, path, _COMBINED)
    return (
        _validation(value.default_validation_context, f"{path}.default_validation_context"),
        secret_ref(
            value.validation_context_sds_secret_config, f"{path}.validation_context_sds_secret_config"
        ),
    )


def _validation(message: Any, path: str) -> ValidationContext:
    check(message, path, _VALIDATION)
    enum(message, path, "trust_chain_verification", {"VERIFY_TRUST_CHAIN": None})
    matchers = []
    for index, item in enumerate(message.match_typed_subject_alt_names):
        at = f"{path}.match_typed_subject_alt_names[{index}]"
        check(item, at, _SAN)
        kind = enum(item, at, "san_type", _SAN_TYPES)
        matchers.append(SanMatcher(kind, matcher.string(item.matcher, f"{at}.matcher")))
    trusted = None
    if message.HasField("trusted_ca"):
        trusted = data_source(message.trusted_ca, f"{path}.trusted_ca")
    return ValidationContext(trusted, tuple(matchers))


def _certificate(message: Any, path: str) -> TlsCertificate:
    check(message, path, _CERTIFICATE)
    return TlsCertificate(
        data_source(message.certificate_chain, f"{path}.certificate_chain"),
        data_source(message.private_key, f"{path}.private_key"),
    )


def data_source(message: Any, path: str) -> DataSource:
    """A ``DataSource``: a file or inline data; the file is not read here."""
    check(message, path, _DATA_SOURCE)
    kind = message.WhichOneof("specifier")
    if kind is None:
        raise ConfigError(path, "is empty: set filename, inline_string or inline_bytes")
    value = getattr(message, kind)
    forbid(not value, f"{path}.{kind}", "is empty")
    if kind == "filename":
        return DataSource(filename=value)
    return DataSource(inline=value.encode() if kind == "inline_string" else value)


def secret_ref(message: Any, path: str) -> SecretRef:
    """An ``SdsSecretConfig``: from ADS, or (without ``sds_config``) a secret that the node itself has."""
    check(message, path, _SDS)
    name = required(message.name, f"{path}.name")
    from_ads = message.HasField("sds_config")
    if from_ads:
        require_ads(message.sds_config, f"{path}.sds_config")
    return SecretRef(name, from_ads)


def require_ads(message: Any, path: str) -> None:
    """A ``ConfigSource``: only the aggregated stream (``ads: {}``) is supported."""
    check(message, path, _CONFIG_SOURCE)
    forbid(not message.HasField("ads"), path, f"without ads {UNSUPPORTED}")
    check(message.ads, f"{path}.ads", _EMPTY)
    enum(message, path, "resource_api_version", {"AUTO": None, "V3": None})


def secret(message: Any) -> Secret:
    """A ``Secret``: a certificate or a validation context."""
    path = f"secret[{message.name}]"
    check(message, path, _SECRET)
    required(message.name, f"{path}.name")
    kind = message.WhichOneof("type")
    if kind == "tls_certificate":
        return Secret(message.name, certificate=_certificate(message.tls_certificate, f"{path}.{kind}"))
    if kind == "validation_context":
        return Secret(message.name, validation=_validation(message.validation_context, f"{path}.{kind}"))
    raise ConfigError(path, "is empty: set tls_certificate or validation_context")
