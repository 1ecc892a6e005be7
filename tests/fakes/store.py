"""An in-memory store with the semantics of :class:`control_plane.store.base.Store`: nothing is durable."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from control_plane.store.base import (
    Compacted,
    Conflict,
    Delete,
    Event,
    EventType,
    Key,
    Put,
    Snapshot,
    Store,
    StoreClosed,
    Stored,
)


class FakeStore:
    """Every commit yields to the event loop once before it looks, so that tests can make races."""

    def __init__(self) -> None:
        self.revision = 0
        self.objects: dict[Key, Stored] = {}
        self.authors: list[str] = []
        self.compacted = 0
        self._history: list[list[Event]] = []
        self._changed = asyncio.Condition()
        self._closed = False

    async def get(self, key: Key) -> Stored | None:
        self._check()
        return self.objects.get(key)

    async def list(
        self, group: str, plural: str, namespace: str | None = None
    ) -> tuple[Sequence[Stored], int]:
        self._check()
        found = [
            self.objects[key]
            for key in sorted(self.objects)
            if (key.group, key.plural) == (group, plural) and namespace in (None, key.namespace)
        ]
        return found, self.revision

    async def snapshot(self) -> Snapshot:
        self._check()
        return Snapshot(self.revision, dict(self.objects))

    async def commit(self, changes: Sequence[Put | Delete], *, author: str) -> int:
        await asyncio.sleep(0)
        self._check()
        keys = [change.key for change in changes]
        if len(set(keys)) < len(keys):
            raise ValueError("a key is named twice in one commit")
        for change in changes:
            self._expect(change)
        revision = self.revision + 1
        after = dict(self.objects)
        events = []
        for change in changes:
            event = _applied(after, change, revision)
            if event is not None:
                events.append(event)
        if events:
            self.revision, self.objects = revision, after
            self.authors.append(author)
            async with self._changed:
                self._history.append(events)
                self._changed.notify_all()
        return self.revision

    async def watch(self, after: int) -> AsyncIterator[Sequence[Event]]:
        self._check()
        if after < self.compacted:
            raise Compacted(f"revision {after} is compacted")
        position = 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._closed or len(self._history) > position)  # noqa: B023
            if self._closed:
                raise StoreClosed("closed")
            while position < len(self._history):
                events = self._history[position]
                position += 1
                if events[0].revision > after:
                    yield events

    async def close(self) -> None:
        self._closed = True
        async with self._changed:
            self._changed.notify_all()

    def _check(self) -> None:
        if self._closed:
            raise StoreClosed("closed")

    def _expect(self, change: Put | Delete) -> None:
        stored = self.objects.get(change.key)
        actual = 0 if stored is None else stored.revision
        absent_ok = isinstance(change, Put) or change.missing_ok
        if (change.expect is not None and change.expect != actual) or (stored is None and not absent_ok):
            raise Conflict(change.key, change.expect, actual or None)


def _applied(objects: dict[Key, Stored], change: Put | Delete, revision: int) -> Event | None:
    stored = objects.get(change.key)
    if isinstance(change, Put):
        # As a real store does, cut the tie to the caller's document.
        change = Put(change.key, copy.deepcopy(change.body))
    if isinstance(change, Delete):
        if stored is None:
            return None
        del objects[change.key]
        return Event(revision, EventType.DELETED, stored)
    if stored is None:
        fresh = Stored(change.key, change.body, revision, revision, 1)
        kind = EventType.ADDED
    else:
        if _same(stored.body, change.body):
            return None
        generation = stored.generation + (_content(stored.body) != _content(change.body))
        fresh = Stored(change.key, change.body, revision, stored.created, generation)
        kind = EventType.MODIFIED
    objects[change.key] = fresh
    return Event(revision, kind, fresh)


def _content(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("metadata", "status")}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return dict(one) == dict(other)


def _is_a_store(fake: FakeStore) -> Store:
    """Checked by mypy: the fake keeps the interface."""
    return fake
