"""The control plane's composition root: store, CA, API, xDS and metrics, started and stopped in order.

It joins the parts and owns the data directory's layout; it must hold no logic of theirs::

    store.db           the objects, their history          ca/                 root and issuing CA
    server.pem         our server identity                 admin.pem           the administrator's identity
    admin.conf         how to reach the API (kubeconfig)   access-tokens.json  hashes of bearer tokens
    run.json           pid and ports while we run
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from certs.bundle import join_pem
from control_plane.addresses import HostPort, is_address
from control_plane.admin_conf import write_admin_conf, write_run
from control_plane.api import server as api
from control_plane.api.access import Authenticator
from control_plane.api.access_tokens import AccessTokens
from control_plane.api.context import ApiContext, Counters
from control_plane.api.objects import StatusProvider
from control_plane.api.writer import Writer
from control_plane.ca import bootstrap, held
from control_plane.ca import http as ca_http
from control_plane.ca.issuance_log import IssuanceLog
from control_plane.ca.service import CertificateService
from control_plane.ca.tokens import JoinTokens
from control_plane.config import ControlPlaneConfig
from control_plane.metrics import Metrics
from control_plane.store.sqlite import SqliteOptions, SqliteStore
from control_plane.translate.settings import MeshSettings
from control_plane.xds import debug
from control_plane.xds.mesh import RegistryMesh
from control_plane.xds.push import Pusher
from control_plane.xds.server import ServerIdentity, XdsServer
from control_plane.xds.status import StatusBoard

log = logging.getLogger(__name__)

PURGE_INTERVAL = 3600.0
"""Seconds between removals of join tokens that expired long ago."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ControlPlane:
    """One running control plane. ``addresses``: where it listens, by name, once started."""

    def __init__(self, config: ControlPlaneConfig) -> None:
        self.config = config
        self.addresses: dict[str, HostPort] = {}
        self.failed = asyncio.Event()
        """Set when a background part died; the process should end and be started anew."""
        self._cleanup = contextlib.AsyncExitStack()
        self._metrics = Metrics()
        self._ready: str | None = "starting"

    async def start(self) -> None:
        """Open everything. What was opened is closed again if something fails.

        Raises ``StoreUnavailable``, ``BootstrapError``, ``OSError`` (a port is taken), ``ValueError``.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config = self.config
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = await SqliteStore.open(
            config.data_dir / "store.db", SqliteOptions(keep_revisions=config.keep_revisions)
        )
        self._cleanup.push_async_callback(store.close)
        _register_store(self._metrics, store)

        service = self._certificate_service(store)
        names = self._names()
        server = held.server_identity(
            service,
            config.data_dir / "server.pem",
            dns_names=tuple(name for name in names if not is_address(name)),
            addresses=tuple(name for name in names if is_address(name)),
            clock=_utc_now,
        )
        admin = held.admin_identity(service, config.data_dir / "admin.pem", clock=_utc_now)
        self._background(held.keep_fresh([server, admin]), "certificate renewal")
        self._background(_purge(service.tokens), "join token purge")

        board = StatusBoard(clock=time.time)
        pusher = Pusher(store, RegistryMesh(self._settings(), _pem(service)), board)
        pusher.counters.register(self._metrics)
        context = self._api_context(store, board)

        def more_routes(app: web.Application) -> None:
            ca_http.setup_routes(app, service)
            debug.setup_routes(app, pusher)

        app = api.build(context, more_routes)
        tls = held.server_context(server, service.bundle)
        self.addresses["api"] = await self._serve(app, config.api, tls)
        if config.monitoring is not None:
            self.addresses["monitoring"] = await self._serve(
                self._monitoring(context), config.monitoring, None
            )
        await self._serve_xds(pusher, server, service)
        self._ready = None
        self._announce(service)

    async def stop(self) -> None:
        """Close everything, last opened first."""
        self._ready = "stopping"
        await self._cleanup.aclose()

    # -- parts

    def _certificate_service(self, store: SqliteStore) -> CertificateService:
        config = self.config
        authority = bootstrap.load_or_create(
            config.data_dir / "ca",
            config.trust_domain,
            clock=_utc_now,
            passphrase=bootstrap.read_passphrase(config.ca_passphrase_file),
        )
        issuance_log = IssuanceLog(config.data_dir / "issuance.jsonl")
        self._cleanup.callback(issuance_log.close)
        service = CertificateService(
            authority,
            JoinTokens(store, authority.root_pin, clock=_utc_now),
            issuance_log,
            clock=_utc_now,
            svid_lifetime=config.svid_lifetime,
        )
        self._metrics.reading(
            "tulle_ca_certificates_issued_total", "Certificates issued.", service.issued.total
        )
        self._metrics.reading(
            "tulle_ca_certificates_refused_total", "Certificate requests refused.", service.refused.total
        )
        return service

    def _api_context(self, store: SqliteStore, status: StatusProvider) -> ApiContext:
        config = self.config
        tokens = AccessTokens(config.data_dir / "access-tokens.json")
        context = ApiContext(
            store=store,
            history=store,
            writer=Writer(store, service_cidr=config.service_cidr, retries=config.limits.retries),
            status=status,
            authenticator=Authenticator(config.trust_domain, tokens, time.time),
            limits=config.limits,
            counters=Counters.register(self._metrics),
            ready=lambda: self._ready,
        )
        self._metrics.gauge("tulle_api_watches", "Open watches.", lambda: context.watches)
        return context

    def _settings(self) -> MeshSettings:
        config = self.config
        return MeshSettings(
            trust_domain=config.trust_domain,
            mesh_domain=config.mesh_domain,
            dns_resolvers=config.dns_resolvers,
            h2_upgrade_policy=config.h2_upgrade_policy,
        )

    async def _serve_xds(
        self, pusher: Pusher, server: held.HeldIdentity, service: CertificateService
    ) -> None:
        config = self.config
        await pusher.start()
        self._cleanup.push_async_callback(pusher.stop)
        xds = XdsServer(pusher, trust_domain=config.trust_domain)

        def identity() -> ServerIdentity:
            return ServerIdentity(server.key_pem, server.chain_pem, _pem(service))

        if config.xds is not None:
            port = await xds.listen_tls(str(config.xds), identity())
            self.addresses["xds"] = HostPort(config.xds.host, port)
        if config.xds_plaintext is not None:
            port = await xds.listen_plaintext(str(config.xds_plaintext))
            self.addresses["xds_plaintext"] = HostPort(config.xds_plaintext.host, port)
        await xds.start()
        self._cleanup.push_async_callback(xds.stop, 1.0)
        server.subscribe(lambda _held: xds.rotate(identity()))

    def _monitoring(self, context: ApiContext) -> web.Application:
        """Metrics and health without authentication; bound to loopback unless told otherwise."""

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(
                text=self._metrics.render(),
                headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
            )

        async def ready(_request: web.Request) -> web.Response:
            problem = context.ready()
            return web.Response(text=problem or "ok", status=503 if problem else 200)

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        app.router.add_get("/ready", ready)
        return app

    async def _serve(self, app: web.Application, address: HostPort, tls: Any) -> HostPort:
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=3.0)
        await runner.setup()
        self._cleanup.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, address.host, address.port, ssl_context=tls).start()
        bound = runner.addresses[0]
        return HostPort(address.host, bound[1])

    def _background(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=what)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                log.critical("%s ended: %s", what, task.exception(), exc_info=task.exception())
                self.failed.set()

        async def cancel() -> None:
            task.cancel()
            await asyncio.wait([task])

        task.add_done_callback(ended)
        self._cleanup.push_async_callback(cancel)

    # -- telling others

    def _names(self) -> list[str]:
        """What the server certificate is good for: what was advertised, where we listen, and this host."""
        bound = [address.host for address in (self.config.api, self.config.xds) if address is not None]
        own = ["localhost", "127.0.0.1", "::1", socket.gethostname().lower()]
        return list(
            dict.fromkeys(name for name in (*self.config.advertise, *bound, *own) if not _is_any(name))
        )

    def _announce(self, service: CertificateService) -> None:
        directory = self.config.data_dir
        host = next(iter(self.config.advertise), self.config.api.host)
        server = HostPort("127.0.0.1" if _is_any(host) else host, self.addresses["api"].port)
        write_admin_conf(
            directory / "admin.conf",
            server=f"https://{server}",
            ca=directory / "ca" / "root.crt",
            identity=directory / "admin.pem",
        )
        run = directory / "run.json"
        addresses = {name: str(address) for name, address in self.addresses.items()}
        write_run(run, {"pid": os.getpid(), "server": f"https://{server}", **addresses})
        self._cleanup.callback(run.unlink, missing_ok=True)
        log.info("ready: trust domain %s, %s", service.trust_domain, addresses)


async def run(config: ControlPlaneConfig, started: Callable[[ControlPlane], None]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. ``started`` is called once all ports are open."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    plane = ControlPlane(config)
    await plane.start()
    try:
        started(plane)
        ends = [asyncio.create_task(told.wait()), asyncio.create_task(plane.failed.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
    finally:
        await plane.stop()
    return 1 if plane.failed.is_set() else 0


async def _purge(tokens: JoinTokens) -> None:
    while True:
        await tokens.purge()
        await asyncio.sleep(PURGE_INTERVAL)


def _pem(service: CertificateService) -> bytes:
    return join_pem(service.bundle.roots).encode("ascii")


def _is_any(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


def _register_store(metrics: Metrics, store: SqliteStore) -> None:
    counters = store.counters
    metrics.gauge("tulle_store_revision", "The newest revision.", lambda: store.revision)
    metrics.reading("tulle_store_commits_total", "Revisions made.", lambda: counters.commits)
    metrics.reading(
        "tulle_store_unchanged_total", "Commits that changed nothing.", lambda: counters.unchanged
    )
    metrics.reading(
        "tulle_store_conflicts_total", "Commits refused by a precondition.", lambda: counters.conflicts
    )
    metrics.reading("tulle_store_flushes_total", "Transactions written to disk.", lambda: counters.flushes)
    metrics.reading(
        "tulle_store_compacted_total", "Revisions forgotten by compaction.", lambda: counters.compacted
    )
    metrics.reading(
        "tulle_store_refused_total", "Commits refused because too many waited.", lambda: counters.refused
    )
    metrics.reading(
        "tulle_store_watch_replays_total",
        "Times that a watcher had to read the change log.",
        lambda: store.lagged_watches,
    )
