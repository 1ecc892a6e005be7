"""What a store is: numbered revisions over JSON objects, read, written and watched.

This module holds the interface and its data. It must not know any database, nor any kind's meaning.
The semantics follow etcd's key-value model (revisions, watch from a revision, compaction) and the
Kubernetes API's use of it (``resourceVersion``, optimistic concurrency).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one object: API group ("" for the core group), plural, namespace, name."""

    group: str
    plural: str
    namespace: str
    name: str

    def __str__(self) -> str:
        kind = f"{self.plural}.{self.group}" if self.group else self.plural
        return f"{kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is stored.

    ``body`` is the whole JSON document; nobody may mutate it. ``revision`` is that of its last change,
    ``created`` that of its creation; ``generation`` counts changes of its ``spec``.
    """

    key: Key
    body: Mapping[str, Any]
    revision: int
    created: int
    generation: int


class EventType(Enum):
    """What happened to an object; the values are those of the Kubernetes watch API."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Event:
    """One change. For ``DELETED`` ``object`` is the last state and ``revision`` the deleting revision."""

    revision: int
    type: EventType
    object: Stored


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace ``key``.

    ``expect``: ``None`` = whatever is there, ``0`` = must not exist, else the exact revision.
    """

    key: Key
    body: Mapping[str, Any]
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete ``key``. ``expect`` as for :class:`Put`.

    Deleting what is absent is a conflict unless ``missing_ok``.
    """

    key: Key
    expect: int | None = None
    missing_ok: bool = False


class Conflict(Exception):
    """A precondition failed: the object has another revision, exists, or does not."""

    def __init__(self, key: Key, expected: int | None, actual: int | None) -> None:
        super().__init__(f"{key}: expected revision {expected}, found {actual}")
        self.key = key
        self.expected = expected
        self.actual = actual


class StoreUnavailable(Exception):
    """The store could not read or write (disk full, database damaged); nothing was changed."""


class Compacted(Exception):
    """The revision asked for is older than what the store still knows; list again and watch from there."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every object at one revision."""

    revision: int
    objects: Mapping[Key, Stored]


@dataclass(frozen=True, slots=True)
class Change:
    """What one revision did to one object; ``before`` or ``after`` is ``None`` where it did not exist."""

    key: Key
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit: its number, who made it, when (seconds since the epoch) and what it changed."""

    number: int
    author: str
    time: float
    changes: Sequence[Change]


class Store(Protocol):
    """Asynchronous, transactional, watchable. All methods raise ``StoreClosed`` after :meth:`close`."""

    async def get(self, key: Key) -> Stored | None: ...

    async def list(
        self, group: str, plural: str, namespace: str | None = None
    ) -> tuple[Sequence[Stored], int]:
        """Objects of one kind in key order and the revision at which they were read."""
        ...

    async def snapshot(self) -> Snapshot: ...

    async def commit(self, changes: Sequence[Put | Delete], *, author: str) -> int:
        """Apply all changes or none, as one new revision, which is returned once it is durable.

        A commit in which nothing differs from what is stored makes no revision and returns the current one.
        Raises :class:`Conflict`.
        """
        ...

    def watch(self, after: int) -> AsyncIterator[Sequence[Event]]:
        """Events with a revision greater than ``after``, in order, grouped by revision; then live.

        Raises :class:`Compacted` (at the first step, or later if the reader falls too far behind).
        """
        ...

    async def close(self) -> None: ...


class History(Protocol):
    """What a store that keeps its revisions can tell of them."""

    async def history(self, *, before: int | None = None, limit: int = 100) -> Sequence[Revision]:
        """Revisions below ``before`` that are still known, newest first, at most ``limit``."""
        ...

    async def revision_at(self, number: int) -> Revision | None:
        """One revision; ``None`` if there is none such yet. Raises :class:`Compacted`."""
        ...


class StoreClosed(Exception):
    """The store was closed."""
