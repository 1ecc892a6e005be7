"""What a push needs of the registry and of translate, as one small protocol, so that tests can stand in for both.

It must hold no state: a view comes in, a view goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from control_plane.store.base import Event, Key, Snapshot

View = TypeVar("View")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of an object, without what only the status knows (times, observed generation).

    ``parent`` numbers the route's ``spec.parentRefs`` that it is about; ``None`` = all, or not a route.
    """

    type: str
    status: bool
    reason: str
    message: str
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """One node's resources: protobuf messages by type URL, where they come from, and what is wrong with what.

    ``origins``: (type URL, resource name) -> keys of the objects that made the resource what it is.
    """

    resources: Mapping[str, Sequence[Any]]
    origins: Mapping[tuple[str, str], Sequence[Key]] = field(default_factory=dict)
    conditions: Mapping[Key, Sequence[Condition]] = field(default_factory=dict)


class Mesh(Protocol[View]):
    """Registry and translate, joined. All three are pure and raise only for a defect or unusable state."""

    def load(self, snapshot: Snapshot) -> View: ...

    def apply(self, view: View, events: Sequence[Event]) -> View: ...

    def translate(self, view: View, node: Any) -> Translated:
        """``node`` is an ``envoy.config.core.v3.Node``. Raises ``ValueError`` for metadata that it cannot use."""
        ...
