"""A real ``Worker`` in the test's loop, configuration made in Python, and peers that speak bytes."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.accept.worker import Worker, WorkerOptions
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, Endpoint, LoadAssignment, LocalityEndpoints
from proxy.model.config import Config
from proxy.model.listener import FilterChain, FilterChainMatch, HttpConnectionManager, Listener, TcpProxy
from proxy.model.matcher import PathMatcher, StringMatcher
from proxy.model.route import (
    DirectResponseAction,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from proxy.model.tls import (
    CommonTls,
    DownstreamTls,
    SanMatcher,
    SecretRef,
    UpstreamTls,
    ValidationContext,
)
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.store import SecretStore
from tests.fakes import pki

HOST = "127.0.0.1"
WAIT = 10.0
"""Seconds after which a test gives up; never how long it takes."""


def cluster(name: str, *ports: int, **options: Any) -> Cluster:
    endpoints = tuple(Endpoint(SocketAddress(HOST, port)) for port in ports)
    assignment = LoadAssignment(name, (LocalityEndpoints(endpoints),) if endpoints else ())
    return Cluster(name, "STATIC", load_assignment=assignment, **options)


def forward(prefix: str, to: str, **options: Any) -> Route:
    return Route(
        prefix, RouteMatch(PathMatcher("prefix", prefix)), RouteAction((WeightedCluster(to, 1),), **options)
    )


def direct(prefix: str, status: int, body: bytes = b"") -> Route:
    return Route(prefix, RouteMatch(PathMatcher("prefix", prefix)), DirectResponseAction(status, body))


def table(*routes: Route) -> RouteConfiguration:
    return RouteConfiguration("r", (VirtualHost("v", ("*",), routes),))


def http(*routes: Route, **options: Any) -> HttpConnectionManager:
    return HttpConnectionManager("test", table(*routes), **options)


def tcp(to: str, **options: Any) -> TcpProxy:
    return TcpProxy("test", (WeightedCluster(to, 1),), **options)


def chain(terminal: HttpConnectionManager | TcpProxy, **options: Any) -> FilterChain:
    return FilterChain(options.pop("name", "c"), terminal, **options)


def listener(*chains: FilterChain, name: str = "l", **options: Any) -> Listener:
    return Listener(name, SocketAddress(HOST, options.pop("port", 0)), chains, **options)


def config(*parts: Listener | Cluster, version: str = "1") -> Config:
    return Config(
        version,
        listeners={part.name: part for part in parts if isinstance(part, Listener)},
        clusters={part.name: part for part in parts if isinstance(part, Cluster)},
    )


TLS_ONLY = FilterChainMatch(transport_protocol="tls")


def mesh_tls(*names: str) -> CommonTls:
    """mTLS with the workload's identity; the peer's URI must be one of ``names`` (any, if there are none)."""
    matchers = tuple(SanMatcher("URI", StringMatcher("exact", name)) for name in names)
    return CommonTls(
        certificate_secrets=(SecretRef("default"),),
        validation=ValidationContext(
            None, matchers or (SanMatcher("URI", StringMatcher("prefix", "spiffe://")),)
        ),
        validation_secret=SecretRef("ROOTCA", from_ads=True),
        alpn_protocols=("tulle",),
    )


def strict(*names: str) -> DownstreamTls:
    return DownstreamTls(mesh_tls(*names), require_client_certificate=True)


def mutual(*names: str) -> UpstreamTls:
    return UpstreamTls(mesh_tls(*names))


def spiffe(account: str) -> str:
    return f"spiffe://mesh.local/ns/default/sa/{account}"


class Mesh:
    """A trust domain whose certificates are valid now."""

    def __init__(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self._valid: dict[str, Any] = {
            "not_before": now - datetime.timedelta(hours=1),
            "not_after": now + datetime.timedelta(hours=1),
        }
        self.root = pki.make(
            ca=True,
            usage=pki.CA_USAGE,
            uris=("spiffe://mesh.local",),
            ekus=None,
            subject="root",
            **self._valid,
        )

    def pem(self, account: str, **options: Any) -> bytes:
        """Key and certificate of a workload."""
        made = pki.make(
            **{"signer": self.root, "uris": (spiffe(account),), "subject": account, **self._valid, **options}
        )
        return made.key_pem + made.pem.encode()

    def secrets(self, account: str, **options: Any) -> SecretStore:
        store = SecretStore()
        store.set_identity(self.pem(account, **options), self.root.pem)
        return store


@dataclass
class Sidecar:
    """A running worker. ``address`` is that of its listener ``l``; ``log`` what its access logs got."""

    worker: Worker
    hub: Hub
    secrets: SecretStore
    port: int = 0
    extra: dict[str, int] = field(default_factory=dict)

    def apply(self, new: Config) -> None:
        self.hub.apply(new)

    def cluster_stats(self, name: str) -> Any:
        return self.hub.current.clusters[name].stats

    def http_stats(self) -> Any:
        return self.hub.current.stats.http["test"]

    def listener_stats(self, name: str = "l") -> Any:
        return self.hub.current.listeners[name].stats


@asynccontextmanager
async def sidecar(
    *parts: Listener | Cluster, secrets: SecretStore | None = None, options: WorkerOptions | None = None
) -> AsyncIterator[Sidecar]:
    env = CompileEnv()
    hub = Hub(env)
    store = secrets or SecretStore()
    hub.join(store.prepare)
    hub.apply(config(*parts))
    worker = Worker(hub, store, env.log_files, options)
    await worker.start()
    bound = worker.addresses()
    made = Sidecar(worker, hub, store, extra={name: found[0][1] for name, found in bound.items()})
    made.port = made.extra.get("l", 0)
    try:
        yield made
    finally:
        await worker.stop()


class Peer:
    """A connection that writes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, separator: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(separator), WAIT)

    async def exactly(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), WAIT)

    async def rest(self) -> bytes:
        """Everything up to the end; a reset counts as one."""
        got = bytearray()
        try:
            while data := await asyncio.wait_for(self.reader.read(1 << 16), WAIT):
                got += data
        except ConnectionError:
            pass
        return bytes(got)

    async def response(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body (by its framing) of one response."""
        raw = await self.until(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
        }
        status = int(lines[0].split(" ")[1])
        body = b""
        if not head and status >= 200 and status not in (204, 304):
            if "content-length" in headers:
                body = await self.exactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                body = await self.chunked()
            else:
                body = await self.rest()
        return status, headers, body

    async def chunked(self) -> bytes:
        body = b""
        while size := int((await self.until(b"\r\n")).split(b";")[0], 16):
            body += await self.exactly(size)
            assert await self.exactly(2) == b"\r\n"
        while await self.until(b"\r\n") != b"\r\n":
            pass
        return body

    def close(self) -> None:
        self.writer.close()


async def dial(port: int) -> Peer:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, port), WAIT)
    return Peer(reader, writer)


async def ask(port: int, data: bytes) -> bytes:
    """Send ``data`` on a new connection and read to its end."""
    peer = await dial(port)
    peer.send(data)
    try:
        return await peer.rest()
    finally:
        peer.close()


Serve = Callable[[Peer], Awaitable[None]]


class Backend:
    """A server whose behaviour is a coroutine per connection. ``received`` holds all bytes, by connection."""

    def __init__(self, serve: Serve | None) -> None:
        self._serve = serve or self.hello
        self.received: list[bytearray] = []
        self.port = 0

    @property
    def connections(self) -> int:
        return len(self.received)

    @property
    def all(self) -> bytes:
        return b"".join(self.received)

    async def hello(self, peer: Peer) -> None:
        """Answer every request (its body by Content-Length) with 200 and ``ok``."""
        while True:
            head = await peer.until(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await peer.exactly(int(line[15:]))
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        self.received.append(kept)
        original = reader.feed_data

        def feed(data: bytes) -> None:
            kept.extend(data)
            original(data)

        kept.extend(bytes(reader._buffer))  # type: ignore[attr-defined]
        reader.feed_data = feed  # type: ignore[method-assign]
        try:
            await self._serve(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def backend(serve: Serve | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Backend]:
    made = Backend(serve)
    server = await asyncio.start_server(made.accept, HOST, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def changed(base: Config, *parts: Listener | Cluster, version: str) -> Config:
    """``base`` with some resources replaced."""
    new = config(*parts, version=version)
    return replace(
        base,
        version=version,
        listeners={**base.listeners, **new.listeners},
        clusters={**base.clusters, **new.clusters},
    )


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, by turns of the loop, until ``condition`` holds."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - the proxy has no event for a test to wait on
            await asyncio.sleep(0.005)
