"""What can be said of every object without asking a sidecar: is it accepted, and does what it names exist.

This module must not make resources.
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.api.kinds import EndpointSlice
from control_plane.api.kinds.discovery import SERVICE_NAME_LABEL
from control_plane.registry.service import MeshService, Resolution
from control_plane.registry.view import View
from control_plane.store.base import Key
from control_plane.translate.bindings import Bindings
from control_plane.translate.node import Node
from control_plane.translate.places import Places
from control_plane.translate.resources import Condition

ACCEPTED = Condition("Accepted", True, "Accepted")


def view_conditions(view: View, bindings: Bindings, places: Places) -> Mapping[Key, tuple[Condition, ...]]:
    """The conditions of all objects, the same for every node."""
    found: dict[Key, tuple[Condition, ...]] = dict.fromkeys(view.entries, (ACCEPTED,))
    for key, (_, problems) in view.invalid.items():
        message = "; ".join(str(problem) for problem in problems)
        found[key] = (Condition("Accepted", False, "Invalid", message),)
    for key, entry in view.entries.items():
        if isinstance(entry.model, EndpointSlice):
            found[key] = (ACCEPTED, _slice_refs(view, key, entry.model))
    for key, reason in places.unreachable.items():
        found[key] = (Condition("Accepted", True, "Accepted", reason),)
    for conflicts in (places.conflicts, view.conflicts):
        for key, reason in conflicts.items():
            found[key] = (Condition("Accepted", False, "Conflicted", reason),)
    found.update(bindings.conditions)
    return found


def _slice_refs(view: View, key: Key, model: EndpointSlice) -> Condition:
    name = model.metadata.labels.get(SERVICE_NAME_LABEL)
    if name is None:
        message = f"has no label {SERVICE_NAME_LABEL}: its endpoints belong to no Service"
        return Condition("ResolvedRefs", False, "BackendNotFound", message)
    if Key("", "services", key.namespace, name) not in view.entries:
        message = f"there is no Service {key.namespace}/{name} (label {SERVICE_NAME_LABEL})"
        return Condition("ResolvedRefs", False, "BackendNotFound", message)
    return Condition("ResolvedRefs", True, "ResolvedRefs")


def node_conditions(
    node: Node, services: tuple[MeshService, ...], srv: bool
) -> Mapping[Key, tuple[Condition, ...]]:
    """What this node's data plane cannot do."""
    if srv:
        return {}
    message = f"{node.workload_domain} is an Envoy, which has no clusters of resolution DNS_SRV"
    condition = Condition("Programmed", False, "UnsupportedByDataPlane", message)
    return {s.origin: (condition,) for s in services if s.resolution is Resolution.DNS_SRV}
