"""The embedded store: SQLite behind one writer thread and one reader thread.

The event loop never waits for the disk. Commits that queue up while the disk is busy share one
transaction, hence one flush, and stay separate revisions. A commit's events reach the watchers only once
it is durable, and before its caller is told. It must not interpret what it stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from control_plane.store.base import (
    Conflict,
    Delete,
    Event,
    EventType,
    Key,
    Put,
    Revision,
    Snapshot,
    StoreClosed,
    Stored,
    StoreUnavailable,
)
from control_plane.store.fanout import Fanout
from control_plane.store.sqlite_engine import Commit, Engine, create_file

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """Limits of the embedded store.

    ``keep_revisions``: how far back ``watch`` and ``history`` reach. ``watch_window``: revisions kept in
    memory for watchers. ``batch``: commits that may share one flush. ``queue``: commits that may wait;
    further callers get :class:`StoreUnavailable`. ``replay``: revisions read from disk at a time.
    """

    keep_revisions: int = 10_000
    watch_window: int = 1_000
    batch: int = 64
    queue: int = 10_000
    replay: int = 200


@dataclass(slots=True)
class SqliteCounters:
    """What the store has done since it was opened."""

    commits: int = 0
    unchanged: int = 0
    conflicts: int = 0
    flushes: int = 0
    compacted: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Job:
    changes: Sequence[Put | Delete]
    author: str
    done: asyncio.Future[int]


class SqliteStore:
    """A :class:`~.base.Store` and :class:`~.base.History` in one file."""

    def __init__(
        self, writer: Engine, reader: Engine, lock: int, options: SqliteOptions, clock: Callable[[], float]
    ) -> None:
        """Use :meth:`open`."""
        self.options = options
        self.counters = SqliteCounters()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._reader = reader
        self._lock = lock
        self._closed = False
        self._jobs: queue.Queue[_Job | None] = queue.Queue(options.queue)
        self._fanout = Fanout(writer.revision(), options.watch_window)
        self._mirror: Snapshot | None = None
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(
        cls,
        path: Path,
        options: SqliteOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> SqliteStore:
        """Open or create the database. Raises :class:`StoreUnavailable`, also if another process has it."""
        lock = _lock(path)
        try:
            create_file(path)
            writer = await asyncio.to_thread(Engine, path)
            reader = await asyncio.to_thread(Engine, path, read_only=True)
        except BaseException:
            os.close(lock)
            raise
        return cls(writer, reader, lock, options or SqliteOptions(), clock)

    @property
    def revision(self) -> int:
        """The newest published revision."""
        return self._fanout.revision

    @property
    def lagged_watches(self) -> int:
        """How often a watcher had fallen out of the window and read the change log."""
        return self._fanout.lagged

    # -- reading

    async def get(self, key: Key) -> Stored | None:
        return await self._read(lambda engine: engine.get(key))

    async def list(
        self, group: str, plural: str, namespace: str | None = None
    ) -> tuple[Sequence[Stored], int]:
        return await self._read(lambda engine: engine.list(group, plural, namespace))

    async def snapshot(self) -> Snapshot:
        """Read whole from disk once; afterwards brought up to date from the events that were published."""
        mirror = self._mirror
        if mirror is None or not self._fanout.covers(mirror.revision):
            mirror = await self._read(lambda engine: engine.snapshot())
        elif self._closed:
            raise StoreClosed
        self._mirror = mirror = self._advance(mirror)
        return mirror

    def _advance(self, mirror: Snapshot) -> Snapshot:
        if mirror.revision >= self._fanout.revision:
            return mirror
        objects = dict(mirror.objects)
        revision = mirror.revision
        while revision < self._fanout.revision:
            events = self._fanout.after(revision)
            if events is None:
                break
            for event in events:
                if event.type is EventType.DELETED:
                    del objects[event.object.key]
                else:
                    objects[event.object.key] = event.object
            revision += 1
        return Snapshot(revision, objects)

    async def history(self, *, before: int | None = None, limit: int = 100) -> Sequence[Revision]:
        return await self._read(lambda engine: engine.history(before, limit))

    async def revision_at(self, number: int) -> Revision | None:
        return await self._read(lambda engine: engine.history_entry(number))

    async def _read(self, query: Callable[[Engine], T]) -> T:
        if self._closed:
            raise StoreClosed

        def run() -> T:
            try:
                self._reader.begin()
                try:
                    return query(self._reader)
                finally:
                    self._reader.rollback()
            except sqlite3.Error as error:
                raise StoreUnavailable(f"cannot read the store: {error}") from error

        return await self._loop.run_in_executor(self._reads, run)

    async def watch(self, after: int) -> AsyncIterator[Sequence[Event]]:
        position = after
        while True:
            await self._fanout.wait(position)
            recent = self._fanout.after(position)
            if recent is not None:
                position += 1
                yield recent
                continue
            start = position
            for events in await self._read(lambda engine: engine.events(start, self.options.replay)):  # noqa: B023
                position = events[0].revision
                yield events

    # -- writing

    async def commit(self, changes: Sequence[Put | Delete], *, author: str) -> int:
        if self._closed:
            raise StoreClosed
        job = _Job(tuple(changes), author, self._loop.create_future())
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.counters.refused += 1
            raise StoreUnavailable(f"{self.options.queue} commits are waiting for the disk") from None
        # The write happens whether or not its caller still waits, so a cancelled caller must not cancel it.
        return await asyncio.shield(job.done)

    def _write_loop(self) -> None:
        running = True
        while running:
            first = self._jobs.get()
            jobs = [] if first is None else [first]
            running = first is not None
            while running and len(jobs) < self.options.batch:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    running = False
                else:
                    jobs.append(job)
            if jobs:
                outcomes, forgotten = self._transact(jobs)
                # The loop may be gone if the program ends without close(); the data is safe all the same.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._finish, jobs, outcomes, forgotten)

    def _transact(self, jobs: Sequence[_Job]) -> tuple[Sequence[Commit | Exception], int]:
        outcomes: list[Commit | Exception] = []
        try:
            self._writer.begin(write=True)
            for job in jobs:
                try:
                    outcomes.append(self._writer.apply(job.changes, author=job.author, now=self._clock()))
                except (Conflict, ValueError, TypeError, RecursionError) as refused:
                    outcomes.append(refused)
            forgotten = self._writer.compact(self.options.keep_revisions)
            self._writer.end()
        except Exception as error:  # noqa: BLE001 - a dead writer thread would leave every caller waiting
            self._writer.rollback()
            failure = StoreUnavailable(f"cannot write the store: {error}")
            return [failure] * len(jobs), 0
        return outcomes, forgotten

    def _finish(self, jobs: Sequence[_Job], outcomes: Sequence[Commit | Exception], forgotten: int) -> None:
        self.counters.flushes += 1
        self.counters.compacted += forgotten
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self.counters.conflicts += isinstance(outcome, Conflict)
                if not job.done.cancelled():
                    job.done.set_exception(outcome)
                continue
            if outcome.events:
                self.counters.commits += 1
                self._fanout.publish(outcome.revision, outcome.events)
            else:
                self.counters.unchanged += 1
            if not job.done.cancelled():
                job.done.set_result(outcome.revision)

    async def close(self) -> None:
        """Write what is queued, end the watches, release the file."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._jobs.put, None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._reads.shutdown)
        self._writer.close()
        self._reader.close()
        os.close(self._lock)
        self._fanout.close()


def _lock(path: Path) -> int:
    """Watches are fed within one process, so a second process must not write the same file."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot open the store: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreUnavailable(f"{path}: another control plane is running on this data directory") from None
    return lock
