"""The composition root: which parts a sidecar is made of, in which order they start, and how they end.

It joins; every mechanism is elsewhere. What only a sidecar with a control plane has is joined in ``proxy.managed``.
What the first request does not need is imported after it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.accept.sockets import listen
from proxy.accept.worker import Worker, WorkerOptions
from proxy.admin.state import AdminState
from proxy.model.address import SocketAddress
from proxy.model.config import Config
from proxy.model.overload import OverloadManager
from proxy.observe.log_file import LogFiles
from proxy.overload.heap import freeze_heap
from proxy.overload.resources import raise_descriptor_limit
from proxy.plane import DataPlane, SingleProcess
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from proxy.tls.handshakes import MAX_HANDSHAKES
from proxy.tls.store import SecretStore
from proxy.xds import secrets

if TYPE_CHECKING:
    from proxy.decoder import BootstrapDecoder
    from proxy.discovery.discovery import Discovery, LiveCluster
    from proxy.health.checker import HealthChecker
    from proxy.model.cluster import LoadAssignment
    from proxy.model.connection import Address
    from proxy.workers.spawner import Spawner

log = logging.getLogger(__name__)

#: Seconds of quiet after which a new configuration is written to disk and moved out of the garbage collector's way.
SETTLE = 0.5
#: Seconds that the first requests have the process to themselves before the admin pages are loaded.
ADMIN_AFTER = 0.1
#: Clusters whose endpoints must be looked up (``proxy.discovery``).
_DNS_TYPES = frozenset({"STRICT_DNS", "LOGICAL_DNS", "DNS_SRV"})


@dataclass(frozen=True, slots=True)
class Common:
    """What a sidecar has with or without a control plane. Addresses ``None``: not served. Times are seconds."""

    admin: SocketAddress | None = None
    readiness: SocketAddress | None = None
    drain_time: float = 5.0
    mark: int = 0
    workers: int = 1
    overload: OverloadManager | None = None
    listener_limits: Mapping[str, int] = field(default_factory=dict)
    max_handshakes: int = MAX_HANDSHAKES


class Sidecar:
    """The parts that every sidecar has, started and stopped in order."""

    def __init__(self, common: Common, spawner: Spawner | None = None) -> None:
        """``spawner``: makes ``common.workers`` processes; ``None``: this process serves itself."""
        self.common = common
        self.failure: Exception | None = None
        self.log_files = LogFiles()
        self.secrets = SecretStore(secrets.parse)
        self.hub = Hub(CompileEnv(log_files=self.log_files, hostname=socket.gethostname()))
        self.hub.join(self.secrets.prepare)
        log.info("at most %d file descriptors", raise_descriptor_limit())
        self.plane = self._one_process() if spawner is None else self._several(spawner)
        self.loop = asyncio.get_running_loop()
        self.discovery: Discovery | None = None
        self.health: HealthChecker | None = None
        self._checking = False
        self._warm = False
        self.serves: Callable[[], bool] = lambda: False
        self.draining = False
        self.stopping = asyncio.Event()
        self.on_settled: Callable[[], None] = lambda: None
        # A configuration that never comes must not put off garbage collection for ever.
        self._settle: asyncio.TimerHandle | None = self.loop.call_later(SETTLE, self._settled)
        self.hub.subscribe(self._swapped)
        self.admin = AdminState(self.hub, self.plane, self.drain_listeners)
        self.admin.ready = lambda: not self.draining and self.serves() and self.plane.serving

    async def run_static(self, config: Config, decoder: BootstrapDecoder) -> None:
        """Serve ``config``, which ``decoder`` has decoded, until told to stop. Raises ``ConfigError``, ``OSError``."""
        self.admin.dump_static = decoder.dump
        async with AsyncExitStack() as stack:
            self.handle_signals()
            self.hub.apply(config)
            await self.serve_data(stack)
            self.serves = lambda: True
            self._when_ended(decoder)
            await self.serve_admin(stack)
            await self.stopping.wait()
            await self.drain()

    def warmed(self) -> bool:
        """Whether each host that is to be checked was once, for the first time; then for good."""
        self._warm = self._warm or self.health is None or self.health.warm
        return self._warm

    def new_identity(self, key_and_chain: bytes, bundle: str) -> None:
        """Use this key and chain and these roots (PEM) for handshakes from now on. Raises ``SecretError``."""
        self.secrets.set_identity(key_and_chain, bundle)
        self.plane.new_identity(key_and_chain, bundle)
        if self.health is not None:
            self.health.secrets_changed()

    async def serve_data(self, stack: AsyncExitStack) -> None:
        """Open the listeners, when each host that is to be checked was once. Raises ``OSError``."""
        self._checking = True
        stack.push_async_callback(self._stop_checks)
        if self.health is not None:
            self.health.start()
            checked = self.loop.create_task(self.health.first_round())
            stopped = self.loop.create_task(self.stopping.wait())
            try:
                await asyncio.wait((checked, stopped), return_when=asyncio.FIRST_COMPLETED)
            finally:
                checked.cancel()
                stopped.cancel()
        stack.push_async_callback(self.plane.stop)
        await self.plane.start()
        stack.push_async_callback(self._stop_discovery)

    async def serve_admin(self, stack: AsyncExitStack) -> None:
        """Open the admin and readiness ports. Raises ``OSError``.

        Who asks at once waits a moment: the first requests come before the loading of the pages.
        """
        opened = {
            address: listen(address, ipv4_compat=False, backlog=64, reuse_port=False)
            for address in (self.common.admin, self.common.readiness)
            if address is not None
        }
        if not opened:
            return
        await self._pause(ADMIN_AFTER)
        from proxy.admin.pages import admin_pages, readiness_pages
        from proxy.admin.server import AdminServer

        for address, sock in opened.items():
            admin = address == self.common.admin
            pages = admin_pages(self.admin) if admin else readiness_pages(self.admin)
            server = AdminServer(pages, address, local_only=admin)
            await server.start(sock)
            stack.push_async_callback(server.stop)

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT end the sidecar in order, SIGUSR1 opens the logs again."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stopping.set)
        self.loop.add_signal_handler(signal.SIGUSR1, self.plane.reopen_logs)

    def drain_listeners(self) -> None:
        """Begin to drain without ending (``POST /drain_listeners``): readiness off, no new connections."""
        self.draining = True
        task = self.loop.create_task(self.plane.drain(self.common.drain_time))
        task.add_done_callback(lambda done: done.exception())

    async def drain(self) -> None:
        """Take no new connections; return when the open ones are idle or the drain time is over."""
        self.draining = True
        log.info("draining for at most %.0f s", self.common.drain_time)
        await self.plane.drain(self.common.drain_time)
        if self._settle is not None:
            self._settle.cancel()
            self.on_settled()
        if self.failure is not None:
            raise self.failure

    def _one_process(self) -> DataPlane:
        common = self.common
        options = WorkerOptions(
            overload=common.overload,
            listener_limits=common.listener_limits,
            max_handshakes=common.max_handshakes,
        )
        return SingleProcess(
            self.hub, Worker(self.hub, self.secrets, self.log_files, options), self.log_files
        )

    def _several(self, spawner: Spawner) -> DataPlane:
        from proxy.workers.pool import PoolOptions, WorkerPool

        common = self.common
        options = PoolOptions(common.workers, common.overload, common.listener_limits, common.max_handshakes)
        return WorkerPool(spawner, self.hub, options, self._fail)

    def _fail(self, error: Exception) -> None:
        """End in order, and with ``error``."""
        self.failure = error
        self.stopping.set()

    def _swapped(self, old: Runtime, new: Runtime) -> None:
        if self.discovery is None and any(c.config.type in _DNS_TYPES for c in new.clusters.values()):
            from proxy.discovery.discovery import Discovery

            self.discovery = Discovery(self.loop, mark=self.common.mark, publish=self._found)
        if self.discovery is not None:
            self.discovery.reconcile(dict(new.clusters))
        if self.health is None and any(c.config.health_check is not None for c in new.clusters.values()):
            self.health = self._checker()
        if self.health is not None:
            self.health.reconcile(new.clusters)
        if self._settle is not None:
            self._settle.cancel()
        self._settle = self.loop.call_later(SETTLE, self._settled)

    def _found(self, cluster: LiveCluster, assignment: LoadAssignment) -> None:
        cluster.set_endpoints(assignment)
        self.plane.endpoints(cluster.name, assignment)
        self._follow(cluster.name)

    def _checker(self) -> HealthChecker:
        from proxy.health.checker import HealthChecker
        from proxy.upstream.loop_state import LoopState

        state = LoopState(self.loop, self.hub, self.secrets)
        made = HealthChecker(state, self._checked, self.plane.has_traffic)
        if self._checking:
            made.start()
        return made

    def _checked(self, name: str, found: Mapping[Address, int]) -> None:
        cluster = self.hub.current.clusters.get(name)
        if cluster is not None:
            cluster.set_health(found)
            self.plane.health(name, found)
            self._follow(name)

    def _follow(self, name: str) -> None:
        cluster = self.hub.current.clusters.get(name)
        if self.health is not None and cluster is not None:
            self.health.follow(cluster)

    async def _stop_checks(self) -> None:
        if self.health is not None:
            await self.health.stop()

    def _settled(self) -> None:
        self._settle = None
        self.on_settled()
        freeze_heap()

    async def _stop_discovery(self) -> None:
        if self.discovery is not None:
            await self.discovery.stop()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for longer than the sidecar runs."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    def _when_ended(self, decoder: BootstrapDecoder) -> None:
        """Have no zombie: take note of the decoder's end when it comes."""

        def ended() -> None:
            self.loop.remove_reader(pipe)
            decoder.finish()

        pipe = decoder.pipe
        if pipe >= 0:
            self.loop.add_reader(pipe, ended)
