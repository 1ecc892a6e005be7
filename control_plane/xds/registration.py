"""Keeps a WorkloadEntry in the store for every sidecar that is connected and has accepted its listeners.

Several streams of one node count as one. An entry goes at once when the last stream ended cleanly, after a
grace period when it broke, and not at all when it is this process that ends: its successor adopts the entry,
and removes, after a longer grace period, those whose sidecar did not come back. One worker writes, so that an
entry's changes cannot overtake each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Container, Mapping

from control_plane.api.kinds import KINDS
from control_plane.api.objects import to_stored
from control_plane.registry import workloads
from control_plane.registry.workloads import GROUP, PLURAL
from control_plane.store.base import Conflict, Delete, Key, Put, Store, StoreClosed, Stored
from control_plane.translate.node import Node
from control_plane.xds.counters import XdsCounters

log = logging.getLogger(__name__)

_RETRY = 1.0
_OWNER = "control-plane"
_INFO = next(info for info in KINDS if (info.group, info.plural) == (GROUP, PLURAL))


def key_for(node: Node, present: Mapping[str, Stored], live: Container[str]) -> Key:
    """The key for ``node`` among the entries ``present`` in its namespace, by name.

    Its own from before if there is one; its plain name if that is free, or kept by a node that is not ``live``;
    else the name with a suffix that only this node has, so that several sidecars may share a name.
    """
    for stored in present.values():
        if workloads.node_of(stored.body) == node.id:
            return stored.key
    plain = workloads.entry_key(node)
    holder = present.get(node.name)
    if holder is None or (
        workloads.may_write(holder.body) and (workloads.node_of(holder.body) or "") not in live
    ):
        return plain
    suffix = hashlib.sha256(node.id.encode()).hexdigest()[:8]
    return Key(GROUP, PLURAL, node.namespace, f"{node.name}-{suffix}")


class Registration:
    """Grace periods are in seconds."""

    def __init__(
        self, store: Store, counters: XdsCounters, *, leave_grace: float, orphan_grace: float
    ) -> None:
        self._store = store
        self._counters = counters
        self._leave_grace = leave_grace
        self._orphan_grace = orphan_grace
        self._streams: Counter[str] = Counter()
        self._present: dict[str, Node] = {}
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._due: dict[str, Node] = {}
        """What the worker has yet to bring about, by node ID; whether an entry shall be is up to ``_present``."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(), name="workload registration"),
            asyncio.create_task(self._remove_orphans(), name="orphaned workload entries"),
        ]

    async def stop(self) -> None:
        """Leave all entries as they are."""
        for timer in self._leaving.values():
            timer.cancel()
        self._leaving.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def joined(self, node: Node) -> None:
        """A stream of ``node`` began."""
        self._streams[node.id] += 1
        timer = self._leaving.pop(node.id, None)
        if timer is not None:
            timer.cancel()

    def ready(self, node: Node) -> None:
        """A stream of ``node`` accepted its listeners: from now on others may be sent to it."""
        if self._present.get(node.id) != node:
            self._present[node.id] = node
            self._schedule(node)

    def left(self, node: Node, *, clean: bool) -> None:
        """A stream of ``node`` ended; ``clean``: the client ended it, so that it will not come back."""
        self._streams[node.id] -= 1
        if self._streams[node.id] > 0:
            return
        del self._streams[node.id]
        if clean:
            self._gone(node)
        else:
            loop = asyncio.get_running_loop()
            self._leaving[node.id] = loop.call_later(self._leave_grace, self._gone, node)

    def _gone(self, node: Node) -> None:
        self._leaving.pop(node.id, None)
        if self._present.pop(node.id, None) is not None:
            self._schedule(node)

    def _schedule(self, node: Node) -> None:
        self._due[node.id] = node
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                node_id, node = next(iter(self._due.items()))
                del self._due[node_id]
                try:
                    await self._settle(node)
                except StoreClosed:
                    return
                except Conflict:
                    self._schedule(self._present.get(node_id, node))
                except Exception:
                    self._counters.registration_failures += 1
                    log.exception("workload entry of %s: cannot be written; trying again", node_id)
                    self._schedule(self._present.get(node_id, node))
                    await asyncio.sleep(_RETRY)

    async def _settle(self, node: Node) -> None:
        stored, _ = await self._store.list(GROUP, PLURAL, node.namespace)
        present = {one.key.name: one for one in stored}
        wanted = self._present.get(node.id)
        if wanted is None:
            await self._delete([one for one in stored if workloads.node_of(one.body) == node.id], node.id)
            return
        body, problems = workloads.entry_body(wanted, _OWNER)
        if problems:
            self._counters.registration_failures += 1
            told = "; ".join(str(problem) for problem in problems)
            log.error("sidecar %s: no workload entry can be made of its node metadata: %s", node.id, told)
        if body is None:
            return
        key = key_for(wanted, present, self._live())
        body["metadata"]["name"] = key.name
        before = present.get(key.name)
        if before is not None and workloads.same_workload(before.body, body):
            return
        document = to_stored(_INFO, key, body, before, now=time.time(), uid=str(uuid.uuid4()))
        expect = before.revision if before is not None else 0
        await self._store.commit([Put(key, document, expect)], author=f"sidecar {node.id}")

    def _live(self) -> set[str]:
        """Nodes that are connected, or that may come back in time."""
        return {*self._streams, *self._leaving, *self._present}

    async def _delete(self, entries: list[Stored], author: str) -> None:
        if entries:
            changes = [Delete(one.key, one.revision) for one in entries]
            await self._store.commit(changes, author=f"sidecar {author}")

    async def _remove_orphans(self) -> None:
        await asyncio.sleep(self._orphan_grace)
        while True:
            try:
                entries, _ = await self._store.list(GROUP, PLURAL)
                found = workloads.stale(entries, lambda node, _: node in self._live())
                if found:
                    log.info("removing %s workload entries whose sidecars did not come back", len(found))
                    changes = [Delete(one.key, one.revision) for one in found]
                    await self._store.commit(changes, author="control plane: orphaned")
                return
            except StoreClosed:
                return
            except Conflict:
                continue
            except Exception:
                self._counters.registration_failures += 1
                log.exception("orphaned workload entries cannot be removed; trying again")
                await asyncio.sleep(_RETRY)
