"""Which routes hold for which port of which service, with their backends resolved, and what to say of them.

A route in another namespace than its parent's is a consumer route: it holds for clients of its own namespace, and
replaces the producer's there. Where HTTPRoutes and GRPCRoutes of one namespace are bound to the same port, the
GRPCRoutes hold (GEP-1426). This module must not make resources, nor know nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from control_plane.api.kinds import GRPCRoute
from control_plane.api.kinds.gateway import BACKENDS, BackendRef, ParentReference, RouteRule
from control_plane.registry.entry import Entry
from control_plane.registry.service import AppProtocol, MeshPort, MeshService
from control_plane.registry.view import View
from control_plane.store.base import Key
from control_plane.translate.names import outbound_cluster
from control_plane.translate.resources import Condition
from control_plane.translate.routes import Backend

Port = tuple[str, int]
"""Hostname and number."""

_HTTP = (
    "HTTP",
    "a port is HTTP by its appProtocol (http, kubernetes.io/h2c, grpc) or its name (http, http2-x, grpc-x)",
)
_GRPC = (
    "gRPC",
    "a port has gRPC by its appProtocol (grpc, kubernetes.io/h2c) or its name (grpc, http2-x)",
)


@dataclass(frozen=True, slots=True)
class Bound:
    """A route with its backends resolved. Equal when the entry and the resolution are."""

    entry: Entry
    backends: tuple[tuple[Backend, ...], ...]


@dataclass(frozen=True, slots=True)
class Bindings:
    """Routes by (hostname, port), oldest first, and the conditions of every route."""

    routes: Mapping[Port, tuple[Bound, ...]]
    conditions: Mapping[Key, tuple[Condition, ...]]

    def of(self, service: MeshService, port: int, client_namespace: str) -> tuple[Bound, ...]:
        """The routes that hold when a client of that namespace calls that port: all of one kind."""
        bound = self.routes.get((service.hostname, port), ())
        consumer = tuple(
            one
            for one in bound
            if one.entry.key.namespace == client_namespace and client_namespace != service.namespace
        )
        return consumer or tuple(one for one in bound if one.entry.key.namespace == service.namespace)


def bind(view: View) -> Bindings:
    """Bind every route of the view."""
    routes: defaultdict[Port, list[Bound]] = defaultdict(list)
    conditions: dict[Key, tuple[Condition, ...]] = {}
    parents = {entry.key: _parents(view, entry) for entry in view.routes}
    holders = _grpc_holders(view, parents)
    for entry in view.routes:
        problems: list[tuple[str, str]] = []
        bound = Bound(entry, _backends(view, entry, problems))
        found = []
        for index, (ports, refusal) in enumerate(parents[entry.key]):
            held = {port: holder for port in ports if (holder := holders.get((port, entry.key.namespace)))}
            if isinstance(entry.model, GRPCRoute):
                held = {}
            for port in ports:
                if port not in held and bound not in routes[port]:
                    routes[port].append(bound)
            found.append(_accepted(entry, index, ports, refusal, held))
        if problems:
            message = "; ".join(message for _, message in problems)
            found.append(Condition("ResolvedRefs", False, problems[0][0], message))
        else:
            found.append(Condition("ResolvedRefs", True, "ResolvedRefs"))
        conditions[entry.key] = tuple(found)
    return Bindings({port: tuple(many) for port, many in routes.items()}, conditions)


def _parents(view: View, entry: Entry) -> tuple[tuple[list[Port], str], ...]:
    return tuple(_ports(view, entry, parent) for parent in entry.model.spec.parent_refs)


def _grpc_holders(
    view: View, parents: Mapping[Key, tuple[tuple[list[Port], str], ...]]
) -> dict[tuple[Port, str], Key]:
    """The oldest GRPCRoute of each namespace that is bound to a port."""
    found: dict[tuple[Port, str], Key] = {}
    for entry in view.routes:
        if isinstance(entry.model, GRPCRoute):
            for ports, _ in parents[entry.key]:
                for port in ports:
                    found.setdefault((port, entry.key.namespace), entry.key)
    return found


def _accepted(
    entry: Entry, parent: int, ports: list[Port], refusal: str, held: Mapping[Port, Key]
) -> Condition:
    if refusal:
        return Condition("Accepted", False, "NoMatchingParent", refusal, parent)
    message = "; ".join(
        f"port {number} of {hostname} is bound to GRPCRoute {key.namespace}/{key.name}, which HTTPRoutes yield to"
        for (hostname, number), key in held.items()
    )
    if len(held) == len(ports):
        return Condition("Accepted", False, "Conflicted", message, parent)
    if isinstance(entry.model, GRPCRoute) and entry.model.spec.hostnames:
        message = "hostnames have no effect: a route bound to a Service has the Service's names"
    return Condition("Accepted", True, "Accepted", message, parent)


def _ports(view: View, entry: Entry, parent: ParentReference) -> tuple[list[Port], str]:
    """The ports that a parent names and that the route can hold for, or none and why."""
    namespace = parent.namespace or entry.key.namespace
    services = list(_services(view, parent.group, parent.kind, namespace, parent.name))
    if not services:
        return [], f"there is no {parent.kind} {namespace}/{parent.name}"
    ports = [
        (service.hostname, port.number)
        for service in services
        for port in service.ports
        if _fits(entry, port.protocol)
        and parent.port in (None, port.number)
        and parent.section_name in (None, port.name)
    ]
    if ports:
        return ports, ""
    what, how = _GRPC if isinstance(entry.model, GRPCRoute) else _HTTP
    wanted = f" {parent.port or parent.section_name}" if parent.port or parent.section_name else ""
    have = ", ".join(_describe(port) for port in services[0].ports) or "none"
    return [], (f"{parent.kind} {namespace}/{parent.name} has no {what} port{wanted} (ports: {have}); {how}")


def _fits(entry: Entry, protocol: AppProtocol) -> bool:
    return protocol.is_http2 if isinstance(entry.model, GRPCRoute) else protocol.is_http


def _describe(port: MeshPort) -> str:
    return f"{port.number} {port.name} {port.protocol.value}".replace("  ", " ")


def _services(view: View, group: str, kind: str, namespace: str, name: str) -> Iterator[MeshService]:
    plural = "services" if kind == "Service" else "serviceentries"
    key = Key(group, plural, namespace, name)
    for hostname in view.membership.hostnames.get(key, ()):
        service = view.services.get(hostname)
        if service is not None and service.origin == key:
            yield service


def _backends(view: View, entry: Entry, problems: list[tuple[str, str]]) -> tuple[tuple[Backend, ...], ...]:
    rules: tuple[RouteRule, ...] = entry.model.spec.rules_
    return tuple(
        tuple(
            _resolve(view, entry, ref, f"spec.rules[{index}].backendRefs[{place}]", problems)
            for place, ref in enumerate(rule.backend_refs)
        )
        for index, rule in enumerate(rules)
    )


def _resolve(
    view: View, entry: Entry, ref: BackendRef, field: str, problems: list[tuple[str, str]]
) -> Backend:
    def invalid(reason: str, message: str) -> Backend:
        problems.append((reason, f"{field}: {message}"))
        return Backend(None, ref)

    if (ref.group, ref.kind) not in BACKENDS:
        return invalid("InvalidKind", f"{ref.kind!r} of group {ref.group!r} cannot be a backend")
    namespace = ref.namespace or entry.key.namespace
    if ref.kind == "Hostname":
        service = view.services.get(ref.name.lower())
    elif namespace != entry.key.namespace:
        message = f"{ref.kind} {namespace}/{ref.name} is in another namespace, which needs a ReferenceGrant"
        return invalid("RefNotPermitted", message)
    else:
        service = next(_services(view, ref.group, ref.kind, namespace, ref.name), None)
    if service is None:
        what = ref.name if ref.kind == "Hostname" else f"{namespace}/{ref.name}"
        return invalid("BackendNotFound", f"there is no {ref.kind} {what}")
    port = service.port(ref.port) if ref.port is not None else None
    if port is None:
        have = ", ".join(str(port.number) for port in service.ports) or "none"
        return invalid("BackendNotFound", f"{ref.kind} {ref.name} has no TCP port {ref.port} (ports: {have})")
    if isinstance(entry.model, GRPCRoute) and not port.protocol.is_http2:
        message = f"port {_describe(port)} of {ref.kind} {ref.name} does not take gRPC; {_GRPC[1]}"
        return invalid("UnsupportedProtocol", message)
    return Backend(outbound_cluster(port.number, service.hostname), ref)
