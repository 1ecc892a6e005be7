"""A node as a server: its ports, the mutual TLS mode of each, and the policies that hold for it.

This module must not make resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.api.kinds import Service
from control_plane.api.kinds.meta import selects
from control_plane.registry.entry import Entry
from control_plane.registry.service import AppProtocol, MeshService
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
    protocol: AppProtocol
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


def workload_of(
    view: View, node: Node, selectors: Selectors, mtls: MtlsPolicies, settings: MeshSettings
) -> Workload:
    """What ``node`` serves: the ports that it names, and where it is captured those of the Services that select it."""
    ports = {
        port.number: ServedPort(port.number, AppProtocol(port.protocol), declared=port)
        for port in node.inbound
    }
    if node.mode == "REDIRECT":
        for number, protocol, key in _selecting(selectors, node):
            known = ports.get(number)
            if known is None:
                ports[number] = ServedPort(number, protocol, frozenset((key,)))
            else:
                ports[number] = ServedPort(number, known.protocol, known.keys | {key}, known.declared)
    return Workload(
        tuple(ports[number] for number in sorted(ports)),
        mtls.workload(node.namespace, node.labels),
        applicable(view.authorization_policies, node.namespace, node.labels, settings.root_namespace),
    )


class Selectors:
    """The Services with a selector, found by one of its labels."""

    __slots__ = ("_by_label",)

    def __init__(self, view: View) -> None:
        self._by_label: dict[tuple[str, str, str], list[tuple[Mapping[str, str], MeshService]]] = {}
        for namespace, services in view.membership.by_namespace.items():
            for service in services:
                model = view.entries[service.origin].model
                if isinstance(model, Service) and model.spec.selector:
                    label = (namespace, *min(model.spec.selector.items()))
                    self._by_label.setdefault(label, []).append((model.spec.selector, service))

    def services(self, namespace: str, labels: Mapping[str, str]) -> list[MeshService]:
        """The Services that select a workload with these labels, oldest first."""
        found = [
            service
            for label in labels.items()
            for selector, service in self._by_label.get((namespace, *label), ())
            if selects(selector, labels)
        ]
        return sorted(found, key=lambda service: (service.created, service.name))


def _selecting(selectors: Selectors, node: Node) -> list[tuple[int, AppProtocol, Key]]:
    """(workload port, protocol, Service) of each port of the Services that select the node, oldest first."""
    named = {port.name: port.number for port in node.inbound if port.name}
    found = []
    for service in selectors.services(node.namespace, node.labels):
        for port in service.ports:
            number = named.get(port.target) if isinstance(port.target, str) else port.target
            if number is not None:
                found.append((number, port.protocol, service.origin))
    return found
