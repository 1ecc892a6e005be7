"""Hands each commit's events to all watchers of one process, in bounded memory.

Watchers have no queues: all share one window of recent revisions and each keeps only its position. A
watcher that falls out of the window reads the change log instead, so a slow one costs nothing.
Belongs to one event loop; it must not know where events are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from control_plane.store.base import Event, StoreClosed


class Fanout:
    """``window``: how many recent revisions are kept in memory. ``revision``: the newest published one."""

    def __init__(self, revision: int, window: int) -> None:
        self.revision = revision
        self.lagged = 0
        self._window = window
        self._recent: dict[int, Sequence[Event]] = {}
        self._published = asyncio.Event()
        self._closed = False

    def publish(self, revision: int, events: Sequence[Event]) -> None:
        """Revisions are published in order and without gaps."""
        assert revision == self.revision + 1
        self.revision = revision
        self._recent[revision] = events
        self._recent.pop(revision - self._window, None)
        self._wake()

    def after(self, position: int) -> Sequence[Event] | None:
        """The events of revision ``position + 1``, or ``None`` if the window does not hold them."""
        events = self._recent.get(position + 1)
        if events is None:
            self.lagged += 1
        return events

    def covers(self, position: int) -> bool:
        """Whether the window holds everything after ``position``."""
        return position >= self.revision or position + 1 in self._recent

    async def wait(self, position: int) -> None:
        """Return once something newer than ``position`` is published. Raises :class:`StoreClosed`."""
        while not self._closed and self.revision <= position:
            await self._published.wait()
        if self._closed:
            raise StoreClosed

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._published.set()
        self._published = asyncio.Event()
