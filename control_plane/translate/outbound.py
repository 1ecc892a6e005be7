"""A client's side of captured traffic: listeners by port and virtual address, and their routes.

* ``virtualOutbound`` takes everything and hands it to the listener of the address that was dialled;
* ``0.0.0.0_<port>`` has the HTTP of every service with that port, and TLS to outside hosts by server name;
* ``<address>_<port>`` has the TCP of one service.

What nobody matches goes where it was dialled, or nowhere (``REGISTRY_ONLY``). This module must not know nodes, but
their :class:`~control_plane.translate.client.Client` class, so that all of a class share its result.
"""

from __future__ import annotations

from typing import Any

from control_plane.translate import names
from control_plane.translate.cache import Cache
from control_plane.translate.chains import chain, listener, tls_inspector
from control_plane.translate.client import Client
from control_plane.translate.http import access_log, outbound_http, tcp_filter
from control_plane.translate.pack import boolean, socket_address, wildcard
from control_plane.translate.places import Place, Places, keys_of
from control_plane.translate.resources import Part
from control_plane.translate.settings import MeshSettings
from control_plane.translate.virtual_hosts import VirtualHosts, allow_any, block_all


class CapturedOutbound:
    """Builds the listeners and routes of captured outbound traffic for one client class."""

    __slots__ = ("_cache", "_client", "_hosts", "_log", "_places", "_settings", "_unknown")

    def __init__(
        self, client: Client, places: Places, hosts: VirtualHosts, settings: MeshSettings, cache: Cache
    ) -> None:
        self._client = client
        self._places = places
        self._hosts = hosts
        self._settings = settings
        self._cache = cache
        self._log = access_log(client.access_log)
        allow = settings.outbound_policy == "ALLOW_ANY"
        self._unknown = names.PASSTHROUGH_CLUSTER if allow else names.BLACK_HOLE_CLUSTER

    def add_to(self, part: Part) -> None:
        """Add everything to ``part``."""
        main = self._cache.get(("virtual outbound", self._client), (), self._virtual_outbound)
        part.add(names.LISTENER, names.VIRTUAL_OUTBOUND, main)
        for number in sorted({*self._places.http, *self._places.tls}):
            self._add_wildcard(part, number)
        for (address, number), place in sorted(self._places.vips.items(), key=lambda item: item[0]):
            self._add_vip(part, address, number, place)

    def _add_wildcard(self, part: Part, number: int) -> None:
        places, outside = self._places.http.get(number, ()), self._places.tls.get(number, ())
        name = names.wildcard_listener(number)
        made = self._cache.get(
            ("wildcard", number, self._client),
            (bool(places), tuple(service.hostname for service, _ in outside)),
            lambda: self._wildcard(number, outside, http=bool(places)),
        )
        part.add(names.LISTENER, name, made, keys_of((*places, *outside)))
        if places:
            self._add_routes(part, number, places)

    def _add_routes(self, part: Part, number: int, places: tuple[Place, ...]) -> None:
        namespace = self._client.namespace
        bound = tuple(self._hosts.bound(service, number, namespace) for service, _ in places)

        def build() -> Any:
            hosts = (self._hosts.host(service, port, namespace) for service, port in places)
            last = allow_any() if self._unknown == names.PASSTHROUGH_CLUSTER else block_all()
            return self._hosts.table(str(number), hosts, last)

        table = self._cache.get(
            ("routes", number, namespace),
            (tuple((s.hostname, s.addresses, port.protocol) for s, port in places), bound),
            build,
        )
        routes = frozenset(one.entry.key for many in bound for one in many)
        part.add(names.ROUTES, str(number), table, keys_of(places) | routes)

    def _add_vip(self, part: Part, address: str, number: int, place: Place) -> None:
        service, port = place
        name = names.vip_listener(address, number)
        cluster = names.outbound_cluster(port.number, service.hostname)

        def build() -> Any:
            chains = [chain(name, [tcp_filter(cluster, cluster, self._log)])]
            made = listener(name, socket_address(address, number), chains, "OUTBOUND")
            made.bind_to_port.CopyFrom(boolean(False))
            return made

        made = self._cache.get(("vip", name, self._client), (cluster,), build)
        part.add(names.LISTENER, name, made, frozenset((service.origin,)))

    def _virtual_outbound(self) -> Any:
        # A connection to the sidecar's own port would be handed to itself for ever.
        own = self._settings.outbound_port
        loop = chain(
            "virtualOutbound-blackhole",
            [tcp_filter(names.BLACK_HOLE_CLUSTER, names.BLACK_HOLE_CLUSTER, self._log)],
            port=own,
        )
        made = listener(names.VIRTUAL_OUTBOUND, wildcard(self._client.ipv6, own), [loop], "OUTBOUND")
        made.use_original_dst.CopyFrom(boolean(True))
        made.default_filter_chain.CopyFrom(self._unknown_chain())
        return made

    def _unknown_chain(self) -> Any:
        return chain(f"outbound-{self._unknown}", [tcp_filter(self._unknown, self._unknown, self._log)])

    def _wildcard(self, number: int, outside: tuple[Place, ...], *, http: bool) -> Any:
        name = names.wildcard_listener(number)
        chains = []
        for service, port in outside:
            cluster = names.outbound_cluster(port.number, service.hostname)
            relay = [tcp_filter(cluster, cluster, self._log)]
            chains.append(chain(service.hostname, relay, transport="tls", server_name=service.hostname))
        if http:
            manager = outbound_http(f"outbound_{name}", str(number), self._log)
            chains.append(chain(name, [manager], transport="raw_buffer" if outside else ""))
        made = listener(name, wildcard(self._client.ipv6, number), chains, "OUTBOUND")
        made.bind_to_port.CopyFrom(boolean(False))
        if outside:
            made.listener_filters.append(tls_inspector())
            made.default_filter_chain.CopyFrom(self._unknown_chain())
        return made
