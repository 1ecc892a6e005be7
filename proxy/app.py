"""The composition root: which parts a sidecar is made of, in which order they start, and how they end.

It joins; every mechanism is elsewhere. Nothing imports it but the command line.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.accept.worker import Worker, WorkerOptions
from proxy.admin.pages import AdminState, admin_pages, readiness_pages
from proxy.admin.server import AdminServer
from proxy.discovery.discovery import Discovery
from proxy.model.address import SocketAddress
from proxy.model.config import Config, ConfigError
from proxy.model.overload import OverloadManager
from proxy.observe.log_file import LogFiles
from proxy.overload.resources import raise_descriptor_limit
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from proxy.tls.identity import CaClient, Identity, IdentityManager
from proxy.tls.store import SecretStore
from proxy.xds import node, secret_file
from proxy.xds.cache import ConfigCache
from proxy.xds.client import AdsClient
from proxy.xds.session import DeltaSession

log = logging.getLogger(__name__)

#: Seconds of quiet after which a new configuration is written to disk and moved out of the garbage collector's way.
SETTLE = 0.5


@dataclass(frozen=True, slots=True)
class Common:
    """What a sidecar has with or without a control plane. Addresses ``None``: not served. Times are seconds."""

    admin: SocketAddress | None = None
    readiness: SocketAddress | None = None
    drain_time: float = 5.0
    mark: int = 0
    overload: OverloadManager | None = None
    listener_limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Managed:
    """A sidecar whose control plane is at ``xds``, its CA at ``ca`` (``host:port``). ``token()`` gives a join token."""

    xds: SocketAddress
    ca: str
    node: node.NodeOptions
    state_dir: Path
    token: Callable[[], str | None]
    control_plane_account: str = "ns/tulle-system/sa/control-plane"


class Sidecar:
    """The parts that every sidecar has, started and stopped in order."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.log_files = LogFiles()
        self.secrets = SecretStore(secret_file.parse)
        self.hub = Hub(CompileEnv(log_files=self.log_files, hostname=socket.gethostname()))
        self.hub.join(self.secrets.prepare)
        options = WorkerOptions(overload=common.overload, listener_limits=common.listener_limits)
        log.info("at most %d file descriptors", raise_descriptor_limit())
        self.worker = Worker(self.hub, self.secrets, self.log_files, options)
        self.loop = asyncio.get_running_loop()
        self.discovery = Discovery(self.loop, mark=common.mark)
        self.draining = False
        self.stopping = asyncio.Event()
        self._settle: asyncio.TimerHandle | None = None
        self.hub.subscribe(self._swapped)
        self.admin = AdminState(self.hub, self.log_files, self.discovery, self.drain_listeners)
        self.on_settled: Callable[[], None] = lambda: None

    async def run_static(self, config: Config, message: Any) -> None:
        """Serve a static configuration until told to stop. Raises ``ConfigError``, ``OSError``."""
        self.admin.dump_static = message
        async with AsyncExitStack() as stack:
            self.hub.apply(config)
            await self._serve(stack)
            self.admin.ready = lambda: not self.draining
            await self.stopping.wait()
            await self._drain()

    async def run_managed(self, managed: Managed) -> None:
        """Serve what the control plane says until told to stop. Raises ``IdentityError``, ``OSError``."""
        identities = IdentityManager(
            managed.state_dir,
            CaClient(managed.ca, self.common.mark),
            token=managed.token,
            namespace=managed.node.namespace,
            service_account=managed.node.service_account,
        )
        identities.subscribe(self._new_identity)
        self.admin.identities = identities
        session = DeltaSession(
            node.build(managed.node), self.hub.apply, check=self.hub.check, clock=self.loop.time
        )
        self.admin.session = session
        cache = ConfigCache(managed.state_dir)
        self.on_settled = lambda: _save(cache, session)
        async with AsyncExitStack() as stack:
            self._restore(cache, session)
            started = asyncio.create_task(self._start_managed(stack, managed, identities, session))
            await self._serve_admin(stack)
            stopping = asyncio.create_task(self.stopping.wait())
            await asyncio.wait((started, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not started.done():
                started.cancel()
                await asyncio.gather(started, return_exceptions=True)
                return
            ads = started.result()
            await stopping
            self.draining = True
            await ads.stop()
            await self._drain()

    async def _start_managed(
        self, stack: AsyncExitStack, managed: Managed, identities: IdentityManager, session: DeltaSession
    ) -> AdsClient:
        identity = await identities.start()
        stack.push_async_callback(identities.close)
        self._new_identity(identity)
        await self._serve_data(stack)
        ads = AdsClient(
            session,
            managed.xds,
            lambda: client_context(identities.current),
            server_id=f"spiffe://{identity.spiffe_id.trust_domain}/{managed.control_plane_account}",
            mark=self.common.mark,
        )
        ads.start()
        stack.push_async_callback(ads.stop)
        self.admin.ads = ads
        self.admin.ready = lambda: not self.draining and session.complete()
        return ads

    def _restore(self, cache: ConfigCache, session: DeltaSession) -> None:
        resources = cache.load()
        if resources is None:
            return
        try:
            session.restore(resources)
        except ConfigError as error:
            cache.set_aside(str(error))
            return
        log.info("configuration restored from %s: %d resources", cache.path, len(resources))

    def _new_identity(self, identity: Identity) -> None:
        self.secrets.set_identity(identity.path, "".join(_pem(der) for der in identity.bundle.roots))

    def _swapped(self, old: Runtime, new: Runtime) -> None:
        self.discovery.reconcile(dict(new.clusters))
        if self._settle is not None:
            self._settle.cancel()
        self._settle = self.loop.call_later(SETTLE, self._settled)

    def _settled(self) -> None:
        self._settle = None
        self.on_settled()
        # A large configuration makes each full collection cost milliseconds in the middle of requests; frozen, it
        # costs nothing.
        gc.collect()
        gc.freeze()
        # Requests leave few cycles behind: looking for them at every 700 allocations costs more than it frees.
        gc.set_threshold(50_000, 20, 100)

    async def _serve(self, stack: AsyncExitStack) -> None:
        await self._serve_data(stack)
        await self._serve_admin(stack)

    async def _serve_data(self, stack: AsyncExitStack) -> None:
        await self.worker.start()
        stack.push_async_callback(self.worker.stop)
        stack.push_async_callback(self.discovery.stop)

    async def _serve_admin(self, stack: AsyncExitStack) -> None:
        for address, pages, local_only in (
            (self.common.admin, admin_pages(self.admin), True),
            (self.common.readiness, readiness_pages(self.admin), False),
        ):
            if address is not None:
                server = AdminServer(pages, address, local_only=local_only)
                await server.start()
                stack.push_async_callback(server.stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stopping.set)
        self.loop.add_signal_handler(signal.SIGUSR1, self.log_files.reopen)

    def drain_listeners(self) -> None:
        """Begin to drain without ending (``POST /drain_listeners``): readiness off, no new connections."""
        self.draining = True
        task = self.loop.create_task(self.worker.drain(self.common.drain_time))
        task.add_done_callback(lambda done: done.exception())

    async def _drain(self) -> None:
        self.draining = True
        log.info("draining for at most %.0f s", self.common.drain_time)
        await self.worker.drain(self.common.drain_time)
        if self._settle is not None:
            self._settle.cancel()
            self.on_settled()


def client_context(identity: Identity) -> ssl.SSLContext:
    """TLS towards the control plane: our SVID, the mesh's roots, HTTP/2. Its name is checked as a SPIFFE ID."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata="".join(_pem(der) for der in identity.bundle.roots))
    context.load_cert_chain(identity.path)
    context.set_alpn_protocols(["h2"])
    return context


def _save(cache: ConfigCache, session: DeltaSession) -> None:
    # An incomplete set would leave out what a restart needs; the one before is better.
    if not session.complete():
        return
    try:
        cache.save(session.saved())
    except OSError as error:
        log.warning("the configuration could not be kept in %s: %s", cache.path, error)


def _pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)
