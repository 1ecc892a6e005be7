"""What one event loop has one of: listeners, buffers, the sweeper, the connections, and their common end.

It composes the data path and looks at no byte. All its timers are one: the sweeper, every 100 ms.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.accept import census
from proxy.accept.accepted import Accepted
from proxy.accept.admission import Admission
from proxy.accept.listeners import Listeners, Open, bind
from proxy.http1.date import http_date
from proxy.model.connection import Address
from proxy.model.overload import OverloadManager
from proxy.observe.log_file import LogFiles
from proxy.overload.defaults import default_overload
from proxy.overload.heap import shrink_heap
from proxy.overload.manager import Overload
from proxy.overload.resources import cgroup_memory_limit, descriptor_limit
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from proxy.tcp.relay import Relay
from proxy.tls.handshakes import MAX_HANDSHAKES, Slots
from proxy.tls.store import SecretStore
from proxy.tls.watch import FileWatch
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool

log = logging.getLogger(__name__)

TICK: Final = 0.1
"""Seconds between two looks at the deadlines of exchanges."""
_CENSUS_TICKS: Final = 10
_CONNECTION_TICKS: Final = 5
"""Connections, whose deadlines are long, are looked at every so many ticks."""
_FILE_TICKS: Final = 10
"""Files of keys and certificates likewise."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """``max_connections``: open at one time over all listeners; more are closed (``downstream_global_cx_overflow``). By
    default half of the descriptors, since each may need an upstream connection.

    ``open_socket``: where listening sockets come from. ``overload``: ``None`` = ``default_overload``.
    ``listener_limits``: connections at one time by listener name (``downstream_cx_overflow``). ``max_handshakes``:
    TLS handshakes under way at one time, for one listener half of them; more connections wait
    (``ssl.handshake_queued``).
    """

    max_connections: int | None = None
    open_socket: Open = bind
    overload: OverloadManager | None = None
    listener_limits: Mapping[str, int] = field(default_factory=dict)
    max_handshakes: int = MAX_HANDSHAKES


class Worker:
    """One loop's data path: it opens the listeners of ``hub.current`` and follows its swaps.

    Every method runs in the worker's loop.
    """

    def __init__(
        self, hub: Hub, secrets: SecretStore, log_files: LogFiles, options: WorkerOptions | None = None
    ) -> None:
        self.hub = hub
        self.secrets = secrets
        self.log_files = log_files
        self.options = options or WorkerOptions()
        self._state: LoopState
        self._pool: Pool
        self._files: FileWatch
        self._listeners: Listeners
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._started = 0.0
        self._date = 0
        self._idle: asyncio.Event
        self._admission: Admission
        self._overload: Overload
        self._reconciling: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Bind and listen. Raises ``OSError`` naming the listener if an address cannot be bound."""
        loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._state = LoopState(loop, self.hub, self.secrets)
        self._state.slots = Slots(
            loop.time,
            total=self.options.max_handshakes,
            by_listener=max(1, self.options.max_handshakes // 2),
        )
        self._files = FileWatch(self.secrets)
        self._pool = Pool(self._state)
        self._limit_resources()
        self._listeners = Listeners(loop, self._accept, self.options.open_socket)
        self._started = loop.time()
        self._tick()
        self.hub.subscribe(self._swapped)
        try:
            await self._listeners.reconcile(self.hub.current)
        except OSError:
            await self.stop()
            raise

    async def drain(self, timeout: float) -> None:
        """Stop accepting, answer with ``connection: close``, return when nobody is busy or after ``timeout`` seconds.

        Relayed connections are never between two requests; those that are silent are not waited for.
        """
        self._state.draining = self._admission.closed = True
        self._listeners.close()
        for connection in list(self._state.connections):
            connection.drain()
        if not self.connections:
            return
        self._idle.clear()
        self._check_idle()
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            log.info("%d connections did not end within %g s of draining", self.connections, timeout)

    async def stop(self) -> None:
        """Close everything at once and flush the logs."""
        if self._stopped:
            return
        self._stopped = True
        self._listeners.close()
        if self._reconciling is not None:
            self._reconciling.cancel()
        for connection in list(self._state.connections):
            connection.abort()
        self._pool.close()
        self._state.pipes.close()
        if self._timer is not None:
            self._timer.cancel()
        self.log_files.flush()
        # One turn of the loop, in which the transports really close.
        await asyncio.sleep(0)

    def addresses(self) -> dict[str, tuple[Address, ...]]:
        """Where each listener is bound, by its name."""
        return self._listeners.addresses()

    def listener_errors(self) -> dict[str, str]:
        """Listeners whose addresses could not be bound after a swap, and why."""
        return dict(self._listeners.errors)

    @property
    def connections(self) -> int:
        """Downstream connections that are open."""
        return self._admission.open

    def census(self) -> dict[str, Any]:
        """What there is of everything that comes and goes, counted after garbage and free memory are given back."""
        shrink_heap()
        self._update_gauges()
        return dataclasses.asdict(self.hub.current.stats.server) | census.objects()

    # Inside.

    def _update_gauges(self) -> None:
        stats = self.hub.current.stats.server
        census.update(stats, self._state, self._pool, connections=self.connections, started=self._started)

    def _limit_resources(self) -> None:
        descriptors = descriptor_limit()
        options = self.options
        overload = options.overload
        if overload is None:
            overload = default_overload(memory_limited=cgroup_memory_limit() > 0)
        self._overload = Overload(overload, self.hub.current.stats.overload, self._accept_or_not)
        limit = options.max_connections if overload.max_connections is None else overload.max_connections
        self._admission = Admission(
            limit=max(1, descriptors // 2) if limit is None else limit,
            by_listener=options.listener_limits,
            descriptors=descriptors,
            actions=self._overload.actions,
            on_idle=self._idle.set,
        )

    def _accept(self, listener: str, ports: frozenset[int]) -> Accepted:
        return Accepted(self._state, self._pool, self._admission, listener, ports)

    def _accept_or_not(self, accept: bool) -> None:
        """What ``stop_accepting_connections`` asks for: who connects waits in the kernel's queue meanwhile."""
        if not accept:
            self._listeners.pause()
        elif not self._state.draining and not self._stopped:
            self._listeners.resume()
            self._follow()

    def _swapped(self, old: Runtime, new: Runtime) -> None:
        if self._stopped:
            return
        self._state.runtime_changed()
        for connection in list(self._state.connections):
            connection.runtime_changed()
        if not self._state.draining:
            self._follow()

    def _follow(self) -> None:
        self._reconciling = self._state.loop.create_task(self._reconcile(self._reconciling))

    async def _reconcile(self, before: asyncio.Task[None] | None) -> None:
        """Follow a swap; one at a time, the newest snapshot last."""
        if before is not None:
            await asyncio.wait([before])
        try:
            await self._listeners.reconcile(self.hub.current)
        except OSError as error:
            log.error("%s; other listeners are not affected", error.strerror)

    def _check_idle(self) -> None:
        """End a drain that has nothing to wait for."""
        silent = sum(isinstance(one, Relay) and not one.busy for one in self._state.connections)
        if self.connections <= silent:
            self._idle.set()

    def _tick(self) -> None:
        """The sweeper. It is scheduled again before anything that may fail."""
        state = self._state
        self._timer = state.loop.call_later(TICK, self._tick)
        state.now = now = state.loop.time()
        wall = int(time.time())
        if wall != self._date:
            self._date = wall
            state.date = b"date: " + http_date(wall) + b"\r\n"
        for exchange in list(state.exchanges):
            exchange.sweep(now)
        for connection in list(state.inspecting):
            # Protocols in which the server speaks first wait for this: it is to be short.
            connection.sweep(now)
        self._ticks += 1
        if not self._ticks % _CONNECTION_TICKS:
            for connection in list(state.connections):
                connection.sweep(now)
            self._pool.sweep(now)
            state.slots.make_room()
            if state.draining:
                self._check_idle()
        if not self._ticks % _FILE_TICKS:
            self._files.poll()
        if not self._ticks % _CENSUS_TICKS:
            self._update_gauges()
        if self._overload.sweep(now):
            actions = self._overload.actions
            state.overload = actions if actions.concerns_requests else None
            state.shortened = actions if actions.concerns_timeouts else None
        self.log_files.flush()
