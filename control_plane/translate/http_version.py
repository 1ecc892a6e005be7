"""Which version of HTTP a sidecar speaks upstream: the one place where that is decided.

Ports that are declared HTTP/2 or gRPC are spoken to in HTTP/2: in plaintext with prior knowledge, between sidecars
by ALPN. All other HTTP of services is HTTP/1.1, whatever the client spoke, which is ``DO_NOT_UPGRADE`` in the words
of Istio's ``h2UpgradePolicy``. Hosts that the mesh does not know hear what their client speaks. This module must not
know who has a sidecar.
"""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from control_plane.registry.service import AppProtocol
from control_plane.translate.pack import packed

PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def http2_to_service(protocol: AppProtocol) -> bool:
    """Whether a client's sidecar speaks HTTP/2 to the endpoints of a port, with or without a sidecar there."""
    return protocol.is_http2


def http2_to_app(protocol: AppProtocol) -> bool:
    """Whether a server's sidecar speaks HTTP/2 to its own app."""
    return protocol.is_http2


def speak_http2(cluster: Any) -> None:
    """Make ``cluster`` speak HTTP/2 and nothing else. One that is not asked speaks HTTP/1.1."""
    explicit = HttpProtocolOptions.ExplicitHttpConfig(
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions()
    )
    _set(cluster, HttpProtocolOptions(explicit_http_config=explicit))


def speak_as_client(cluster: Any) -> None:
    """Make ``cluster`` speak the version that the request came in."""
    both = HttpProtocolOptions.UseDownstreamHttpConfig(
        http_protocol_options=protocol_pb2.Http1ProtocolOptions(),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(),
    )
    _set(cluster, HttpProtocolOptions(use_downstream_protocol_config=both))


def _set(cluster: Any, options: HttpProtocolOptions) -> None:
    cluster.typed_extension_protocol_options[PROTOCOL_OPTIONS].CopyFrom(packed(options))
