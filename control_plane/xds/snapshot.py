"""What one node is to have at one moment: immutable, and made of resources that all nodes share.

:class:`Encoder` serialises a message once, however many nodes and responses it goes into. A resource's
version is a hash of its content, so that a restarted control plane gives the same versions again and an
unchanged resource is never sent twice. This module must not know streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from control_plane.xds import wire
from control_plane.xds.resource_types import CLUSTER, name_field, short_name

_REMEMBERED_DIFFERENCES = 8
_HASH_BYTES = 12
_EDS = 3  # envoy.config.cluster.v3.Cluster.DiscoveryType.EDS


class SnapshotError(ValueError):
    """Resources do not make a snapshot: one has no name, or another than it goes by."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class EncodedResource:
    """One resource, ready to be joined into responses of both variants. Equal by identity: it is shared.

    ``assignment``: for a cluster of type EDS, the name of its load assignment; else empty.
    """

    name: str
    version: str
    sotw: bytes
    delta: bytes
    assignment: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Names that are new or have another version, and names that are gone."""

    changed: frozenset[str]
    removed: frozenset[str]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class TypeSnapshot:
    """All resources of one type. ``version`` is a hash of the names and versions in it.

    ``assignments``: the names of the load assignments that the clusters in it have.
    """

    version: str
    resources: Mapping[str, EncodedResource]
    assignments: frozenset[str] = frozenset()
    _differences: dict[str, Difference] = field(default_factory=dict, repr=False)

    def since(self, older: TypeSnapshot) -> Difference:
        """What changed from ``older`` to this. Remembered, as many streams ask for the same step."""
        if older is self:
            return _NO_DIFFERENCE
        known = self._differences.get(older.version)
        if known is None:
            before = older.resources
            changed = frozenset(
                name
                for name, resource in self.resources.items()
                if (was := before.get(name)) is not resource
                and (was is None or was.version != resource.version)
            )
            known = Difference(changed, frozenset(before.keys() - self.resources.keys()))
            while len(self._differences) >= _REMEMBERED_DIFFERENCES:
                del self._differences[next(iter(self._differences))]
            self._differences[older.version] = known
        return known


_NO_DIFFERENCE = Difference(frozenset(), frozenset())
EMPTY_TYPE = TypeSnapshot("", {})


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One node's resources by type URL. ``revision`` is the store's revision that they were made from."""

    revision: int
    types: Mapping[str, TypeSnapshot]

    def of(self, type_url: str) -> TypeSnapshot:
        return self.types.get(type_url, EMPTY_TYPE)


class Encoder:
    """Turns messages into shared :class:`EncodedResource` and :class:`TypeSnapshot` objects.

    A message that was handed in must not be changed afterwards: it is recognised by identity first, by
    content second. Recognition by identity lasts until the second :meth:`turn` without use; by content, for
    as long as some snapshot holds the resource.
    """

    __slots__ = ("_by_content", "_lists", "_older_lists", "_recent", "_seen", "_types", "encoded")

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, EncodedResource]] = {}
        self._recent: dict[int, tuple[Any, EncodedResource]] = {}
        self._by_content: WeakValueDictionary[tuple[str, str, str], EncodedResource] = WeakValueDictionary()
        # Resources are shared and compare by identity, so that nodes with the same list find the same object.
        self._types: WeakValueDictionary[tuple[str, tuple[EncodedResource, ...]], TypeSnapshot] = (
            WeakValueDictionary()
        )
        self._lists: dict[int, tuple[Mapping[str, Any], TypeSnapshot]] = {}
        self._older_lists: dict[int, tuple[Mapping[str, Any], TypeSnapshot]] = {}
        self.encoded = 0
        """How many resources were put together from their bytes so far."""

    def encode(self, type_url: str, message: Any) -> EncodedResource:
        """``message`` as a shared resource. Raises :class:`SnapshotError` when it has no name."""
        identity = id(message)
        entry = self._recent.get(identity) or self._seen.get(identity)
        if entry is None or entry[0] is not message:
            entry = (message, self._encode(type_url, message))
        self._recent[identity] = entry
        return entry[1]

    def turn(self) -> None:
        """A round of translation is over: forget messages that this round and the one before did not use."""
        self._seen, self._recent = self._recent, {}
        self._older_lists, self._lists = self._lists, {}

    def snapshot(self, revision: int, by_type: Mapping[str, Mapping[str, Any]]) -> Snapshot:
        """A node's snapshot of messages by type URL and name. Neither mapping may be changed afterwards.

        Raises :class:`SnapshotError` for a message that has another name than that, or none.
        """
        return Snapshot(revision, {url: self._all(url, named) for url, named in by_type.items()})

    def _all(self, type_url: str, named: Mapping[str, Any]) -> TypeSnapshot:
        """Types of which a node has nothing of its own come as the same mapping for every node."""
        identity = id(named)
        entry = self._lists.get(identity) or self._older_lists.get(identity)
        if entry is None or entry[0] is not named:
            encoded = tuple(self.encode(type_url, message) for message in named.values())
            for name, resource in zip(named, encoded, strict=True):
                if name != resource.name:
                    raise SnapshotError(f"{short_name(type_url)} {name!r} calls itself {resource.name!r}")
            entry = (named, self._type(type_url, encoded))
            # An empty mapping belongs to no type.
            if not named:
                return entry[1]
        self._lists[identity] = entry
        return entry[1]

    def _encode(self, type_url: str, message: Any) -> EncodedResource:
        name = getattr(message, name_field(type_url))
        if not name:
            raise SnapshotError(f"a {short_name(type_url)} resource has an empty '{name_field(type_url)}'")
        value: bytes = message.SerializeToString(deterministic=True)
        version = _digest((value,))
        key = (type_url, name, version)
        known = self._by_content.get(key)
        if known is None:
            packed = wire.any_message(type_url, value)
            known = EncodedResource(
                name,
                version,
                wire.sotw_resource(packed),
                wire.delta_resource(name, version, packed),
                _assignment(message) if type_url == CLUSTER else "",
            )
            self._by_content[key] = known
            self.encoded += 1
        return known

    def _type(self, type_url: str, resources: tuple[EncodedResource, ...]) -> TypeSnapshot:
        if not resources:
            return EMPTY_TYPE
        known = self._types.get((type_url, resources))
        if known is None:
            known = self._types[type_url, resources] = self._new_type(type_url, resources)
        return known

    def _new_type(self, type_url: str, resources: tuple[EncodedResource, ...]) -> TypeSnapshot:
        by_name = {resource.name: resource for resource in resources}
        # No name and no version holds a NUL, so that two lists cannot run together to the same text.
        parts = (f"{name}\0{by_name[name].version}\0".encode() for name in sorted(by_name))
        assignments = frozenset(one.assignment for one in resources if one.assignment)
        return TypeSnapshot(_digest(parts), by_name, assignments)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _assignment(cluster: Any) -> str:
    if cluster.type != _EDS:
        return ""
    return str(cluster.eds_cluster_config.service_name or cluster.name)
