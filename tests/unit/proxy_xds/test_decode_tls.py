"""TLS settings: what each field becomes, and what is refused where."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf import any_pb2, json_format

from proxy.model.config import ConfigError
from proxy.model.matcher import StringMatcher
from proxy.model.tls import DataSource, SanMatcher, SecretRef
from proxy.xds.decode import tls

CERTIFICATE = {"certificate_chain": {"inline_string": "c"}, "private_key": {"filename": "/k"}}
ADS = {"ads": {}, "resource_api_version": "V3"}
AT = "x.typed_config"


def socket_of(kind: Any, config: dict[str, Any]) -> Any:
    message = json_format.ParseDict(config, kind())
    packed = any_pb2.Any()
    packed.Pack(message)
    return base_pb2.TransportSocket(name="tls", typed_config=packed)


def downstream(common: dict[str, Any] | None = None, **options: Any) -> Any:
    made = {"tls_certificates": [CERTIFICATE], **(common or {})}
    config = {"common_tls_context": made, **options}
    return tls.downstream(socket_of(tls_pb2.DownstreamTlsContext, config), "x")


def upstream(common: dict[str, Any] | None = None, **options: Any) -> Any:
    config = {"common_tls_context": common or {}, **options}
    return tls.upstream(socket_of(tls_pb2.UpstreamTlsContext, config), "x")


def rules(**validation: Any) -> Any:
    return downstream({"validation_context": validation}).common.validation


def test_defaults() -> None:
    found = downstream()
    assert not found.require_client_certificate and not found.require_sni and found.session_tickets
    assert not found.full_scan_certs_on_sni_mismatch and not found.prefer_client_ciphers
    assert (found.session_timeout, found.common.cipher_suites, found.common.ecdh_curve) == (0, (), "")
    assert (found.common.tls_minimum, found.common.tls_maximum) == ("TLSv1_2", "TLSv1_3")
    other = upstream()
    assert (other.common.tls_minimum, other.common.tls_maximum) == ("TLSv1_2", "TLSv1_2")
    assert other.max_session_keys is None and not other.allow_renegotiation
    assert not other.auto_host_sni and not other.auto_sni_san_validation


def test_what_a_listener_can_say() -> None:
    found = downstream(
        {
            "tls_params": {
                "cipher_suites": [
                    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
                    "ECDHE-RSA-AES256-GCM-SHA384",
                ],
                "ecdh_curves": ["P-384"],
            },
            "tls_certificates": [CERTIFICATE, CERTIFICATE],
        },
        require_client_certificate=True,
        require_sni=True,
        disable_stateless_session_resumption=True,
        session_timeout="90.7s",
        full_scan_certs_on_sni_mismatch=True,
        prefer_client_ciphers=True,
        ocsp_staple_policy="LENIENT_STAPLING",
    )
    assert found.require_client_certificate and found.require_sni and not found.session_tickets
    assert found.full_scan_certs_on_sni_mismatch and found.prefer_client_ciphers
    assert found.session_timeout == 90 and found.common.ecdh_curve == "P-384"
    assert found.common.cipher_suites == (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES256-GCM-SHA384",
    )
    assert len(found.common.certificates) == 2
    assert found.common.certificates[0].private_key == DataSource(filename="/k")


def test_what_a_cluster_can_say() -> None:
    found = upstream(
        {"tls_certificates": [CERTIFICATE]},
        sni="a",
        auto_host_sni=True,
        auto_sni_san_validation=True,
        allow_renegotiation=True,
        max_session_keys=0,
    )
    assert (found.sni, found.max_session_keys) == ("a", 0)
    assert found.auto_host_sni and found.auto_sni_san_validation and found.allow_renegotiation


def test_what_is_asked_of_peers() -> None:
    digest = bytes(range(32))
    found = rules(
        trusted_ca={"filename": "/ca", "watched_directory": {"path": "/"}},
        watched_directory={"path": "/"},
        crl={"inline_string": "list"},
        only_verify_leaf_cert_crl=True,
        allow_expired_certificate=True,
        max_verify_depth=3,
        verify_certificate_hash=[digest.hex(), digest.hex(":").upper()],
        verify_certificate_spki=[base64.b64encode(digest).decode()],
        match_typed_subject_alt_names=[
            {"san_type": kind, "matcher": {"exact": "a"}} for kind in ("URI", "DNS", "EMAIL", "IP_ADDRESS")
        ],
    )
    assert found.trusted_ca == DataSource(filename="/ca") and found.crl == DataSource(inline=b"list")
    assert found.only_verify_leaf_cert_crl and found.allow_expired_certificate and found.max_verify_depth == 3
    assert found.verify_certificate_hash == (digest, digest) and found.verify_certificate_spki == (digest,)
    kinds = [one.san_type for one in found.match_typed_subject_alt_names]
    assert kinds == ["URI", "DNS", "EMAIL", "IP_ADDRESS"]
    assert found.match_typed_subject_alt_names[0] == SanMatcher("URI", StringMatcher("exact", "a"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, SecretRef("s")),
        (ADS, SecretRef("s", from_ads=True)),
        ({"path": "/f"}, SecretRef("s", path="/f")),
        ({"path_config_source": {"path": "/f"}}, SecretRef("s", path="/f")),
        (
            {
                "path_config_source": {"path": "/f", "watched_directory": {"path": "/"}},
                "resource_api_version": "V3",
                "initial_fetch_timeout": "1s",
            },
            SecretRef("s", path="/f"),
        ),
    ],
)
def test_where_secrets_come_from(source: Any, expected: SecretRef) -> None:
    config = {"name": "s"} | ({} if source is None else {"sds_config": source})
    found = downstream({"tls_certificates": [], "tls_certificate_sds_secret_configs": [config]})
    assert found.common.certificate_secrets == (expected,)


COMMON = f"{AT}.common_tls_context"
PARAMETERS = f"{COMMON}.tls_params"
RULES = f"{COMMON}.validation_context"
SDS = f"{COMMON}.tls_certificate_sds_secret_configs[0]"


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda: downstream({"tls_params": {"cipher_suites": ["NULL"]}}), f"{PARAMETERS}.cipher_suites[0]"),
        (
            lambda: downstream({"tls_params": {"cipher_suites": ["AES128-SHA", "[AES256-SHA|RC4]"]}}),
            f"{PARAMETERS}.cipher_suites[1]",
        ),
        (
            lambda: downstream({"tls_params": {"cipher_suites": ["TLS_AES_128_GCM_SHA256"]}}),
            f"{PARAMETERS}.cipher_suites[0]",
        ),
        (lambda: downstream({"tls_params": {"ecdh_curves": ["X25519", "P-256"]}}), f"{PARAMETERS}.ecdh_curves"),
        (lambda: downstream({"tls_params": {"ecdh_curves": ["P-224"]}}), f"{PARAMETERS}.ecdh_curves[0]"),
        (
            lambda: downstream({"tls_params": {"signature_algorithms": ["ed25519"]}}),
            f"{PARAMETERS}.signature_algorithms",
        ),
        (
            lambda: downstream({"tls_params": {"compliance_policies": ["FIPS_202205"]}}),
            f"{PARAMETERS}.compliance_policies",
        ),
        (lambda: downstream(ocsp_staple_policy="MUST_STAPLE"), f"{AT}.ocsp_staple_policy"),
        (lambda: downstream(session_ticket_keys={"keys": []}), f"{AT}.session_ticket_keys"),
        (
            lambda: downstream(disable_stateful_session_resumption=True),
            f"{AT}.disable_stateful_session_resumption",
        ),
        (lambda: downstream(session_timeout="-1s"), f"{AT}.session_timeout"),
        (lambda: rules(trust_chain_verification="ACCEPT_UNTRUSTED"), f"{RULES}.trust_chain_verification"),
        (lambda: rules(verify_certificate_hash=["00"]), f"{RULES}.verify_certificate_hash[0]"),
        (lambda: rules(verify_certificate_hash=["zz" * 32]), f"{RULES}.verify_certificate_hash[0]"),
        (lambda: rules(verify_certificate_spki=["00" * 32]), f"{RULES}.verify_certificate_spki[0]"),
        (lambda: rules(crl={"inline_string": ""}), f"{RULES}.crl.inline_string"),
        (lambda: rules(system_root_certs={}), f"{RULES}.system_root_certs"),
        (
            lambda: rules(match_typed_subject_alt_names=[{"san_type": "OTHER_NAME", "matcher": {"exact": "a"}}]),
            f"{RULES}.match_typed_subject_alt_names[0].san_type",
        ),
        (lambda: upstream({"tls_certificates": [CERTIFICATE, CERTIFICATE]}), COMMON),
        (lambda: upstream(sni="a" * 256), f"{AT}.sni"),
        (
            lambda: downstream(
                {
                    "tls_certificates": [],
                    "tls_certificate_sds_secret_configs": [
                        {"name": "s", "sds_config": {"api_config_source": {"api_type": "GRPC"}}}
                    ],
                }
            ),
            f"{SDS}.sds_config.api_config_source",
        ),
        (
            lambda: downstream(
                {
                    "tls_certificates": [],
                    "tls_certificate_sds_secret_configs": [
                        {"name": "s", "sds_config": {"path_config_source": {"watched_directory": {"path": "/"}}}}
                    ],
                }
            ),
            f"{SDS}.sds_config.path_config_source.path",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_path(build: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.path == path
