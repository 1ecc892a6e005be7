"""The WorkloadEntry of a connected sidecar: what is written, whose it is, and which ones nobody owns any more. Pure.

An entry that we wrote has the label ``mesh.tulle.io/managed-by: xds`` and, as annotations, the node that it stands
for and the owner that keeps it (one control plane's stream, say). Entries without the label are a user's: they are
never written over nor collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from control_plane.api.kinds import Problem, validate
from control_plane.registry.endpoints import TLS_MODE, TLS_MODE_LABEL
from control_plane.store.base import Key, Stored
from control_plane.translate.node import Node

GROUP = "networking.istio.io"
PLURAL = "workloadentries"
MANAGED_BY_LABEL = "mesh.tulle.io/managed-by"
MANAGED_BY = "xds"
NODE_ANNOTATION = "mesh.tulle.io/node-id"
OWNER_ANNOTATION = "mesh.tulle.io/owner"


def entry_key(node: Node) -> Key:
    """Where the node's entry is."""
    return Key(GROUP, PLURAL, node.namespace, node.name)


def entry_body(node: Node, owner: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The entry of ``node``, or ``None`` when it serves nothing (no labels, no address), and what admission says.

    Without capture ``ports`` says where the sidecar listens for each of the app's ports, by the port's name and by
    its number, so that a Service finds it by either.
    """
    if not node.labels or not node.addresses:
        return None, []
    spec: dict[str, Any] = {
        "address": node.addresses[0],
        "labels": {**node.labels, TLS_MODE_LABEL: TLS_MODE},
        "serviceAccount": node.service_account,
    }
    ports: dict[str, int] = {}
    for port in node.inbound:
        if port.bind is not None:
            ports[str(port.number)] = port.bind.port
            if port.name:
                ports[port.name] = port.bind.port
    if ports:
        spec["ports"] = dict(sorted(ports.items()))
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": node.name,
            "namespace": node.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY},
            "annotations": {NODE_ANNOTATION: node.id, OWNER_ANNOTATION: owner},
        },
        "spec": spec,
    }
    _, problems = validate(body)
    return (None, problems) if problems else (body, [])


def is_managed(body: Mapping[str, Any]) -> bool:
    """Whether we wrote this entry."""
    return _metadata(body, "labels").get(MANAGED_BY_LABEL) == MANAGED_BY


def owner_of(body: Mapping[str, Any]) -> str | None:
    """Who keeps a managed entry."""
    owner = _metadata(body, "annotations").get(OWNER_ANNOTATION)
    return owner if is_managed(body) and isinstance(owner, str) else None


def node_of(body: Mapping[str, Any]) -> str | None:
    """The id of the node that a managed entry stands for."""
    node_id = _metadata(body, "annotations").get(NODE_ANNOTATION)
    return node_id if is_managed(body) and isinstance(node_id, str) else None


def may_write(existing: Mapping[str, Any] | None) -> bool:
    """Whether a node's entry may take this object's place: there is none, or it is one of ours."""
    return existing is None or is_managed(existing)


def same_workload(existing: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether only the owner differs, so that endpoints do not change when a stream is re-adopted."""
    return bool(existing.get("spec") == body.get("spec")) and node_of(existing) == node_of(body)


def stale(objects: Iterable[Stored], is_live: Callable[[str, str], bool]) -> tuple[Stored, ...]:
    """Managed entries whose node is not live; ``is_live`` is asked with the node's id and the owner."""
    return tuple(
        one
        for one in objects
        if (one.key.group, one.key.plural) == (GROUP, PLURAL)
        and is_managed(one.body)
        and not is_live(node_of(one.body) or "", owner_of(one.body) or "")
    )


def _metadata(body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = body.get("metadata", {}).get(field)
    return value if isinstance(value, Mapping) else {}
