"""What every store must do. A store's own test module subclasses :class:`StoreSuite` and gives ``store``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from control_plane.store.base import (
    Conflict,
    Delete,
    Event,
    EventType,
    Key,
    Put,
    Store,
    StoreClosed,
)


def key(name: str, plural: str = "services", namespace: str = "default", group: str = "") -> Key:
    return Key(group, plural, namespace, name)


async def take(events: AsyncIterator[Sequence[Event]], groups: int) -> list[Sequence[Event]]:
    """The next ``groups`` event groups; a store that does not deliver them fails instead of hanging."""
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(groups)]


def brief(groups: list[Sequence[Event]]) -> list[list[tuple[int, str, str]]]:
    return [[(e.revision, e.type.value, e.object.key.name) for e in events] for events in groups]


class StoreSuite:
    async def test_get_what_was_put(self, store: Store) -> None:
        assert await store.get(key("a")) is None
        body = {"metadata": {"name": "a"}, "spec": {"ports": [1, 2.5, None, True, "ü"]}}
        revision = await store.commit([Put(key("a"), body)], author="me")
        found = await store.get(key("a"))
        assert found is not None
        assert found.body == body
        assert (found.key, found.revision, found.created, found.generation) == (
            key("a"),
            revision,
            revision,
            1,
        )

    async def test_a_callers_later_mutation_changes_nothing(self, store: Store) -> None:
        body = {"spec": {"list": [1]}}
        await store.commit([Put(key("a"), body)], author="me")
        body["spec"]["list"].append(2)
        found = await store.get(key("a"))
        assert found is not None
        assert found.body == {"spec": {"list": [1]}}
        assert (await store.snapshot()).objects[key("a")].body == {"spec": {"list": [1]}}

    async def test_each_commit_is_the_next_revision(self, store: Store) -> None:
        start = (await store.snapshot()).revision
        revisions = [await store.commit([Put(key("a"), {"spec": n})], author="me") for n in range(5)]
        assert revisions == [start + n + 1 for n in range(5)]

    async def test_list_is_by_kind_and_namespace_in_key_order(self, store: Store) -> None:
        keys = [
            key("b"),
            key("a"),
            key("c", namespace="aa"),
            key("a", "routes"),
            key("a", group="g.example"),
        ]
        revision = await store.commit([Put(k, {}) for k in keys], author="me")
        listed, at = await store.list("", "services")
        assert [o.key for o in listed] == [key("c", namespace="aa"), key("a"), key("b")]
        assert at == revision
        listed, _ = await store.list("", "services", "default")
        assert [o.key.name for o in listed] == ["a", "b"]
        assert (await store.list("", "nothing"))[0] == []

    async def test_snapshot_follows_every_kind_of_change(self, store: Store) -> None:
        await store.commit([Put(key("a"), {"spec": 1}), Put(key("b"), {"spec": 1})], author="me")
        first = await store.snapshot()
        await store.commit([Put(key("a"), {"spec": 2}), Delete(key("b")), Put(key("c"), {})], author="me")
        second = await store.snapshot()
        assert sorted(k.name for k in first.objects) == ["a", "b"]
        assert first.objects[key("a")].body == {"spec": 1}
        assert {k.name: o.body for k, o in second.objects.items()} == {"a": {"spec": 2}, "c": {}}
        assert second.revision == first.revision + 1

    @pytest.mark.parametrize(
        ("change", "expected", "actual"),
        [
            (Put(key("here"), {}, expect=0), 0, 1),
            (Put(key("here"), {}, expect=7), 7, 1),
            (Put(key("absent"), {}, expect=7), 7, 0),
            (Delete(key("here"), expect=7), 7, 1),
            (Delete(key("absent")), None, 0),
        ],
        ids=["create-existing", "stale-put", "put-absent", "stale-delete", "delete-absent"],
    )
    async def test_a_failed_precondition_is_a_conflict(
        self, store: Store, change: Put | Delete, expected: int | None, actual: int
    ) -> None:
        assert await store.commit([Put(key("here"), {"spec": 1})], author="me") == 1
        with pytest.raises(Conflict) as refused:
            await store.commit([change], author="me")
        assert (refused.value.key, refused.value.expected) == (change.key, expected)
        assert (refused.value.actual or 0) == actual
        assert (await store.snapshot()).revision == 1

    async def test_met_preconditions_commit(self, store: Store) -> None:
        first = await store.commit([Put(key("a"), {"spec": 1}, expect=0)], author="me")
        second = await store.commit([Put(key("a"), {"spec": 2}, expect=first)], author="me")
        third = await store.commit([Delete(key("a"), expect=second)], author="me")
        assert third == first + 2
        assert await store.get(key("a")) is None

    async def test_a_commit_is_all_or_nothing(self, store: Store) -> None:
        await store.commit([Put(key("old"), {"spec": 1})], author="me")
        with pytest.raises(Conflict):
            await store.commit(
                [Put(key("new"), {}), Delete(key("old")), Put(key("old2"), {}, expect=9)], author="me"
            )
        snapshot = await store.snapshot()
        assert {k.name: o.body for k, o in snapshot.objects.items()} == {"old": {"spec": 1}}

    async def test_one_key_twice_in_a_commit_is_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="twice"):
            await store.commit([Put(key("a"), {}), Delete(key("a"))], author="me")

    async def test_a_commit_that_changes_nothing_makes_no_revision(self, store: Store) -> None:
        body = {"metadata": {"name": "a", "labels": {"x": "1", "y": "2"}}, "spec": 1}
        revision = await store.commit([Put(key("a"), body)], author="me")
        same = {"spec": 1, "metadata": {"labels": {"y": "2", "x": "1"}, "name": "a"}}
        assert await store.commit([Put(key("a"), same)], author="me") == revision
        assert await store.commit([], author="me") == revision
        assert await store.commit([Delete(key("b"), missing_ok=True)], author="me") == revision
        assert (await store.snapshot()).revision == revision

    async def test_unchanged_objects_of_a_commit_keep_their_revision(self, store: Store) -> None:
        first = await store.commit([Put(key("a"), {}), Put(key("b"), {})], author="me")
        await store.commit([Put(key("a"), {}), Put(key("b"), {"spec": 1})], author="me")
        found = await store.get(key("a"))
        assert found is not None
        assert found.revision == first

    async def test_generation_counts_changes_of_the_spec_alone(self, store: Store) -> None:
        bodies = [
            ({"metadata": {"name": "a"}, "spec": 1}, 1),
            ({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": 1}, 1),
            ({"metadata": {"name": "a"}, "spec": 1, "status": {"x": 1}}, 1),
            ({"metadata": {"name": "a"}, "spec": 2}, 2),
            ({"metadata": {"name": "a"}, "endpoints": [], "spec": 2}, 3),
        ]
        for body, generation in bodies:
            await store.commit([Put(key("a"), body)], author="me")
            found = await store.get(key("a"))
            assert found is not None
            assert found.generation == generation, body
        await store.commit([Delete(key("a"))], author="me")
        await store.commit([Put(key("a"), {})], author="me")
        found = await store.get(key("a"))
        assert found is not None
        assert (found.generation, found.created) == (1, found.revision)

    async def test_watch_replays_and_then_follows(self, store: Store) -> None:
        one = await store.commit([Put(key("a"), {"spec": 1}), Put(key("b"), {})], author="me")
        two = await store.commit([Put(key("a"), {"spec": 2})], author="me")
        events = store.watch(one - 1)
        assert brief(await take(events, 2)) == [
            [(one, "ADDED", "a"), (one, "ADDED", "b")],
            [(two, "MODIFIED", "a")],
        ]
        pending = asyncio.create_task(take(events, 1))
        three = await store.commit([Delete(key("a"))], author="me")
        ((deleted,),) = await pending
        assert (deleted.type, deleted.revision) == (EventType.DELETED, three)
        assert (deleted.object.body, deleted.object.revision) == ({"spec": 2}, two)

    async def test_watch_after_the_newest_tells_only_what_comes(self, store: Store) -> None:
        now = await store.commit([Put(key("a"), {})], author="me")
        events = store.watch(now)
        then = await store.commit([Put(key("b"), {})], author="me")
        assert brief(await take(events, 1)) == [[(then, "ADDED", "b")]]

    async def test_every_watcher_sees_every_revision_once_and_in_order(self, store: Store) -> None:
        start = (await store.snapshot()).revision
        watchers = [asyncio.create_task(take(store.watch(start), 60)) for _ in range(3)]
        await asyncio.gather(
            *(store.commit([Put(key(f"{w}-{n}"), {})], author="me") for n in range(20) for w in range(3))
        )
        for watcher in watchers:
            seen = [events[0].revision for events in await watcher]
            assert seen == list(range(start + 1, start + 61))

    async def test_concurrent_writers_of_one_object_lose_no_update(self, store: Store) -> None:
        await store.commit([Put(key("counter"), {"spec": 0})], author="me")

        async def add() -> int:
            conflicts = 0
            while True:
                found = await store.get(key("counter"))
                assert found is not None
                try:
                    await store.commit(
                        [Put(found.key, {"spec": found.body["spec"] + 1}, expect=found.revision)], author="me"
                    )
                    return conflicts
                except Conflict:
                    conflicts += 1

        conflicts = await asyncio.gather(*(add() for _ in range(10)))
        found = await store.get(key("counter"))
        assert found is not None
        assert found.body == {"spec": 10}
        assert sum(conflicts) > 0

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        events = store.watch((await store.snapshot()).revision)
        pending = asyncio.create_task(take(events, 1))
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        with pytest.raises(StoreClosed):
            await pending
        with pytest.raises(StoreClosed):
            await store.get(key("a"))
        with pytest.raises(StoreClosed):
            await store.snapshot()
        with pytest.raises(StoreClosed):
            await store.commit([Put(key("a"), {})], author="me")
