"""Mutual TLS between sidecars: both contexts, and the secret with the trust roots.

The own certificate is the node's static secret ``default``; roots come over ADS. Peers are matched on their URI
SAN alone. This module must not decide who talks TLS.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from control_plane.translate.names import MESH_ALPN, OWN_SECRET, ROOT_SECRET
from control_plane.translate.pack import ADS, boolean, packed


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def exact(value: str) -> Any:
    return string_pb2.StringMatcher(exact=value)


def prefix(value: str) -> Any:
    return string_pb2.StringMatcher(prefix=value)


def upstream_tls(matchers: Iterable[Any], sni: str, *, http2: bool = False) -> Any:
    """The transport socket of a client: its own certificate, and a peer whose URI SAN one of ``matchers`` matches.

    ``http2``: it speaks HTTP/2, and says so.
    """
    alpn = [MESH_ALPN, "h2"] if http2 else [MESH_ALPN]
    context = tls_pb2.UpstreamTlsContext(common_tls_context=_common(matchers, alpn), sni=sni)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def downstream_tls(trust_domain: str, *, http: bool = False) -> Any:
    """The transport socket of a server: clients need a certificate of the mesh's trust domain.

    ``http``: an HTTP connection manager serves it, in the version that is agreed on. A server prefers its own order:
    a client which offers HTTP/2 gets it, and one that offers the mesh's name alone speaks HTTP/1.1.
    """
    alpn = ["h2", "http/1.1", MESH_ALPN] if http else [MESH_ALPN]
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context=_common([prefix(f"spiffe://{trust_domain}/")], alpn),
        require_client_certificate=boolean(True),
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def raw_buffer() -> Any:
    """The transport socket that adds nothing."""
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=packed(raw_buffer_pb2.RawBuffer())
    )


def root_secret(bundle: bytes) -> Any:
    """The secret ``ROOTCA``: the PEM roots that peers' certificates must lead to."""
    return secret_pb2.Secret(
        name=ROOT_SECRET,
        validation_context=common_pb2.CertificateValidationContext(
            trusted_ca=base_pb2.DataSource(inline_bytes=bundle)
        ),
    )


def _common(matchers: Iterable[Any], alpn: Iterable[str]) -> Any:
    return tls_pb2.CommonTlsContext(
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version="TLSv1_2", tls_maximum_protocol_version="TLSv1_3"
        ),
        alpn_protocols=alpn,
        tls_certificate_sds_secret_configs=[secret_pb2.SdsSecretConfig(name=OWN_SECRET)],
        combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=common_pb2.CertificateValidationContext(
                match_typed_subject_alt_names=[
                    common_pb2.SubjectAltNameMatcher(san_type="URI", matcher=matcher) for matcher in matchers
                ]
            ),
            validation_context_sds_secret_config=secret_pb2.SdsSecretConfig(name=ROOT_SECRET, sds_config=ADS),
        ),
    )
