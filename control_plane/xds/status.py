"""What an object's status says, from translate's conditions and from what sidecars accepted.

Nothing of it is stored: it is worked out when somebody reads it. ``Programmed`` counts the connected sidecars
that have a resource made of the object, and of them those that accepted its present version. This module must
not know streams or the store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from control_plane.store.base import Key, Stored
from control_plane.translate.resources import Condition
from control_plane.xds.resource_types import short_name
from control_plane.xds.session import Acked, Nacked, Response
from control_plane.xds.snapshot import Snapshot

CONTROLLER = "mesh.tulle.io/control-plane"
PROGRAMMED = "Programmed"
_ROUTES_GROUP = "gateway.networking.k8s.io"
_SHOWN_ERROR = 512
_SHOWN_NODES = 3

ResourceId = tuple[str, str]
"""Type URL and resource name."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``version`` of a resource was refused. ``named``: the error names the resource, or names none."""

    version: str
    error: str
    named: bool


@dataclass(slots=True, eq=False)
class NodeStatus:
    """What one stream is to have, has and has refused. ``variant`` is ``delta`` or ``sotw``."""

    node_id: str
    identity: str
    variant: str
    user_agent: str
    connected_at: float
    snapshot: Snapshot | None = None
    origins: Mapping[ResourceId, Iterable[Key]] = field(default_factory=dict)
    conditions: Mapping[Key, tuple[Condition, ...]] = field(default_factory=dict)
    accepted: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: dict[ResourceId, Refusal] = field(default_factory=dict)
    last_error: dict[str, str] = field(default_factory=dict)
    acked_versions: dict[str, str] = field(default_factory=dict)
    _by_key: dict[Key, list[ResourceId]] | None = None

    def made_of(self, key: Key) -> list[ResourceId]:
        """The node's resources that come from ``key``."""
        if self._by_key is None:
            found: dict[Key, list[ResourceId]] = {}
            for resource, keys in self.origins.items():
                for one in keys:
                    found.setdefault(one, []).append(resource)
            self._by_key = found
        return self._by_key.get(key, [])

    def configure(
        self,
        snapshot: Snapshot,
        origins: Mapping[ResourceId, Iterable[Key]],
        conditions: Mapping[Key, tuple[Condition, ...]],
    ) -> None:
        self.snapshot, self.origins, self.conditions = snapshot, origins, conditions
        self._by_key = None

    def acked(self, response: Response) -> None:
        accepted = self.accepted.setdefault(response.type_url, {})
        accepted |= response.resources
        for name in response.removed:
            accepted.pop(name, None)
        for name in (*response.resources, *response.removed):
            self.refused.pop((response.type_url, name), None)
        self.acked_versions[response.type_url] = response.version
        self.last_error.pop(response.type_url, None)

    def nacked(self, response: Response, error: str) -> None:
        """A response may be refused for one resource in it: if the error names some, those are to blame."""
        to_blame = {name for name in response.resources if _mentions(error, name)}
        for name, version in response.resources.items():
            named = not to_blame or name in to_blame
            self.refused[response.type_url, name] = Refusal(version, error, named)
        self.last_error[response.type_url] = error

    def state_of(self, resource: ResourceId) -> Refusal | bool:
        """``True``: its present version is accepted; ``False``: not yet; or the refusal of that version."""
        type_url, name = resource
        encoded = self.snapshot.of(type_url).resources.get(name) if self.snapshot is not None else None
        if encoded is None:
            return True
        if self.accepted.get(type_url, {}).get(name) == encoded.version:
            return True
        refusal = self.refused.get(resource)
        return refusal if refusal is not None and refusal.version == encoded.version else False


class StatusBoard:
    """Implements the API's ``StatusProvider``. ``clock`` gives Unix seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._objects: dict[Key, tuple[int, Mapping[str, Any]]] = {}
        self._conditions: Mapping[Key, tuple[Condition, ...]] = {}
        self._transitions: dict[tuple[Key, int | None, str], tuple[str, float]] = {}
        self._changed_at = clock()
        self.nodes: dict[object, NodeStatus] = {}
        """By stream; the key is whatever the pusher knows a stream by."""

    # -- what the pusher tells

    def observe(self, objects: Iterable[Stored]) -> None:
        """``objects`` are part of the view from now on."""
        for stored in objects:
            self._objects[stored.key] = (stored.generation, stored.body)
        self._changed_at = self._clock()

    def forget(self, keys: Iterable[Key]) -> None:
        gone = set(keys)
        for key in gone:
            self._objects.pop(key, None)
        for known in [known for known in self._transitions if known[0] in gone]:
            del self._transitions[known]

    def replace(self, objects: Iterable[Stored]) -> None:
        """``objects`` are the whole view."""
        kept = {stored.key: stored for stored in objects}
        self.forget([key for key in self._objects if key not in kept])
        self.observe(kept.values())

    def judge(self, conditions: Mapping[Key, tuple[Condition, ...]]) -> None:
        """What translate says of all objects, without a node."""
        self._conditions = conditions

    def connect(self, stream: object, node: NodeStatus) -> None:
        self.nodes[stream] = node
        self._changed_at = self._clock()

    def disconnect(self, stream: object) -> None:
        self.nodes.pop(stream, None)
        self._changed_at = self._clock()

    def verdict(self, stream: object, action: Acked | Nacked) -> None:
        node = self.nodes.get(stream)
        if node is None:
            return
        self._changed_at = self._clock()
        if isinstance(action, Acked):
            node.acked(action.response)
        else:
            node.nacked(action.response, action.error)

    # -- what the API asks

    def conditions(self, key: Key, generation: int) -> dict[str, Any]:
        """The object's ``status``: ``{"conditions": [...]}``, or ``{"parents": [...]}`` for routes; {} if unknown."""
        known = self._objects.get(key)
        if known is None:
            return {}
        seen, body = known
        shown: list[Condition | _Shown] = [*self._conditions.get(key, ())]
        shown.append(self._programmed(key, generation, seen))
        if key.group != _ROUTES_GROUP:
            return {"conditions": [self._show(key, None, seen, one) for one in shown]}
        parents = body.get("spec", {}).get("parentRefs") or []
        return {
            "parents": [
                {
                    "parentRef": dict(parent),
                    "controllerName": CONTROLLER,
                    "conditions": [
                        self._show(key, number, seen, one) for one in shown if one.parent in (None, number)
                    ],
                }
                for number, parent in enumerate(parents)
            ]
        }

    def _programmed(self, key: Key, generation: int, seen: int) -> _Shown:
        if generation > seen:
            return _Shown(PROGRAMMED, "Unknown", "Pending", f"generation {generation} is not pushed yet")
        total = accepted = 0
        refusals: list[str] = []
        for node in self.nodes.values():
            resources = node.made_of(key)
            unable = [
                one.message
                for one in node.conditions.get(key, ())
                if one.type == PROGRAMMED and not one.status
            ]
            if not resources and not unable:
                continue
            total += 1
            problem = "; ".join(unable) or _refusal(node, resources)
            if problem:
                refusals.append(f"{node.node_id}: {problem}")
            elif all(node.state_of(one) is True for one in resources):
                accepted += 1
        if total == 0:
            return _Shown(PROGRAMMED, "Unknown", "NoSidecars", "no connected sidecar uses it")
        count = f"{accepted}/{total} sidecars"
        if refusals:
            told = "; ".join(refusals[:_SHOWN_NODES])
            more = f"; and {len(refusals) - _SHOWN_NODES} more" if len(refusals) > _SHOWN_NODES else ""
            return _Shown(PROGRAMMED, "False", "Rejected", f"{count}; {told}{more}")
        if accepted < total:
            return _Shown(PROGRAMMED, "False", "Pending", count)
        return _Shown(PROGRAMMED, "True", PROGRAMMED, count)

    def _show(self, key: Key, parent: int | None, seen: int, one: Condition | _Shown) -> dict[str, Any]:
        status = one.status if isinstance(one, _Shown) else str(one.status)
        known = self._transitions.get((key, parent, one.type))
        if known is None or known[0] != status:
            known = self._transitions[key, parent, one.type] = (status, self._changed_at)
        return {
            "type": one.type,
            "status": status,
            "reason": one.reason,
            "message": one.message,
            "observedGeneration": seen,
            "lastTransitionTime": datetime.fromtimestamp(int(known[1]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@dataclass(frozen=True, slots=True)
class _Shown:
    """A condition whose status may be unknown."""

    type: str
    status: str
    reason: str
    message: str
    parent: int | None = None


def _refusal(node: NodeStatus, resources: Iterable[ResourceId]) -> str:
    """In words, why ``node`` does not use one of ``resources``; empty if it did not refuse any."""
    beside = ""
    for type_url, name in resources:
        state = node.state_of((type_url, name))
        if isinstance(state, Refusal):
            what = f"{short_name(type_url)} {name}"
            error = state.error[:_SHOWN_ERROR]
            if state.named:
                return f"refused {what}: {error}"
            beside = beside or f"did not accept {what}, sent together with what it refused: {error}"
    return beside


def _mentions(text: str, name: str) -> bool:
    """Whether ``name`` stands in ``text`` and not as a part of a longer name."""
    return re.search(rf"(?<![\w|./-]){re.escape(name)}(?![\w|/-]|\.\w)", text) is not None
