"""A client's side without capture: one HTTP listener for every service, and one for each service named in EGRESS.

``egress_http`` routes by ``Host``, absolute-form too, so it serves as an ``http_proxy``; hosts that the mesh does not
know are answered 502, as nobody knows where they were meant to go. This module must not know inbound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.registry.service import MeshService
from control_plane.translate import names
from control_plane.translate.bindings import Bound
from control_plane.translate.cache import Cache
from control_plane.translate.chains import chain, listener
from control_plane.translate.client import Client
from control_plane.translate.http import access_log, outbound_http, tcp_filter
from control_plane.translate.node import Egress, HostPort, Node
from control_plane.translate.pack import socket_address
from control_plane.translate.places import Place, Places, keys_of
from control_plane.translate.resources import Part
from control_plane.translate.upstreams import usable
from control_plane.translate.virtual_hosts import VirtualHosts, bare_port, block_all


class ExplicitOutbound:
    """Builds the outbound listeners of one node without capture."""

    __slots__ = ("_cache", "_client", "_hosts", "_log", "_places")

    def __init__(self, client: Client, places: Places, hosts: VirtualHosts, cache: Cache) -> None:
        self._client = client
        self._places = places
        self._hosts = hosts
        self._cache = cache
        self._log = access_log(client.access_log)

    def add_to(self, part: Part, node: Node, services: Mapping[str, MeshService]) -> None:
        """Add the node's listeners and their routes; ``services`` by hostname."""
        if node.outbound_bind is not None:
            self._add_http(part, node.outbound_bind)
        for egress in node.egress:
            self._add_egress(part, egress, services.get(egress.host))

    def _http_places(self) -> tuple[Place, ...]:
        return tuple(
            (service, port)
            for _, places in sorted(self._places.http.items())
            for service, port in places
            if usable(service, self._client)
        )

    def _add_http(self, part: Part, bind: HostPort) -> None:
        name, namespace = names.EGRESS_HTTP, self._client.namespace
        places = self._http_places()
        bound = self._bound(places)

        def build() -> Any:
            hosts = (
                self._hosts.host(service, port, namespace, bare=bare_port(service) == port.number)
                for service, port in places
            )
            return self._hosts.table(name, hosts, block_all())

        known = tuple((s.hostname, s.addresses, p.number, p.protocol, bare_port(s)) for s, p in places)
        inputs = (known, bound)
        table = self._cache.get((name, namespace), inputs, build)
        part.add(names.ROUTES, name, table, keys_of(places) | _route_keys(bound))
        manager = outbound_http(f"outbound_{name}", name, self._log)
        made = listener(name, socket_address(bind.host, bind.port), [chain(name, [manager])], "OUTBOUND")
        part.add(names.LISTENER, name, made)

    def _add_egress(self, part: Part, egress: Egress, service: MeshService | None) -> None:
        name = f"egress_{egress.bind}"
        cluster = names.outbound_cluster(egress.port, egress.host)
        port = service.port(egress.port) if service is not None else None
        # Until the service is declared its connections are closed, for want of the cluster.
        filters = [tcp_filter(cluster, cluster, self._log)]
        keys = frozenset((service.origin,)) if service is not None else frozenset()
        if service is not None and port is not None and port.protocol.is_http:
            filters = [outbound_http(f"outbound_{name}", name, self._log)]
            bound = self._bound(((service, port),))
            only = self._hosts.only(service, port.number, self._client.namespace)
            part.add(names.ROUTES, name, self._hosts.table(name, (), only), keys | _route_keys(bound))
        address = socket_address(egress.bind.host, egress.bind.port)
        part.add(names.LISTENER, name, listener(name, address, [chain(name, filters)], "OUTBOUND"), keys)

    def _bound(self, places: tuple[Place, ...]) -> tuple[tuple[Bound, ...], ...]:
        return tuple(self._hosts.bound(s, p.number, self._client.namespace) for s, p in places)


def _route_keys(bound: tuple[tuple[Bound, ...], ...]) -> frozenset[Any]:
    return frozenset(one.entry.key for many in bound for one in many)
