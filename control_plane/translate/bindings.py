"""Which HTTPRoutes hold for which port of which service, with their backends resolved, and what to say of them.

This module must not make resources, nor know nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from control_plane.api.kinds import HTTPRoute
from control_plane.api.kinds.gateway import BACKENDS, HTTPBackendRef, ParentReference
from control_plane.registry.entry import Entry
from control_plane.registry.service import MeshPort, MeshService
from control_plane.registry.view import View
from control_plane.store.base import Key
from control_plane.translate.names import outbound_cluster
from control_plane.translate.resources import Condition
from control_plane.translate.routes import Backend


@dataclass(frozen=True, slots=True)
class Bound:
    """A route with its backends resolved. Equal when the entry and the resolution are."""

    entry: Entry
    backends: tuple[tuple[Backend, ...], ...]


@dataclass(frozen=True, slots=True)
class Bindings:
    """Routes by (hostname, port), oldest first, and the conditions of every route."""

    routes: Mapping[tuple[str, int], tuple[Bound, ...]]
    conditions: Mapping[Key, tuple[Condition, ...]]

    def of(self, service: MeshService, port: int, client_namespace: str) -> tuple[Bound, ...]:
        """The routes that hold when a client of that namespace calls that port."""
        bound = self.routes.get((service.hostname, port), ())
        consumer = tuple(
            one
            for one in bound
            if one.entry.key.namespace == client_namespace and client_namespace != service.namespace
        )
        return consumer or tuple(one for one in bound if one.entry.key.namespace == service.namespace)


def bind(view: View) -> Bindings:
    """Bind every HTTPRoute of the view."""
    routes: defaultdict[tuple[str, int], list[Bound]] = defaultdict(list)
    conditions: dict[Key, tuple[Condition, ...]] = {}
    for entry in view.routes:
        found: list[Condition] = []
        model: HTTPRoute = entry.model
        problems: list[tuple[str, str]] = []
        backends = tuple(
            tuple(
                _resolve(view, entry, ref, f"spec.rules[{index}].backendRefs[{place}]", problems)
                for place, ref in enumerate(rule.backend_refs)
            )
            for index, rule in enumerate(model.spec.rules_)
        )
        bound = Bound(entry, backends)
        for index, parent in enumerate(model.spec.parent_refs):
            places, refusal = _places(view, entry, parent)
            for place in places:
                if bound not in routes[place]:
                    routes[place].append(bound)
            if refusal:
                found.append(Condition("Accepted", False, "NoMatchingParent", refusal, index))
            else:
                found.append(Condition("Accepted", True, "Accepted", "", index))
        if problems:
            message = "; ".join(message for _, message in problems)
            found.append(Condition("ResolvedRefs", False, problems[0][0], message))
        else:
            found.append(Condition("ResolvedRefs", True, "ResolvedRefs"))
        conditions[entry.key] = tuple(found)
    return Bindings({place: tuple(many) for place, many in routes.items()}, conditions)


def _places(view: View, entry: Entry, parent: ParentReference) -> tuple[list[tuple[str, int]], str]:
    """The (hostname, port) pairs that a parent names, or none and why."""
    namespace = parent.namespace or entry.key.namespace
    services = list(_services(view, parent.group, parent.kind, namespace, parent.name))
    if not services:
        return [], f"there is no {parent.kind} {namespace}/{parent.name}"
    places = [
        (service.hostname, port.number)
        for service in services
        for port in service.ports
        if port.protocol.is_http
        and parent.port in (None, port.number)
        and parent.section_name in (None, port.name)
    ]
    if places:
        return places, ""
    wanted = f" {parent.port or parent.section_name}" if parent.port or parent.section_name else ""
    have = ", ".join(_describe(port) for port in services[0].ports) or "none"
    return [], (
        f"{parent.kind} {namespace}/{parent.name} has no HTTP port{wanted} (ports: {have}); "
        "a port is HTTP by its appProtocol (http, kubernetes.io/h2c, grpc) or its name (http, http2-x, grpc-x)"
    )


def _describe(port: MeshPort) -> str:
    return f"{port.number} {port.name} {port.protocol.value}".replace("  ", " ")


def _services(view: View, group: str, kind: str, namespace: str, name: str) -> Iterator[MeshService]:
    plural = "services" if kind == "Service" else "serviceentries"
    key = Key(group, plural, namespace, name)
    for hostname in view.membership.hostnames.get(key, ()):
        service = view.services.get(hostname)
        if service is not None and service.origin == key:
            yield service


def _resolve(
    view: View, entry: Entry, ref: HTTPBackendRef, field: str, problems: list[tuple[str, str]]
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
    if ref.port is None or service.port(ref.port) is None:
        have = ", ".join(str(port.number) for port in service.ports) or "none"
        return invalid("BackendNotFound", f"{ref.kind} {ref.name} has no TCP port {ref.port} (ports: {have})")
    return Backend(outbound_cluster(ref.port, service.hostname), ref)
