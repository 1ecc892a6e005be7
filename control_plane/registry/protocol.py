"""Which protocol a port speaks: by ``appProtocol``, else by the port's name as Istio reads it, else TCP.

What is not declared is TCP, and so is what nobody here knows: a proxy never has to guess from the bytes.
``grpc-web`` counts as gRPC, and nobody translates it. This module must not know any kind.
"""

from __future__ import annotations

from control_plane.registry.service import AppProtocol

_NAMES = {
    "http": AppProtocol.HTTP,
    "http1": AppProtocol.HTTP,
    "http/1.1": AppProtocol.HTTP,
    "http2": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC,
    "grpc-web": AppProtocol.GRPC,
    "https": AppProtocol.TLS,
    "tls": AppProtocol.TLS,
}
"""Istio's names; a port's name may have one of them alone or before a hyphen (``grpc-orders``)."""

_STANDARD = {
    "kubernetes.io/h2c": AppProtocol.HTTP2,
    "kubernetes.io/ws": AppProtocol.HTTP,
    "kubernetes.io/wss": AppProtocol.TLS,
}
"""Kubernetes' own names (KEP-3726), which are for ``appProtocol`` only."""


def port_protocol(name: str | None, app_protocol: str | None) -> AppProtocol:
    """The protocol of a port called ``name`` (``http``, ``grpc-orders``, ...) with that ``appProtocol``."""
    if app_protocol:
        said = app_protocol.lower()
        return _NAMES.get(said) or _STANDARD.get(said, AppProtocol.TCP)
    return _NAMES.get((name or "").lower().partition("-")[0], AppProtocol.TCP)
