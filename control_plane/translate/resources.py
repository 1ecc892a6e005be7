"""What translate gives: resources by type and name, which objects they come from, and what is wrong with objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from control_plane.store.base import Key
from control_plane.translate.names import TYPE_URLS


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

    def include(self, other: Part) -> None:
        """Add all of ``other``, which stays as it is. Raises :class:`ValueError` for a name that both have."""
        for type_url, named in other.by_type.items():
            mine = self.by_type.setdefault(type_url, {})
            if twice := mine.keys() & named.keys():
                raise ValueError(f"resources {sorted(twice)} of {type_url} are made twice")
            mine.update(named)
        self.origins.update(other.origins)

    def ordered(self) -> Ordered:
        """All that was added, each type ordered by name."""
        return Ordered(
            {
                type_url: MappingProxyType(dict(sorted(self.by_type.get(type_url, {}).items())))
                for type_url in TYPE_URLS
            },
            self.origins,
        )


@dataclass(frozen=True, slots=True)
class Ordered:
    """A finished part; types of which a node has nothing of its own are the same mapping for all nodes."""

    by_type: Mapping[str, Mapping[str, Any]]
    origins: Mapping[tuple[str, str], frozenset[Key]]

    def with_own(self, own: Part, conditions: Mapping[Key, tuple[Condition, ...]]) -> Resources:
        """These and the node's own. Raises :class:`ValueError` for a name that both have."""
        by_type = dict(self.by_type)
        for type_url, named in own.by_type.items():
            shared = by_type[type_url]
            if twice := shared.keys() & named.keys():
                raise ValueError(f"resources {sorted(twice)} of {type_url} are made twice")
            by_type[type_url] = MappingProxyType(dict(sorted({**shared, **named}.items())))
        return Resources(
            MappingProxyType(by_type),
            MappingProxyType({**self.origins, **own.origins}),
            MappingProxyType(dict(conditions)),
        )
