"""A worker: the data path, led by messages. It talks to nobody but its leader and the traffic.

It opens no listening socket itself, asks no control plane and looks up no name; when its leader is gone, it ends.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable

import uvloop

from proxy.accept.listeners import SocketKey
from proxy.accept.worker import Worker, WorkerOptions
from proxy.model.config import Config, ConfigError
from proxy.observe.log_file import LogFiles
from proxy.observe.totals import report
from proxy.overload.heap import freeze_heap, keep_read_buffers
from proxy.overload.resources import raise_descriptor_limit
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from proxy.tls.errors import SecretError
from proxy.tls.store import SecretStore
from proxy.workers import messages, share
from proxy.workers.channel import Channel
from proxy.xds import secrets

log = logging.getLogger(__name__)

#: Seconds of quiet after which a new configuration is moved out of the garbage collector's way.
SETTLE = 0.5


def warm() -> None:
    """Do before the fork, once, what each worker would do in memory of its own: OpenSSL's tables, the allocator."""
    keep_read_buffers()
    for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        ssl.SSLContext(side)


def work(sock: socket.socket) -> None:
    """Serve until told to stop, or until the leader is gone."""
    uvloop.run(_serve(sock))


async def _serve(sock: socket.socket) -> None:
    process = _Process(sock)
    await process.ended.wait()
    await process.stop()


class _Process:
    def __init__(self, sock: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._channel = Channel(sock, self._received, self._orphaned, self._watch_writable)
        self._log_files = LogFiles(shared=True)
        self._secrets = SecretStore(secrets.parse)
        self._hub = Hub(CompileEnv(log_files=self._log_files, hostname=socket.gethostname()))
        self._hub.join(self._secrets.prepare)
        self._workers = 1
        self._worker: Worker | None = None
        self._starting: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._config = Config()
        self._prepared: tuple[Config, Callable[[], Runtime]] | None = None
        self._sockets: dict[SocketKey, socket.socket] = {}
        self._settle: asyncio.TimerHandle | None = None
        self.loop.add_signal_handler(signal.SIGUSR1, self._log_files.reopen)
        self.loop.add_reader(self._channel, self._channel.read)
        raise_descriptor_limit()

    async def stop(self) -> None:
        """Close all connections, flush the logs."""
        if self._worker is not None:
            await self._worker.stop()
        self._log_files.close()
        if not self._channel.ended:
            self.loop.remove_reader(self._channel)
            self.loop.remove_writer(self._channel)
            self._channel.close()

    def _received(self, message: object) -> None:
        match message:
            case messages.Begin():
                self._begin(message)
            case messages.Prepare():
                self._prepare(message)
            case messages.Socket(key):
                self._sockets[key] = socket.socket(fileno=self._channel.take_descriptor())
            case messages.Commit(number):
                self._commit(number)
            case messages.NewIdentity(pem, bundle):
                self._new_identity(pem, bundle)
            case messages.Endpoints(name, assignment):
                cluster = self._hub.current.clusters.get(name)
                if cluster is not None:
                    cluster.set_endpoints(assignment)
            case messages.Health(name, found):
                cluster = self._hub.current.clusters.get(name)
                if cluster is not None:
                    cluster.set_health(found)
            case messages.AskReport(number):
                current = self._hub.current
                made = report(current.stats, current.clusters.values())
                self._channel.send(messages.Reported(number, made))
            case messages.AskCensus(number):
                self._channel.send(messages.Census(number, self._worker.census() if self._worker else {}))
            case messages.Drain(timeout):
                self._draining = self.loop.create_task(self._drain(timeout))
            case messages.ReopenLogs():
                self._log_files.reopen()
            case messages.LogLevel(level):
                logging.getLogger().setLevel(level.upper())
            case messages.Stop():
                self.ended.set()
            case _:
                raise TypeError(f"{type(message).__name__} is not for a worker")

    def _begin(self, begin: messages.Begin) -> None:
        self._workers = begin.workers
        options = WorkerOptions(
            overload=share.of_overload(begin.overload, begin.workers),
            listener_limits=share.of_listeners(begin.listener_limits, begin.workers),
            max_handshakes=begin.max_handshakes,
            open_socket=self._take_socket,
        )
        self._worker = Worker(self._hub, self._secrets, self._log_files, options)

    def _prepare(self, wanted: messages.Prepare) -> None:
        changes = wanted.changes
        clusters = changes.changed.get("clusters", {})
        if clusters:
            shares = {name: share.of_cluster(one, self._workers) for name, one in clusters.items()}
            changes = messages.Changes(changes.version, {**changes.changed, "clusters": shares}, changes.gone)
        config = messages.apply_changes(self._config, changes)
        try:
            self._prepared = config, self._hub.prepare(config)
        except ConfigError as error:
            self._prepared = None
            self._channel.send(messages.Prepared(wanted.number, error.path, error.message))
            return
        self._channel.send(messages.Prepared(wanted.number))

    def _commit(self, number: int) -> None:
        assert self._prepared is not None
        self._config, commit = self._prepared
        self._prepared = None
        commit()
        if self._settle is not None:
            self._settle.cancel()
        self._settle = self.loop.call_later(SETTLE, freeze_heap)
        if self._starting is None:
            self._starting = self.loop.create_task(self._start(number))
        else:
            self._channel.send(messages.Committed(number))

    async def _start(self, number: int) -> None:
        assert self._worker is not None
        try:
            await self._worker.start()
        except OSError as error:
            log.error("%s", error.strerror)
        self._channel.send(messages.Committed(number))

    async def _drain(self, timeout: float) -> None:
        if self._worker is not None and self._starting is not None:
            await self._starting
            await self._worker.drain(timeout)
        self._channel.send(messages.Drained())

    def _take_socket(self, key: SocketKey) -> socket.socket:
        sock = self._sockets.pop(key, None)
        if sock is None:
            # Its leader has said why in the log.
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {key.address}")
        return sock

    def _new_identity(self, pem: bytes, bundle: str) -> None:
        try:
            self._secrets.set_identity(pem, bundle)
        except SecretError:
            # The leader has used it already; whatever it is, the old one stays.
            log.exception("a new identity could not be used")

    def _orphaned(self) -> None:
        """The leader is gone. Nobody could ever tell this process anything again, and its ports must not stay taken."""
        log.error("worker process %d: the sidecar's main process is gone", os.getpid())
        self.loop.remove_reader(self._channel)
        self.ended.set()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted:
            self.loop.add_writer(self._channel, self._channel.flush)
        else:
            self.loop.remove_writer(self._channel)
