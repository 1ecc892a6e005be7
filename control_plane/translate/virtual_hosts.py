"""Route configurations of clients: a virtual host for each HTTP port of each service, and one for all else.

This module must not know listeners.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from envoy.config.route.v3 import route_components_pb2, route_pb2

from control_plane.api.kinds import GRPCRoute
from control_plane.registry.service import MeshPort, MeshService, Resolution
from control_plane.translate import names
from control_plane.translate.bindings import Bindings, Bound
from control_plane.translate.cache import Cache
from control_plane.translate.grpc_routes import ranked_grpc_routes
from control_plane.translate.http_routes import ranked_http_routes
from control_plane.translate.pack import boolean
from control_plane.translate.routes import RankedRoute, default_route, direct_response
from control_plane.translate.settings import MeshSettings


class VirtualHosts:
    """Makes the virtual hosts of one view for clients of any namespace."""

    __slots__ = ("_bindings", "_cache", "_settings")

    def __init__(self, bindings: Bindings, settings: MeshSettings, cache: Cache) -> None:
        self._bindings = bindings
        self._settings = settings
        self._cache = cache

    def bound(self, service: MeshService, port: int, namespace: str) -> tuple[Bound, ...]:
        """The HTTPRoutes or the GRPCRoutes in that virtual host."""
        return self._bindings.of(service, port, namespace)

    def routes(self, service: MeshService, port: int, namespace: str) -> list[Any]:
        """The routes to one port of a service, most specific first."""
        bound = self.bound(service, port, namespace)
        attempts = self._settings.retry_attempts
        if not bound:
            declared = service.port(port)
            grpc = declared is not None and declared.protocol.is_http2
            return [default_route(names.outbound_cluster(port, service.hostname), attempts, grpc=grpc)]
        ranked = [route for one in bound for route in self._ranked(one, attempts)]
        return [one.route for one in sorted(ranked, key=lambda item: item.rank)]

    def _ranked(self, bound: Bound, attempts: int) -> tuple[RankedRoute, ...]:
        ranked = ranked_grpc_routes if isinstance(bound.entry.model, GRPCRoute) else ranked_http_routes
        return self._cache.get(
            ("ranked", bound.entry.key),
            (bound, attempts),
            lambda: ranked(bound.entry, bound.backends, attempts),
        )

    def table(self, name: str, hosts: Iterable[Any], last: Any) -> Any:
        """A route configuration. A domain that an earlier host has already is left out of a later one."""
        taken: set[str] = set()
        kept = []
        for host in hosts:
            free = [domain for domain in host.domains if domain not in taken]
            if free:
                taken.update(free)
                if len(free) != len(host.domains):
                    del host.domains[:]
                    host.domains.extend(free)
                kept.append(host)
        return route_pb2.RouteConfiguration(
            name=name, virtual_hosts=[*kept, last], validate_clusters=boolean(False)
        )

    def host(self, service: MeshService, port: MeshPort, namespace: str, *, bare: bool = True) -> Any:
        """The virtual host of one port. ``bare``: hosts without a port mean this one."""
        return route_components_pb2.VirtualHost(
            name=f"{service.hostname}:{port.number}",
            domains=list(domains(service, port.number, namespace, bare=bare)),
            routes=self.routes(service, port.number, namespace),
        )

    def only(self, service: MeshService, port: int, namespace: str) -> Any:
        """A virtual host that leads every request to one service's port."""
        return route_components_pb2.VirtualHost(
            name=f"{service.hostname}:{port}", domains=["*"], routes=self.routes(service, port, namespace)
        )


def domains(service: MeshService, port: int, namespace: str, *, bare: bool) -> Iterator[str]:
    """What a client of that namespace may write in ``Host``."""
    known = [service.hostname]
    if service.name:
        known.append(f"{service.name}.{service.namespace}")
        if service.namespace == namespace:
            known.append(service.name)
    known.extend(f"[{address}]" if ":" in address else address for address in service.addresses)
    for name in known:
        if bare:
            yield name
        yield f"{name}:{port}"


def bare_port(service: MeshService) -> int | None:
    """Which HTTP port a host without a port means to a forward proxy: 80, else the service's first one."""
    numbers = [p.number for p in service.ports if p.protocol.is_http]
    return 80 if 80 in numbers else next(iter(numbers), None)


def allow_any() -> Any:
    """Unknown hosts go where the client dialled."""
    route = default_route(names.PASSTHROUGH_CLUSTER, 0)
    route.name = "allow_any"
    route.route.ClearField("retry_policy")
    return route_components_pb2.VirtualHost(name="allow_any", domains=["*"], routes=[route])


def block_all() -> Any:
    """Unknown hosts are answered 502."""
    return route_components_pb2.VirtualHost(
        name="block_all", domains=["*"], routes=[direct_response("block_all", 502)]
    )


def routable(service: MeshService, *, captured: bool) -> bool:
    """Whether its HTTP can be routed: where nothing was captured nobody knows which address was dialled."""
    return captured or service.resolution is not Resolution.PASSTHROUGH
