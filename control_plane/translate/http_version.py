"""Which version of HTTP a sidecar speaks upstream: the one place where that is decided.

Ports that are declared HTTP/2 or gRPC are spoken to in HTTP/2: in plaintext with prior knowledge, between sidecars
by ALPN. All other HTTP of services is HTTP/1.1, whatever the client spoke; with Istio's ``h2UpgradePolicy`` UPGRADE it
is HTTP/2 on the way between sidecars. Hosts that the mesh does not know hear what their client speaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from control_plane.registry.service import AppProtocol, MeshEndpoint
from control_plane.translate.pack import packed
from control_plane.translate.settings import H2UpgradePolicy

HTTP2_OPTIONS = protocol_pb2.Http2ProtocolOptions(allow_connect=True)
"""Of both sides: upgrades (WebSocket) pass as extended CONNECT (RFC 8441)."""
PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def http2_to_service(
    protocol: AppProtocol, endpoints: Iterable[MeshEndpoint], policy: H2UpgradePolicy
) -> bool:
    """Whether a client's sidecar speaks HTTP/2 to the endpoints of a port, with or without a sidecar there.

    HTTP/1.1 is upgraded where all of them have one: an app understands what its own sidecar makes of it.
    """
    if protocol is AppProtocol.HTTP and policy == "UPGRADE":
        sidecars = [endpoint.sidecar for endpoint in endpoints]
        return bool(sidecars) and all(sidecars)
    return protocol.is_http2


def http2_to_app(protocol: AppProtocol) -> bool:
    """Whether a server's sidecar speaks HTTP/2 to its own app."""
    return protocol.is_http2


def speak_http2(cluster: Any) -> None:
    """Make ``cluster`` speak HTTP/2 and nothing else. One that is not asked speaks HTTP/1.1."""
    explicit = HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=HTTP2_OPTIONS)
    _set(cluster, HttpProtocolOptions(explicit_http_config=explicit))


def speak_as_client(cluster: Any) -> None:
    """Make ``cluster`` speak the version that the request came in."""
    both = HttpProtocolOptions.UseDownstreamHttpConfig(
        http_protocol_options=protocol_pb2.Http1ProtocolOptions(),
        http2_protocol_options=HTTP2_OPTIONS,
    )
    _set(cluster, HttpProtocolOptions(use_downstream_protocol_config=both))


def _set(cluster: Any, options: HttpProtocolOptions) -> None:
    cluster.typed_extension_protocol_options[PROTOCOL_OPTIONS].CopyFrom(packed(options))
