"""TLS contexts, secrets and the sources they come from (``extensions.transport_sockets.tls.v3``)."""

from __future__ import annotations

import base64
from collections.abc import Callable
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
from proxy.xds.decode.fields import (
    UNSUPPORTED,
    check,
    duration,
    enum,
    forbid,
    known,
    required,
    unpack,
    wrapped,
)

_TRANSPORT_SOCKET = known("typed_config", without_effect={"name": "is a label; the type URL decides"})
_DOWNSTREAM = known(
    "common_tls_context",
    "require_client_certificate",
    "require_sni",
    "disable_stateless_session_resumption",
    "session_timeout",
    "ocsp_staple_policy",
    "full_scan_certs_on_sni_mismatch",
    "prefer_client_ciphers",
)
_UPSTREAM = known(
    "common_tls_context",
    "sni",
    "auto_host_sni",
    "auto_sni_san_validation",
    "allow_renegotiation",
    "max_session_keys",
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
_PARAMETERS = known(
    "tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves"
)
_COMBINED = known("default_validation_context", "validation_context_sds_secret_config")
_VALIDATION = known(
    "trusted_ca",
    "match_typed_subject_alt_names",
    "trust_chain_verification",
    "verify_certificate_spki",
    "verify_certificate_hash",
    "crl",
    "only_verify_leaf_cert_crl",
    "allow_expired_certificate",
    "max_verify_depth",
    without_effect={"watched_directory": "files are looked at themselves, however they are replaced"},
)
_CERTIFICATE = known(
    "certificate_chain",
    "private_key",
    without_effect={"watched_directory": "files are looked at themselves, however they are replaced"},
)
_SAN = known("san_type", "matcher")
_SECRET = known("name", "tls_certificate", "validation_context")
_SDS = known("name", "sds_config")
_CONFIG_SOURCE = known("ads", "resource_api_version")
_SECRET_SOURCE = known(
    "ads",
    "path",
    "path_config_source",
    "resource_api_version",
    without_effect={"initial_fetch_timeout": "nothing waits for a secret but the handshakes that need it"},
)
_PATH_SOURCE = known(
    "path", without_effect={"watched_directory": "files are looked at themselves, however they are replaced"}
)
_EMPTY = known()
_DATA_SOURCE = known(
    "filename",
    "inline_bytes",
    "inline_string",
    without_effect={"watched_directory": "files are looked at themselves, however they are replaced"},
)

_Version = Literal["TLSv1_2", "TLSv1_3"]
_CIPHERS = frozenset(
    f"{exchange}{cipher}"
    for exchange, ciphers in (
        (
            "ECDHE-ECDSA-",
            ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA"),
        ),
        (
            "ECDHE-RSA-",
            ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA"),
        ),
        ("", ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA")),
    )
    for cipher in ciphers
)
_CURVES = ("P-256", "P-384", "P-521", "X25519")
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
    enum(context, path, "ocsp_staple_policy", {"LENIENT_STAPLING": None})
    common = _common(context.common_tls_context, f"{path}.common_tls_context", "TLSv1_3")
    forbid(
        not common.certificates and not common.certificate_secrets,
        f"{path}.common_tls_context",
        "a server needs tls_certificates or tls_certificate_sds_secret_configs",
    )
    return DownstreamTls(
        common,
        wrapped(context, "require_client_certificate", False),
        wrapped(context, "require_sni", False),
        not context.disable_stateless_session_resumption,
        int(duration(context, path, "session_timeout", 0.0)),
        wrapped(context, "full_scan_certs_on_sni_mismatch", False),
        context.prefer_client_ciphers,
    )


def upstream(message: Any, path: str) -> UpstreamTls | None:
    """A cluster's ``transport_socket``; ``None`` is plaintext."""
    context, path = _context(message, path, tls_pb2.UpstreamTlsContext)
    if context is None:
        return None
    check(context, path, _UPSTREAM)
    # As a client Envoy goes up to TLS 1.2 unless told otherwise.
    common = _common(context.common_tls_context, f"{path}.common_tls_context", "TLSv1_2")
    forbid(
        len(common.certificates) + len(common.certificate_secrets) > 1,
        f"{path}.common_tls_context",
        "a client has one certificate",
    )
    forbid(len(context.sni) > 255, f"{path}.sni", "is longer than 255 bytes")
    return UpstreamTls(
        common,
        context.sni,
        context.auto_host_sni,
        context.auto_sni_san_validation,
        context.allow_renegotiation,
        wrapped(context, "max_session_keys", None),
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
    return CommonTls(
        certificates,
        secrets,
        context,
        context_secret,
        alpn,
        minimum,
        maximum,
        _cipher_suites(message.tls_params.cipher_suites, at),
        _curve(message.tls_params.ecdh_curves, at),
    )


def _cipher_suites(names: Any, path: str) -> tuple[str, ...]:
    """Suites of TLS 1.2 by preference. ``[A|B]``, where the client chooses, is read as A before B."""
    found: list[str] = []
    for index, group in enumerate(names):
        for name in group[1:-1].split("|") if group[:1] == "[" and group[-1:] == "]" else (group,):
            forbid(
                name not in _CIPHERS,
                f"{path}.cipher_suites[{index}]",
                f"{name!r} {UNSUPPORTED}; supported: {', '.join(sorted(_CIPHERS))}",
            )
            found.append(name)
    return tuple(found)


def _curve(names: Any, path: str) -> str:
    if not names:
        return ""
    forbid(
        len(names) > 1,
        f"{path}.ecdh_curves",
        "Python's ssl can be given one curve only; without any, X25519 and P-256 are preferred",
    )
    forbid(
        names[0] not in _CURVES,
        f"{path}.ecdh_curves[0]",
        f"{names[0]!r} {UNSUPPORTED}; supported: {', '.join(_CURVES)}",
    )
    name: str = names[0]
    return name


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
    return ValidationContext(
        trusted,
        tuple(matchers),
        tuple(
            _digest(value, base64.b64decode, f"{path}.verify_certificate_spki[{n}]", "base64")
            for n, value in enumerate(message.verify_certificate_spki)
        ),
        tuple(
            _digest(value, _from_hex, f"{path}.verify_certificate_hash[{n}]", "hex")
            for n, value in enumerate(message.verify_certificate_hash)
        ),
        data_source(message.crl, f"{path}.crl") if message.HasField("crl") else None,
        message.only_verify_leaf_cert_crl,
        message.allow_expired_certificate,
        wrapped(message, "max_verify_depth", None),
    )


def _from_hex(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _digest(value: str, decode: Callable[[str], bytes], path: str, form: str) -> bytes:
    try:
        digest = decode(value)
    except ValueError:
        digest = b""
    forbid(len(digest) != 32, path, f"is not a SHA-256 digest in {form}")
    return digest


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
    """An ``SdsSecretConfig``: from ADS, from a file, or (without ``sds_config``) a secret that the node itself has."""
    check(message, path, _SDS)
    name = required(message.name, f"{path}.name")
    if not message.HasField("sds_config"):
        return SecretRef(name)
    source, path = message.sds_config, f"{path}.sds_config"
    kind = source.WhichOneof("config_source_specifier")
    if kind not in ("path", "path_config_source"):
        require_ads(source, path)
        return SecretRef(name, from_ads=True)
    check(source, path, _SECRET_SOURCE)
    enum(source, path, "resource_api_version", {"AUTO": None, "V3": None})
    if kind == "path":
        return SecretRef(name, path=required(source.path, f"{path}.path"))
    check(source.path_config_source, f"{path}.{kind}", _PATH_SOURCE)
    return SecretRef(name, path=required(source.path_config_source.path, f"{path}.{kind}.path"))


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
