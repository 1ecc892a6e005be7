"""Transport sockets of clusters with the PROXY protocol around (``extensions.transport_sockets.proxy_protocol.v3``)."""

from __future__ import annotations

from typing import Any, Literal

from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2

from proxy.model.tls import UpstreamTls
from proxy.xds.decode import tls
from proxy.xds.decode.fields import check, enum, forbid, known, unpack

_TRANSPORT_SOCKET = known("typed_config", without_effect={"name": "is a label; the type URL decides"})
_UPSTREAM = known("config", "transport_socket")
_CONFIG = known("version")
_VERSIONS: dict[str, Literal[1, 2]] = {"V1": 1, "V2": 2}


def transport_socket(message: Any, path: str) -> tuple[UpstreamTls | None, Literal[0, 1, 2]]:
    """The TLS settings inside, if any, and the version of the header that goes first (0 = none)."""
    kind = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport
    if not message.typed_config.Is(kind.DESCRIPTOR):
        return tls.upstream(message, path), 0
    check(message, path, _TRANSPORT_SOCKET)
    path = f"{path}.typed_config"
    outer = unpack(message.typed_config, path, (kind,))
    check(outer, path, _UPSTREAM)
    check(outer.config, f"{path}.config", _CONFIG)
    forbid(not outer.HasField("transport_socket"), f"{path}.transport_socket", "is required")
    version = enum(outer.config, f"{path}.config", "version", _VERSIONS)
    return tls.upstream(outer.transport_socket, f"{path}.transport_socket"), version
