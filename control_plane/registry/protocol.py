"""Which protocol a port speaks: by ``appProtocol``, else by the port's name as Istio reads it, else TCP.

Only HTTP/1.1 is proxied as HTTP. HTTP/2 and gRPC ports are relayed as TCP (with mutual TLS), until the sidecar
speaks HTTP/2; so a proxy never has to guess from the bytes. This module must not know any kind.
"""

from __future__ import annotations

from control_plane.registry.service import AppProtocol

_HTTP = frozenset({"http", "kubernetes.io/ws", "http1", "http/1.1"})


def port_protocol(name: str | None, app_protocol: str | None) -> AppProtocol:
    """The protocol of a port called ``name`` (``http``, ``http-admin``, ...) with that ``appProtocol``."""
    if app_protocol:
        return AppProtocol.HTTP if app_protocol.lower() in _HTTP else AppProtocol.TCP
    prefix = (name or "").lower().partition("-")[0]
    return AppProtocol.HTTP if prefix in _HTTP else AppProtocol.TCP
