"""From objects to services: joins Services with their endpoints, and unfolds ServiceEntries. Pure.

Work is done for the namespaces in which something changed; a service whose sources are the same as before is
the same object as before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType

from control_plane.api.kinds import EndpointSlice, Service, ServiceEntry, WorkloadEntry
from control_plane.api.kinds.discovery import SERVICE_NAME_LABEL
from control_plane.api.kinds.istio_networking import ServicePort
from control_plane.api.kinds.meta import selects
from control_plane.api.kinds.schema import is_ip
from control_plane.registry.endpoints import canonical, endpoint, service_endpoints
from control_plane.registry.entry import Entry
from control_plane.registry.protocol import port_protocol
from control_plane.registry.service import AppProtocol, MeshEndpoint, MeshPort, MeshService, Resolution
from control_plane.store.base import Key

Sources = tuple[tuple[Key, int], ...]

_RESOLUTIONS = {
    "NONE": Resolution.PASSTHROUGH,
    "STATIC": Resolution.EDS,
    "DNS": Resolution.DNS,
    "DNS_SRV": Resolution.DNS_SRV,
}

_PROTOCOLS = {
    "HTTP": AppProtocol.HTTP,
    "HTTP2": AppProtocol.HTTP2,
    "GRPC": AppProtocol.GRPC,
    "HTTPS": AppProtocol.TLS,
    "TLS": AppProtocol.TLS,
}


@dataclass(frozen=True, slots=True)
class Membership:
    """What each namespace declares, and under which hostnames each object does."""

    by_namespace: Mapping[str, tuple[MeshService, ...]] = field(default_factory=dict)
    hostnames: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Declared:
    """All services by hostname, the losers of hostname conflicts, and the membership they come from."""

    services: Mapping[str, MeshService]
    conflicts: Mapping[Key, str]
    membership: Membership


def declared_services(
    entries: Mapping[Key, Entry], changed: Set[str], before: Membership, mesh_domain: str
) -> Declared:
    """The services after something changed in the namespaces ``changed``."""
    groups: dict[str, _Namespace] = {name: _Namespace() for name in changed}
    for entry in entries.values():
        group = groups.get(entry.key.namespace)
        if group is not None:
            group.add(entry)
    by_namespace = dict(before.by_namespace)
    for name, group in groups.items():
        known = {(s.origin, s.hostname): s for s in before.by_namespace.get(name, ())}
        found = tuple(group.declare(mesh_domain, known))
        if found:
            by_namespace[name] = found
        else:
            by_namespace.pop(name, None)
    return _merge(by_namespace)


def _merge(by_namespace: Mapping[str, tuple[MeshService, ...]]) -> Declared:
    # Services come first: a ServiceEntry must not take over the name of a Service.
    ordered = sorted(
        (service for many in by_namespace.values() for service in many),
        key=lambda s: (not s.name, s.created, s.origin),
    )
    services: dict[str, MeshService] = {}
    conflicts: dict[Key, str] = {}
    hostnames: dict[Key, tuple[str, ...]] = {}
    for service in ordered:
        hostnames[service.origin] = (*hostnames.get(service.origin, ()), service.hostname)
        holder = services.setdefault(service.hostname, service)
        if holder is not service and service.origin not in conflicts:
            conflicts[service.origin] = f"host {service.hostname!r} is declared by {holder.origin} already"
    return Declared(
        MappingProxyType(services),
        MappingProxyType(conflicts),
        Membership(MappingProxyType(dict(by_namespace)), MappingProxyType(hostnames)),
    )


class _Namespace:
    """The objects of one namespace, indexed for the join."""

    __slots__ = ("by_address", "by_label", "service_entries", "services", "slices")

    def __init__(self) -> None:
        self.services: list[Entry] = []
        self.service_entries: list[Entry] = []
        self.slices: defaultdict[str, list[Entry]] = defaultdict(list)
        self.by_label: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
        self.by_address: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        model = entry.model
        if isinstance(model, Service):
            self.services.append(entry)
        elif isinstance(model, ServiceEntry):
            self.service_entries.append(entry)
        elif isinstance(model, EndpointSlice):
            self.slices[model.metadata.labels.get(SERVICE_NAME_LABEL, "")].append(entry)
        elif isinstance(model, WorkloadEntry):
            for label in model.spec.labels.items():
                self.by_label[label].append(entry)
            self.by_address[canonical(model.spec.address)] = entry

    def declare(
        self, mesh_domain: str, known: Mapping[tuple[Key, str], MeshService]
    ) -> Iterator[MeshService]:
        for entry in self.services:
            yield self._service(entry, mesh_domain, known)
        for entry in self.service_entries:
            yield from _entry_services(entry, known)

    def _selected(self, selector: Mapping[str, str]) -> list[Entry]:
        if not selector:
            return []  # a Service without a selector has the endpoints that its slices give it
        candidates = min((self.by_label.get(label, []) for label in selector.items()), key=len)
        found = [entry for entry in candidates if selects(selector, entry.model.spec.labels)]
        return sorted(found, key=lambda entry: entry.key)

    def _service(
        self, entry: Entry, mesh_domain: str, known: Mapping[tuple[Key, str], MeshService]
    ) -> MeshService:
        model: Service = entry.model
        name, namespace = entry.key.name, entry.key.namespace
        selected = self._selected(model.spec.selector)
        slices = sorted(self.slices.get(name, ()), key=lambda piece: piece.key)
        # Addresses of slices may be those of workloads that the selector does not find.
        named = {
            canonical(item.addresses[0]): found
            for piece in slices
            for item in piece.model.endpoints
            if (found := self.by_address.get(canonical(item.addresses[0]))) is not None
        }
        used = {e.key: e for e in (entry, *selected, *slices, *named.values())}
        sources = tuple((key, used[key].revision) for key in sorted(used))
        hostname = f"{name}.{namespace}.{mesh_domain}"
        before = known.get((entry.key, hostname))
        if before is not None and before.sources == sources:
            return before
        ports = tuple(
            MeshPort(
                port.port,
                port.name or "",
                port_protocol(port.name, port.app_protocol),
                port.port if port.target_port is None else port.target_port,
            )
            for port in model.spec.ports
            if port.protocol == "TCP"
        )
        workloads = {address: found.model for address, found in named.items()}
        endpoints = tuple(
            service_endpoints(
                port,
                [piece.model for piece in slices],
                [found.model for found in selected],
                workloads,
                not_ready=model.spec.publish_not_ready_addresses,
            )
            for port in ports
        )
        return MeshService(
            hostname=hostname,
            namespace=namespace,
            name=name,
            addresses=model.spec.addresses,
            ports=ports,
            resolution=Resolution.EDS,
            endpoints=endpoints,
            origin=entry.key,
            created=entry.created,
            sources=sources,
        )


def _entry_services(entry: Entry, known: Mapping[tuple[Key, str], MeshService]) -> Iterable[MeshService]:
    model: ServiceEntry = entry.model
    spec = model.spec
    sources: Sources = ((entry.key, entry.revision),)
    resolution = _RESOLUTIONS[spec.resolution]
    srv_name = spec.endpoints[0].address if spec.resolution == "DNS_SRV" and spec.endpoints else ""
    ports = tuple(
        MeshPort(p.number, p.name, _entry_protocol(p), p.target_port or p.number) for p in spec.ports
    )
    for host in spec.hosts:
        hostname = host.lower().rstrip(".")
        before = known.get((entry.key, hostname))
        if before is not None and before.sources == sources:
            yield before
            continue
        yield MeshService(
            hostname=hostname,
            namespace=entry.key.namespace,
            name="",
            addresses=tuple(canonical(address) for address in spec.addresses),
            ports=ports,
            resolution=resolution,
            endpoints=tuple(_entry_endpoints(model, hostname, port) for port in ports),
            origin=entry.key,
            created=entry.created,
            sources=sources,
            srv_name=srv_name,
        )


def _entry_endpoints(model: ServiceEntry, hostname: str, port: MeshPort) -> tuple[MeshEndpoint, ...]:
    """STATIC: the listed addresses. DNS: the listed names, or the host itself. Else what was said of the target."""
    namespace = model.metadata.namespace
    target = int(port.target)
    if model.spec.resolution == "DNS" and not model.spec.endpoints:
        return (MeshEndpoint(hostname, target, target, namespace),)
    found: dict[tuple[str, int], MeshEndpoint] = {}
    for spec in model.spec.endpoints:
        number = spec.ports.get(port.name, target)
        address = canonical(spec.address) if is_ip(spec.address) else spec.address.lower().rstrip(".")
        found.setdefault((address, number), endpoint(spec, namespace, address, number, number))
    return tuple(found[place] for place in sorted(found))


def _entry_protocol(port: ServicePort) -> AppProtocol:
    return _PROTOCOLS.get(port.protocol, AppProtocol.TCP)
