"""Listeners, filter chains and listener filters as the other modules put them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from control_plane.translate.pack import packed, uint32


def listener(
    name: str, address: Any, chains: Sequence[Any], direction: Literal["INBOUND", "OUTBOUND"]
) -> Any:
    return listener_pb2.Listener(
        name=name, address=address, filter_chains=chains, traffic_direction=direction
    )


def chain(
    name: str,
    filters: Sequence[Any],
    *,
    port: int | None = None,
    transport: Literal["", "tls", "raw_buffer"] = "",
    alpn: str = "",
    server_name: str = "",
    socket: Any = None,
) -> Any:
    """A filter chain; what is not given matches everything. ``socket`` is its transport socket."""
    made = listener_components_pb2.FilterChain(name=name, filters=filters)
    if port or transport or alpn or server_name:
        made.filter_chain_match.CopyFrom(
            listener_components_pb2.FilterChainMatch(
                destination_port=uint32(port) if port else None,
                transport_protocol=transport,
                application_protocols=[alpn] if alpn else [],
                server_names=[server_name] if server_name else [],
            )
        )
    if socket is not None:
        made.transport_socket.CopyFrom(socket)
    return made


def original_dst() -> Any:
    """The listener filter that restores the address which was dialled."""
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_dst", typed_config=packed(original_dst_pb2.OriginalDst())
    )


def tls_inspector() -> Any:
    """The listener filter that tells TLS from plaintext and reads the server name and ALPN."""
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=packed(tls_inspector_pb2.TlsInspector())
    )
