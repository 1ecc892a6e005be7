from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.store.base import (
    Change,
    Compacted,
    Delete,
    Put,
    Snapshot,
    Store,
    StoreUnavailable,
)
from control_plane.store.sqlite import SqliteOptions, SqliteStore
from tests.unit.store.store_suite import StoreSuite, key, take


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = await SqliteStore.open(tmp_path / "store.db")
        yield store
        await store.close()


class TestSqliteStoreWithoutWindow(StoreSuite):
    """The same behaviour when watchers are fed from the change log instead of memory."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = await SqliteStore.open(
            tmp_path / "store.db", SqliteOptions(watch_window=1, replay=2, batch=1)
        )
        yield store
        await store.close()


async def test_reopening_shows_the_same_objects_revisions_and_history(tmp_path: Path) -> None:
    path = tmp_path / "data" / "store.db"
    store = await SqliteStore.open(path, clock=lambda: 12.5)
    await store.commit([Put(key("a"), {"spec": 1}), Put(key("b"), {})], author="ann")
    await store.commit([Put(key("a"), {"spec": 2}), Delete(key("b"))], author="bob")
    before = await store.snapshot()
    await store.close()

    store = await SqliteStore.open(path)
    assert await store.snapshot() == Snapshot(2, before.objects)
    assert store.revision == 2
    newest, oldest = await store.history()
    assert (newest.number, newest.author, newest.time) == (2, "bob", 12.5)
    assert list(newest.changes) == [
        Change(key("a"), {"spec": 1}, {"spec": 2}),
        Change(key("b"), {}, None),
    ]
    assert list(oldest.changes) == [Change(key("a"), None, {"spec": 1}), Change(key("b"), None, {})]
    assert await store.history(before=2, limit=5) == [oldest]
    assert await store.revision_at(2) == newest
    assert await store.revision_at(3) is None
    assert len(await take(store.watch(0), 2)) == 2
    await store.close()


async def test_compaction_keeps_the_configured_number_of_revisions(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db", SqliteOptions(keep_revisions=5, watch_window=1))
    for number in range(12):
        await store.commit([Put(key("a"), {"spec": number})], author="me")
    assert store.counters.compacted == 7
    assert [r.number for r in await store.history()] == [12, 11, 10, 9, 8]
    assert [e[0].revision for e in await take(store.watch(7), 5)] == [8, 9, 10, 11, 12]
    with pytest.raises(Compacted):
        await take(store.watch(6), 1)
    with pytest.raises(Compacted):
        await store.revision_at(7)
    found = await store.get(key("a"))
    assert found is not None
    assert (found.generation, found.created) == (12, 1)
    await store.close()


async def test_a_watcher_out_of_the_window_reads_the_log_and_misses_nothing(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db", SqliteOptions(watch_window=3))
    events = store.watch(0)
    for number in range(10):
        await store.commit([Put(key("a"), {"spec": number})], author="me")
    assert store.lagged_watches == 0
    assert [e[0].object.body["spec"] for e in await take(events, 10)] == list(range(10))
    assert store.lagged_watches > 0
    await store.close()


async def test_snapshot_is_right_after_falling_out_of_the_window(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db", SqliteOptions(watch_window=2))
    await store.snapshot()
    for number in range(6):
        await store.commit([Put(key(str(number)), {})], author="me")
    snapshot = await store.snapshot()
    assert (snapshot.revision, len(snapshot.objects)) == (6, 6)
    await store.close()


async def test_waiting_commits_share_a_flush_and_stay_separate_revisions(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db")
    revisions = await asyncio.gather(
        *(store.commit([Put(key(str(n)), {})], author=f"a{n}") for n in range(50))
    )
    assert sorted(revisions) == list(range(1, 51))
    assert store.counters.flushes < 50
    assert len({r.author for r in await store.history()}) == 50
    await store.close()


async def test_commits_beyond_the_queue_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await SqliteStore.open(path, SqliteOptions(queue=2, batch=1))
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    commits = [asyncio.create_task(store.commit([Put(key(str(n)), {})], author="me")) for n in range(6)]
    await asyncio.wait(commits, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    blocker.execute("ROLLBACK")
    blocker.close()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    refused = [o for o in outcomes if isinstance(o, StoreUnavailable)]
    assert 3 <= len(refused) <= 4
    assert store.counters.refused == len(refused)
    assert (await store.snapshot()).revision == 6 - len(refused)
    await store.close()


async def test_a_cancelled_commit_may_happen_but_breaks_nothing(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db")
    task = asyncio.create_task(store.commit([Put(key("a"), {})], author="me"))
    await asyncio.sleep(0)
    task.cancel()
    assert await store.commit([Put(key("b"), {})], author="me") == 2
    await store.close()


async def test_a_body_that_is_not_json_is_refused_alone(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db")
    with pytest.raises(TypeError):
        await store.commit([Put(key("a"), {"spec": {1, 2}})], author="me")
    with pytest.raises(ValueError, match="JSON"):
        await store.commit([Put(key("a"), {"spec": float("nan")})], author="me")
    assert await store.commit([Put(key("a"), {})], author="me") == 1
    await store.close()


async def test_a_failing_disk_refuses_the_commit_and_the_store_recovers(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await SqliteStore.open(path)
    await store.commit([Put(key("a"), {})], author="me")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(
        "CREATE TRIGGER full BEFORE INSERT ON revisions BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )
    with pytest.raises(StoreUnavailable, match="disk full"):
        await store.commit([Put(key("b"), {})], author="me")
    other.execute("DROP TRIGGER full")
    other.close()
    assert await store.get(key("b")) is None
    assert await store.commit([Put(key("b"), {})], author="me") == 2
    await store.close()


async def test_files_are_the_owners_alone_and_locked(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await SqliteStore.open(path)
    await store.commit([Put(key("a"), {})], author="me")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    with pytest.raises(StoreUnavailable, match="another control plane"):
        await SqliteStore.open(path)
    await store.close()
    await (await SqliteStore.open(path)).close()


async def test_a_newer_schema_or_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreUnavailable, match="newer version"):
        await SqliteStore.open(path)
    path.write_bytes(b"this is not a database, whatever its name may say" * 100)
    with pytest.raises(StoreUnavailable, match="cannot open"):
        await SqliteStore.open(path)
