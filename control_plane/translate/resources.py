"""What translate gives: resources by type and name, which objects they come from, and what is wrong with objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.store.base import Key


@dataclass(frozen=True, slots=True)
class Condition:
    """One status condition. ``parent`` numbers a route's ``spec.parentRefs``; ``None`` = the object as a whole."""

    type: str
    status: bool
    reason: str
    message: str = ""
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """One node's configuration.

    ``by_type``: type URL -> name -> protobuf message, ordered by name. A message that is the same for several nodes,
    or has not changed since the view before, is the same object; nobody may change it. ``origins``: (type URL, name)
    -> keys of the objects that made the resource. ``conditions`` by object.
    """

    by_type: Mapping[str, Mapping[str, Any]]
    origins: Mapping[tuple[str, str], frozenset[Key]]
    conditions: Mapping[Key, tuple[Condition, ...]]


class Part:
    """Resources under construction: a type-ordered bag with origins. The second of two equal names is a defect."""

    __slots__ = ("by_type", "origins")

    def __init__(self) -> None:
        self.by_type: dict[str, dict[str, Any]] = {}
        self.origins: dict[tuple[str, str], frozenset[Key]] = {}

    def add(self, type_url: str, name: str, message: Any, origins: frozenset[Key] = frozenset()) -> None:
        """Add one resource. Raises :class:`ValueError` if there is one of that name already."""
        named = self.by_type.setdefault(type_url, {})
        if name in named:
            raise ValueError(f"resource {name!r} of {type_url} is made twice")
        named[name] = message
        self.origins[type_url, name] = origins

    def has(self, type_url: str, name: str) -> bool:
        return name in self.by_type.get(type_url, {})
