"""From the store's changes to the sidecars: follow, wait for a pause, translate, hand out.

It keeps the view of the mesh and the connected subscribers. A defect or a failing store never takes anything
away: the configuration from before stays, the failure is logged and counted, and the next change tries anew.
It must not know gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from control_plane.store.base import Compacted, Event, EventType, Snapshot, Store, StoreClosed
from control_plane.translate.node import Node
from control_plane.xds.counters import XdsCounters
from control_plane.xds.mesh import Mesh
from control_plane.xds.registration import Registration
from control_plane.xds.resource_types import LISTENER, short_name
from control_plane.xds.session import Acked, DeltaSession, Nacked, SessionLimits, SotwSession
from control_plane.xds.snapshot import Encoder
from control_plane.xds.status import NodeStatus, StatusBoard
from control_plane.xds.subscriber import Subscriber

log = logging.getLogger(__name__)

_RETRY = 1.0


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Seconds throughout.

    A change is pushed once the store was quiet for ``debounce``, at the latest after ``debounce_max``.
    ``leave_grace``: how long a workload stays after its stream broke; ``orphan_grace``: how long after the start
    one may take to come back that was connected to an earlier process. ``hold_timeout``: how long a change waits
    for a subscription that must precede it.
    """

    debounce: float = 0.010
    debounce_max: float = 0.100
    leave_grace: float = 10.0
    orphan_grace: float = 60.0
    hold_timeout: float = 2.0
    session: SessionLimits = field(default_factory=SessionLimits)


class Pusher:
    """``board`` and ``counters`` may be read by anyone at any time."""

    def __init__(
        self,
        store: Store,
        mesh: Mesh,
        board: StatusBoard,
        *,
        options: PushOptions | None = None,
        counters: XdsCounters | None = None,
    ) -> None:
        self.board = board
        self.options = options or PushOptions()
        self.counters = counters or XdsCounters()
        self.revision = 0
        """The store's revision that the sidecars are given."""
        self._store = store
        self._mesh = mesh
        self._view: Any = None
        self._encoder = Encoder()
        self._subscribers: set[Subscriber] = set()
        self._events: list[Sequence[Event]] = []
        self._reload = False
        self._dirty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._registration = Registration(
            store,
            self.counters,
            leave_grace=self.options.leave_grace,
            orphan_grace=self.options.orphan_grace,
        )

    # -- life

    async def start(self) -> None:
        """Load the view and follow the store. Raises what the store or ``mesh.load`` raises."""
        snapshot = await self._store.snapshot()
        self._adopt(self._mesh.load(snapshot), snapshot)
        self._registration.start()
        self._tasks = [
            asyncio.create_task(self._follow(snapshot.revision), name="store watch"),
            asyncio.create_task(self._push_forever(), name="xds push"),
        ]

    def refresh(self) -> None:
        """Translate every node again: what the mesh reads besides the store (trust bundle) has changed."""
        self._dirty.set()

    def stopping(self) -> None:
        """From now on, streams that end do so because of us: their workloads stay registered."""
        self._stopping = True

    async def stop(self) -> None:
        self.stopping()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._registration.stop()

    # -- streams

    def join(self, node: Node, *, delta: bool, identity: str) -> Subscriber:
        """A stream of ``node`` began. Its subscriber has a snapshot unless the node cannot be translated."""
        limits = self.options.session
        subscriber = Subscriber(
            node,
            DeltaSession(limits) if delta else SotwSession(limits),
            identity=identity,
            variant="delta" if delta else "sotw",
            hold_timeout=self.options.hold_timeout,
            on_verdict=self._verdict,
            on_hold_expired=self._hold_expired,
        )
        self._subscribers.add(subscriber)
        status = NodeStatus(node.id, identity, subscriber.variant, node.agent, time.time())
        self.board.connect(subscriber, status)
        self._registration.joined(node)
        self._give(subscriber)
        log.info("%s connected (%s, %s)", node.id, subscriber.variant, identity or "plaintext")
        return subscriber

    def leave(self, subscriber: Subscriber, *, clean: bool) -> None:
        """The stream ended; ``clean``: the client ended it, rather than that it broke."""
        subscriber.close()
        self._subscribers.discard(subscriber)
        self.board.disconnect(subscriber)
        self.counters.requests_stale += subscriber.session.stale_requests
        if not self._stopping:
            self._registration.left(subscriber.node, clean=clean)
        log.info("%s disconnected%s", subscriber.node.id, "" if clean else " without a goodbye")

    def _verdict(self, subscriber: Subscriber, action: Acked | Nacked) -> None:
        self.board.verdict(subscriber, action)
        if isinstance(action, Nacked):
            self.counters.nacks += 1
            log.warning(
                "%s refused %s version %s: %s",
                subscriber.node.id,
                short_name(action.response.type_url),
                action.response.version,
                action.error,
            )
            return
        self.counters.acks += 1
        if action.response.type_url == LISTENER:
            self._registration.ready(subscriber.node)

    def _hold_expired(self) -> None:
        self.counters.holds_expired += 1

    # -- the store

    async def _follow(self, revision: int) -> None:
        while True:
            try:
                async for events in self._store.watch(revision):
                    self._events.append(events)
                    revision = events[-1].revision
                    self._dirty.set()
            except StoreClosed:
                return
            except Compacted:
                snapshot = await self._snapshot()
                if snapshot is None:
                    return
                revision = snapshot.revision
                self._reload = True
                self._dirty.set()
            except Exception:
                self.counters.store_failures += 1
                log.exception("watching the store failed; sidecars keep their configuration; trying again")
                await asyncio.sleep(_RETRY)

    async def _snapshot(self) -> Snapshot | None:
        while True:
            try:
                return await self._store.snapshot()
            except StoreClosed:
                return None
            except Exception:
                self.counters.store_failures += 1
                log.exception("reading the store failed; sidecars keep their configuration; trying again")
                await asyncio.sleep(_RETRY)

    # -- rounds

    async def _push_forever(self) -> None:
        while True:
            await self._dirty.wait()
            await self._pause()
            await self._round()

    async def _pause(self) -> None:
        """Return once nothing has happened for ``debounce``, or ``debounce_max`` has passed."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + self.options.debounce_max
        while True:
            self._dirty.clear()
            quiet = min(self.options.debounce, latest - loop.time())
            if quiet <= 0:
                return
            try:
                await asyncio.wait_for(self._dirty.wait(), quiet)
            except TimeoutError:
                return

    async def _round(self) -> None:
        await self._advance()
        self.counters.pushes += 1
        for subscriber in [*self._subscribers]:
            # One at a time, so that requests and other pages are served between a thousand of them.
            await asyncio.sleep(0)
            if subscriber in self._subscribers:
                self._give(subscriber)
        self._encoder.turn()

    async def _advance(self) -> None:
        """Bring the view up to date, or keep it as it is."""
        taken, self._events = self._events, []
        events = [event for group in taken for event in group if event.revision > self.revision]
        try:
            if not self._reload and events:
                self._view = self._mesh.apply(self._view, events)
                self.revision = events[-1].revision
                self._note(events)
                self._judge()
                return
        except Exception:
            self.counters.push_failures += 1
            log.exception(
                "changes up to revision %s cannot be applied; loading all anew", events[-1].revision
            )
            self._reload = True
        if self._reload:
            snapshot = await self._snapshot()
            if snapshot is None:
                return
            try:
                self._adopt(self._mesh.load(snapshot), snapshot)
                self._reload = False
            except Exception:
                self.counters.push_failures += 1
                log.exception(
                    "revision %s cannot be loaded; sidecars keep revision %s",
                    snapshot.revision,
                    self.revision,
                )

    def _adopt(self, view: Any, snapshot: Snapshot) -> None:
        self._view = view
        self.revision = snapshot.revision
        self.board.replace(snapshot.objects.values())
        self._judge()

    def _note(self, events: Sequence[Event]) -> None:
        last = {event.object.key: event for event in events}
        self.board.forget(key for key, event in last.items() if event.type is EventType.DELETED)
        self.board.observe(event.object for event in last.values() if event.type is not EventType.DELETED)

    def _judge(self) -> None:
        try:
            self.board.judge(self._mesh.conditions(self._view))
        except Exception:
            self.counters.push_failures += 1
            log.exception("no conditions can be told for revision %s", self.revision)

    def _give(self, subscriber: Subscriber) -> None:
        """Translate for one node and let its session send what is new to it."""
        try:
            made = self._mesh.translate(self._view, subscriber.node)
            snapshot = self._encoder.snapshot(self.revision, made.by_type)
        except Exception:
            self.counters.push_failures += 1
            log.exception(
                "%s: revision %s cannot be translated; it keeps its configuration",
                subscriber.node.id,
                self.revision,
            )
            return
        self.board.nodes[subscriber].configure(snapshot, made.origins, made.conditions)
        subscriber.update(snapshot)
