"""A server's side: who may reach the app's ports, in which way, and what is done with their bytes.

Captured traffic comes to ``virtualInbound``, whose chains are chosen by the port that was dialled; without capture
each port has a listener of its own (``inbound_<bind>``). By mode a port has these chains:

=========== ===================== ============================== ========================
mode        mesh TLS              other TLS                      plaintext
=========== ===================== ============================== ========================
STRICT      mutual TLS required   the same: handshake decides    no chain: closed
PERMISSIVE  mutual TLS (by ALPN)  relayed to the app as it is    accepted, without identity
DISABLE     relayed to the app    relayed to the app             accepted, without identity
=========== ===================== ============================== ========================

The node's other ports have the same by the workload's mode, as TCP. The sidecar's own ports lead nowhere.
This module must not look at the store's view.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from control_plane.registry.service import AppProtocol
from control_plane.translate import names
from control_plane.translate.chains import chain, listener, original_dst, tls_inspector
from control_plane.translate.clusters import app_cluster, local_cluster
from control_plane.translate.http import access_log, inbound_http, inbound_routes, tcp_filter
from control_plane.translate.mtls import MtlsMode
from control_plane.translate.node import Node
from control_plane.translate.pack import socket_address, wildcard
from control_plane.translate.policy import http_filters, network_filters
from control_plane.translate.resources import Part
from control_plane.translate.settings import MeshSettings
from control_plane.translate.tls import downstream_tls
from control_plane.translate.workload import ServedPort, Workload

Transport = Literal["", "tls", "raw_buffer"]


class Inbound:
    """Builds the inbound part of one node."""

    __slots__ = ("_log", "_node", "_settings", "_workload")

    def __init__(self, node: Node, workload: Workload, settings: MeshSettings) -> None:
        self._node = node
        self._workload = workload
        self._settings = settings
        self._log = access_log(node.access_log or settings.access_log)

    def build(self) -> Part:
        """Listeners and clusters, with their origins."""
        part = Part()
        if self._node.mode == "REDIRECT":
            self._captured(part)
        else:
            self._explicit(part)
        return part

    def _captured(self, part: Part) -> None:
        node, settings = self._node, self._settings
        own = dict.fromkeys((settings.inbound_port, settings.outbound_port, *settings.own_ports))
        chains = [self._closed(port) for port in own]
        keys = self._workload.keys
        for port in self._workload.ports:
            if port.number in own:
                continue
            name = names.inbound_cluster(port.number)
            part.add(
                names.CLUSTER,
                name,
                app_cluster(name, port.protocol, node.capture_mark, node.ipv6, settings),
                port.keys,
            )
            chains.extend(self._port_chains(port, port.number, None))
            keys |= port.keys
        unknown = names.INBOUND_PASSTHROUGH_CLUSTER
        passthrough = app_cluster(unknown, AppProtocol.TCP, node.capture_mark, node.ipv6, settings)
        part.add(names.CLUSTER, unknown, passthrough)
        chains.extend(
            self._chains(
                "inbound-passthrough", self._workload.mtls.default, None, self._relay(unknown, None), None
            )
        )
        made = listener(names.VIRTUAL_INBOUND, wildcard(node.ipv6, settings.inbound_port), chains, "INBOUND")
        made.listener_filters.extend([original_dst(), tls_inspector()])
        part.add(names.LISTENER, names.VIRTUAL_INBOUND, made, keys)

    def _explicit(self, part: Part) -> None:
        for port in self._workload.ports:
            declared = port.declared
            if declared is None or declared.bind is None or declared.default_endpoint is None:
                continue
            cluster = names.inbound_cluster(port.number)
            mark, settings = self._node.capture_mark, self._settings
            app = local_cluster(cluster, port.protocol, declared.default_endpoint, mark, settings)
            part.add(names.CLUSTER, cluster, app)
            name = f"inbound_{declared.bind}"
            chains = list(self._port_chains(port, None, port.number))
            made = listener(name, socket_address(declared.bind.host, declared.bind.port), chains, "INBOUND")
            made.listener_filters.append(tls_inspector())
            part.add(names.LISTENER, name, made, self._workload.keys | port.keys)

    def _port_chains(self, port: ServedPort, match: int | None, alias: int | None) -> Iterator[Any]:
        """The chains of one app port. ``alias``: what policies call it, where the listener's port is another."""
        cluster = names.inbound_cluster(port.number)
        relay = self._relay(cluster, alias)
        serve = self._serve(port, cluster, alias) if port.protocol.is_http else None
        yield from self._chains(cluster, self._workload.mtls.mode(port.number), match, relay, serve)

    def _chains(
        self, name: str, mode: MtlsMode, port: int | None, relay: list[Any], serve: list[Any] | None
    ) -> Iterator[Any]:
        """``relay``: filters for bytes as they come; ``serve``: those for the app's protocol (default ``relay``)."""
        socket = downstream_tls(self._settings.trust_domain, http=serve is not None)
        serve = serve or relay
        if mode is MtlsMode.STRICT:
            yield chain(f"{name}-mtls", serve, port=port, transport="tls", socket=socket)
            return
        if mode is MtlsMode.PERMISSIVE:
            yield chain(
                f"{name}-mtls", serve, port=port, transport="tls", alpn=names.MESH_ALPN, socket=socket
            )
        yield chain(f"{name}-tls", relay, port=port, transport="tls")
        yield chain(f"{name}-plaintext", serve, port=port, transport="raw_buffer")

    def _serve(self, port: ServedPort, cluster: str, alias: int | None) -> list[Any]:
        policy = http_filters(self._workload.policies, self._settings.trust_domain, alias)
        routes = inbound_routes(cluster, port.number)
        return [inbound_http(f"inbound_0.0.0.0_{port.number}", routes, policy, self._log)]

    def _relay(self, cluster: str, alias: int | None) -> list[Any]:
        policy = network_filters(self._workload.policies, self._settings.trust_domain, "tcp", alias)
        return [*policy, tcp_filter(cluster, cluster, self._log)]

    def _closed(self, port: int) -> Any:
        nowhere = [tcp_filter(names.BLACK_HOLE_CLUSTER, names.BLACK_HOLE_CLUSTER, self._log)]
        return chain(f"virtualInbound-blackhole-{port}", nowhere, port=port)
