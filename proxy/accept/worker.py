"""What one event loop has one of: listeners, buffers, the sweeper, the connections, and their common end.

It composes the data path and looks at no byte. All its timers are one: the sweeper, every 100 ms.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from proxy.accept.accepted import Accepted
from proxy.accept.listeners import Listeners
from proxy.model.connection import Address
from proxy.observe.log_file import LogFiles
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from proxy.tls.store import SecretStore
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool

log = logging.getLogger(__name__)

TICK: Final = 0.1
"""Seconds between two looks at the deadlines of exchanges."""
_CONNECTION_TICKS: Final = 5
"""Connections, whose deadlines are long, are looked at every so many ticks."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """``max_connections``: open at one time over all listeners; more are closed (``downstream_cx_overflow``).

    ``reuse_port``: other workers listen on the same addresses.
    """

    max_connections: int = 10_000
    reuse_port: bool = False


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
        self.connections = 0
        self._state: LoopState
        self._pool: Pool
        self._listeners: Listeners
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._date = 0
        self._idle: asyncio.Event
        self._reconciling: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Bind and listen. Raises ``OSError`` naming the listener if an address cannot be bound."""
        loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._state = LoopState(loop, self.hub, self.secrets)
        self._pool = Pool(self._state)
        self._listeners = Listeners(loop, self._accept, reuse_port=self.options.reuse_port)
        self._tick()
        self.hub.subscribe(self._swapped)
        try:
            await self._listeners.reconcile(self.hub.current)
        except OSError:
            await self.stop()
            raise

    async def drain(self, timeout: float) -> None:
        """Stop accepting, answer with ``connection: close``, return when all is idle or after ``timeout`` seconds."""
        self._state.draining = True
        self._listeners.close()
        for connection in list(self._state.connections):
            connection.drain()
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

    # Counting (what ``Accepted`` asks).

    def admit(self) -> bool:
        """Whether one more connection may be open."""
        if self.connections >= self.options.max_connections or self._state.draining:
            return False
        self.connections += 1
        self._idle.clear()
        return True

    def leave(self) -> None:
        self.connections -= 1
        if not self.connections:
            self._idle.set()

    # Inside.

    def _accept(self, listener: str, ports: frozenset[int]) -> Accepted:
        return Accepted(self._state, self._pool, self, listener, ports)

    def _swapped(self, old: Runtime, new: Runtime) -> None:
        if self._stopped:
            return
        self._state.runtime_changed()
        for connection in list(self._state.connections):
            connection.runtime_changed()
        if not self._state.draining:
            self._reconciling = self._state.loop.create_task(self._reconcile(self._reconciling))

    async def _reconcile(self, before: asyncio.Task[None] | None) -> None:
        """Follow a swap; one at a time, the newest snapshot last."""
        if before is not None:
            await asyncio.wait([before])
        try:
            await self._listeners.reconcile(self.hub.current)
        except OSError as error:
            log.error("%s; other listeners are not affected", error.strerror)

    def _tick(self) -> None:
        """The sweeper. It is scheduled again before anything that may fail."""
        state = self._state
        self._timer = state.loop.call_later(TICK, self._tick)
        state.now = now = state.loop.time()
        wall = int(time.time())
        if wall != self._date:
            self._date = wall
            state.date = b"date: " + formatdate(wall, usegmt=True).encode() + b"\r\n"
        for exchange in list(state.exchanges):
            exchange.sweep(now)
        self._ticks += 1
        if not self._ticks % _CONNECTION_TICKS:
            for connection in list(state.connections):
                connection.sweep(now)
            self._pool.sweep(now)
        self.log_files.flush()
