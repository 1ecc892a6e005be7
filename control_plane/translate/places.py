"""Who is reached through which outbound listener, and who cannot be. Pure data; must not make resources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from control_plane.registry.service import AppProtocol, MeshPort, MeshService, Resolution
from control_plane.registry.view import View
from control_plane.store.base import Key
from control_plane.translate.names import host_port

Place = tuple[MeshService, MeshPort]


@dataclass(frozen=True, slots=True)
class Places:
    """HTTP by port, outside TLS by port, TCP by virtual address; and which objects are left out, and why."""

    http: Mapping[int, tuple[Place, ...]]
    tls: Mapping[int, tuple[Place, ...]]
    vips: Mapping[tuple[str, int], Place]
    conflicts: Mapping[Key, str]
    unreachable: Mapping[Key, str]


def ordered_services(view: View) -> tuple[MeshService, ...]:
    """Services before ServiceEntries, older before younger: who comes first has a contested name or address."""
    return tuple(sorted(view.services.values(), key=lambda s: (not s.name, s.created, s.hostname)))


def sort_out(services: Iterable[MeshService]) -> Places:
    """Give every port of every service its place, in the given order of services."""
    http: defaultdict[int, list[Place]] = defaultdict(list)
    tls: defaultdict[int, list[Place]] = defaultdict(list)
    vips: dict[tuple[str, int], Place] = {}
    conflicts: dict[Key, str] = {}
    unreachable: dict[Key, str] = {}
    for service in services:
        for port in service.ports:
            if port.protocol.is_http:
                http[port.number].append((service, port))
                continue
            for address in service.addresses:
                holder = vips.setdefault((address, port.number), (service, port))[0]
                if holder.origin != service.origin:
                    message = f"{host_port(address, port.number)} belongs to {holder.origin} already"
                    conflicts.setdefault(service.origin, message)
            if service.addresses:
                continue
            if port.protocol is AppProtocol.TLS:
                tls[port.number].append((service, port))
            elif service.resolution is not Resolution.PASSTHROUGH:
                field = "spec.clusterIP" if service.name else "spec.addresses"
                unreachable.setdefault(
                    service.origin,
                    f"TCP port {port.number} has no virtual address ({field}): captured connections to it go "
                    "where they were dialled, without mutual TLS",
                )
    return Places(
        {port: tuple(many) for port, many in http.items()},
        {port: tuple(many) for port, many in tls.items()},
        vips,
        conflicts,
        unreachable,
    )


def keys_of(places: Iterable[Place]) -> frozenset[Key]:
    """The objects that declare these places (not their endpoints, on which no listener or route depends)."""
    return frozenset(service.origin for service, _ in places)
