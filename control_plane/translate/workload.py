"""A node as a server: its ports, the mutual TLS mode of each, and the policies that hold for it.

This module must not make resources.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.api.kinds import Service
from control_plane.api.kinds.meta import selects
from control_plane.registry.entry import Entry
from control_plane.registry.service import AppProtocol
from control_plane.registry.view import View
from control_plane.store.base import Key
from control_plane.translate.mtls import MtlsPolicies, WorkloadMtls
from control_plane.translate.node import InboundPort, Node
from control_plane.translate.policy import applicable
from control_plane.translate.settings import MeshSettings


@dataclass(frozen=True, slots=True)
class ServedPort:
    """A port of the app. ``declared`` is the node's own word for it, where it said one."""

    number: int
    http: bool
    keys: frozenset[Key] = frozenset()
    declared: InboundPort | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """All that inbound configuration depends on of the mesh. Compares by content, entries by identity."""

    ports: tuple[ServedPort, ...]
    mtls: WorkloadMtls
    policies: tuple[Entry, ...]

    @property
    def keys(self) -> frozenset[Key]:
        """The objects behind mutual TLS and policy."""
        return self.mtls.keys | {entry.key for entry in self.policies}


def workload_of(view: View, node: Node, mtls: MtlsPolicies, settings: MeshSettings) -> Workload:
    """What ``node`` serves: the ports that it names, and where it is captured those of the Services that select it."""
    ports = {
        port.number: ServedPort(port.number, port.protocol == "HTTP", declared=port) for port in node.inbound
    }
    if node.mode == "REDIRECT":
        for number, http, key in _selecting(view, node):
            known = ports.get(number)
            if known is None:
                ports[number] = ServedPort(number, http, frozenset((key,)))
            else:
                ports[number] = ServedPort(number, known.http, known.keys | {key}, known.declared)
    return Workload(
        tuple(ports[number] for number in sorted(ports)),
        mtls.workload(node.namespace, node.labels),
        applicable(view.authorization_policies, node.namespace, node.labels, settings.root_namespace),
    )


def _selecting(view: View, node: Node) -> list[tuple[int, bool, Key]]:
    """(workload port, HTTP, Service) of each port of the Services whose selector finds the node, oldest first."""
    named = {port.name: port.number for port in node.inbound if port.name}
    found = []
    services = sorted(view.membership.by_namespace.get(node.namespace, ()), key=lambda s: s.created)
    for service in services:
        model = view.entries[service.origin].model
        if not isinstance(model, Service) or not model.spec.selector:
            continue
        if not selects(model.spec.selector, node.labels):
            continue
        for port in service.ports:
            number = named.get(port.target) if isinstance(port.target, str) else port.target
            if number is not None:
                found.append((number, port.protocol is AppProtocol.HTTP, service.origin))
    return found
