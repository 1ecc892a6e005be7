"""The SQL of the embedded store: schema, transactions, change log, compaction.

Synchronous: an :class:`Engine` is one connection and belongs to one thread. It knows no event loop, no
watcher and no kind. Durability: WAL with ``synchronous=FULL``, so that a commit that returned is on disk.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.store.base import (
    Change,
    Compacted,
    Conflict,
    Delete,
    Event,
    EventType,
    Key,
    Put,
    Revision,
    Snapshot,
    Stored,
    StoreUnavailable,
)

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
  grp TEXT NOT NULL, plural TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  body TEXT NOT NULL, revision INTEGER NOT NULL, created INTEGER NOT NULL, generation INTEGER NOT NULL,
  PRIMARY KEY (grp, plural, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revisions (
  revision INTEGER PRIMARY KEY, author TEXT NOT NULL, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS changes (
  revision INTEGER NOT NULL, position INTEGER NOT NULL,
  grp TEXT NOT NULL, plural TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  before TEXT, before_revision INTEGER, after TEXT, created INTEGER NOT NULL, generation INTEGER NOT NULL,
  PRIMARY KEY (revision, position)
) WITHOUT ROWID;
"""
_OBJECT = "grp, plural, namespace, name, body, revision, created, generation"
_CHANGE = (
    "revision, grp, plural, namespace, name, before, before_revision, after, created, generation, position"
)


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed transaction: the revision then current and its events (none: nothing differed)."""

    revision: int
    events: Sequence[Event]


def encode(body: Mapping[str, Any]) -> str:
    """The canonical text by which bodies are stored and compared. Non-JSON: ``ValueError``, ``TypeError``."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def create_file(path: Path) -> None:
    """Make the database file readable by its owner only; SQLite gives its WAL files the same mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


class Engine:
    """One connection to the database at ``path``. Raises :class:`StoreUnavailable` if it cannot be used."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            if read_only:
                self._db.execute("PRAGMA query_only=1")
            else:
                self._prepare()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{path}: cannot open the store: {error}") from error

    def _prepare(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{self._path}: was written by a newer version (schema {found}, this program knows "
                f"{SCHEMA_VERSION}): upgrade this program or restore an older copy"
            )
        self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        self._db.close()

    # -- transactions

    def begin(self, *, write: bool = False) -> None:
        self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def end(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    # -- writing, inside a transaction

    def apply(self, changes: Sequence[Put | Delete], *, author: str, now: float) -> Commit:
        """Check every precondition, then write. :class:`Conflict` or ``ValueError``: nothing is written."""
        current = self.revision()
        revision = current + 1
        events: list[Event] = []
        rows: list[tuple[str | None, int | None, str | None]] = []
        seen: set[Key] = set()
        for change in changes:
            if change.key in seen:
                raise ValueError(f"{change.key}: named twice in one commit")
            seen.add(change.key)
            row = self._row(change.key)
            before = _stored(row) if row else None
            _check(change, before)
            if isinstance(change, Put):
                text = encode(change.body)
                if row is not None and row[4] == text:
                    continue
                # Decoding again cuts the tie to the caller's objects, which may change under us.
                body = json.loads(text)
                stored = Stored(
                    change.key,
                    body,
                    revision,
                    created=before.created if before else revision,
                    generation=before.generation + _spec_differs(before.body, body) if before else 1,
                )
                events.append(Event(revision, EventType.MODIFIED if before else EventType.ADDED, stored))
                rows.append((row[4] if row else None, before.revision if before else None, text))
            elif before is not None:
                events.append(Event(revision, EventType.DELETED, before))
                rows.append((row[4] if row else None, before.revision, None))
        if not events:
            return Commit(current, ())
        self._write(revision, events, rows, author, now)
        return Commit(revision, tuple(events))

    def _write(
        self,
        revision: int,
        events: Sequence[Event],
        rows: Sequence[tuple[str | None, int | None, str | None]],
        author: str,
        now: float,
    ) -> None:
        self._set_meta("revision", revision)
        self._db.execute("INSERT INTO revisions VALUES (?, ?, ?)", (revision, author, now))
        for position, (event, (before, before_revision, after)) in enumerate(zip(events, rows, strict=True)):
            stored = event.object
            name = (stored.key.group, stored.key.plural, stored.key.namespace, stored.key.name)
            self._db.execute(
                f"INSERT INTO changes ({_CHANGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    revision,
                    *name,
                    before,
                    before_revision,
                    after,
                    stored.created,
                    stored.generation,
                    position,
                ),
            )
            if after is None:
                self._db.execute(
                    "DELETE FROM objects WHERE (grp, plural, namespace, name) = (?, ?, ?, ?)", name
                )
            else:
                self._db.execute(
                    f"INSERT OR REPLACE INTO objects ({_OBJECT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*name, after, revision, stored.created, stored.generation),
                )

    def compact(self, keep: int) -> int:
        """Forget all but the last ``keep`` revisions; returns how many were forgotten now."""
        last = self.revision() - keep
        before = self.compacted()
        if last <= before:
            return 0
        self._db.execute("DELETE FROM changes WHERE revision <= ?", (last,))
        self._db.execute("DELETE FROM revisions WHERE revision <= ?", (last,))
        self._set_meta("compacted", last)
        return last - before

    def _set_meta(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # -- reading

    def revision(self) -> int:
        return self._meta("revision")

    def compacted(self) -> int:
        """The newest revision whose changes are forgotten."""
        return self._meta("compacted")

    def _meta(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else 0

    def _row(self, key: Key) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(
            f"SELECT {_OBJECT} FROM objects WHERE (grp, plural, namespace, name) = (?, ?, ?, ?)",
            (key.group, key.plural, key.namespace, key.name),
        ).fetchone()
        return row

    def get(self, key: Key) -> Stored | None:
        row = self._row(key)
        return _stored(row) if row else None

    def list(self, group: str, plural: str, namespace: str | None) -> tuple[Sequence[Stored], int]:
        where, values = "grp = ? AND plural = ?", [group, plural]
        if namespace is not None:
            where, values = where + " AND namespace = ?", [*values, namespace]
        found = self._db.execute(
            f"SELECT {_OBJECT} FROM objects WHERE {where} ORDER BY namespace, name", values
        )
        return [_stored(row) for row in found], self.revision()

    def snapshot(self) -> Snapshot:
        found = self._db.execute(
            f"SELECT {_OBJECT} FROM objects ORDER BY grp, plural, namespace, name"
        ).fetchall()
        objects = {stored.key: stored for stored in map(_stored, found)}
        return Snapshot(self.revision(), objects)

    def events(self, after: int, limit: int) -> Sequence[Sequence[Event]]:
        """The events of up to ``limit`` revisions greater than ``after``. Raises :class:`Compacted`."""
        self._require(after)
        rows = self._db.execute(
            f"SELECT {_CHANGE} FROM changes WHERE revision > ? AND revision <= ? ORDER BY revision, position",
            (after, after + limit),
        )
        groups: dict[int, list[Event]] = {}
        for row in rows:
            groups.setdefault(row[0], []).append(_event(row))
        return list(groups.values())

    def history(self, before: int | None, limit: int) -> Sequence[Revision]:
        found = self._db.execute(
            "SELECT revision, author, time FROM revisions WHERE revision < ? ORDER BY revision DESC LIMIT ?",
            (self.revision() + 1 if before is None else before, limit),
        ).fetchall()
        return [self._history_entry(*row) for row in found]

    def history_entry(self, number: int) -> Revision | None:
        """One revision with its changes; ``None`` beyond the newest. Raises :class:`Compacted`."""
        self._require(number - 1)
        row = self._db.execute(
            "SELECT revision, author, time FROM revisions WHERE revision = ?", (number,)
        ).fetchone()
        return self._history_entry(*row) if row else None

    def _history_entry(self, number: int, author: str, time: float) -> Revision:
        rows = self._db.execute(
            "SELECT grp, plural, namespace, name, before, after FROM changes"
            " WHERE revision = ? ORDER BY position",
            (number,),
        )
        changes = tuple(Change(Key(*row[:4]), _decode(row[4]), _decode(row[5])) for row in rows)
        return Revision(number, author, time, changes)

    def _require(self, after: int) -> None:
        compacted = self.compacted()
        if after < compacted:
            raise Compacted(f"revision {after} is too old: changes up to {compacted} were compacted")


def _decode(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _stored(row: Sequence[Any]) -> Stored:
    return Stored(Key(*row[:4]), json.loads(row[4]), revision=row[5], created=row[6], generation=row[7])


def _event(row: Sequence[Any]) -> Event:
    revision, *name, before, before_revision, after, created, generation, _position = row
    key = Key(*name)
    if after is None:
        stored = Stored(key, json.loads(before), before_revision, created, generation)
        return Event(revision, EventType.DELETED, stored)
    stored = Stored(key, json.loads(after), revision, created, generation)
    return Event(revision, EventType.ADDED if before is None else EventType.MODIFIED, stored)


def _check(change: Put | Delete, before: Stored | None) -> None:
    actual = before.revision if before else None
    if isinstance(change, Delete) and before is None:
        if not change.missing_ok:
            raise Conflict(change.key, change.expect, None)
    elif change.expect is not None and change.expect != (actual or 0):
        raise Conflict(change.key, change.expect, actual)


def _spec_differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether anything but metadata and status changed (Kubernetes API conventions, ``generation``)."""
    return any(
        before.get(field) != after.get(field)
        for field in before.keys() | after.keys()
        if field not in ("metadata", "status")
    )
