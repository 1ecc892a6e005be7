"""The sidecar's side of ADS over gRPC: one stream to the control plane, kept up for as long as the sidecar runs.

It carries messages between the stream and the session and reconnects with back-off; what they mean is the session's
affair. Transport: grpclib, which is light in memory. It never imports the generated service stubs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Callable
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from grpclib.client import Channel, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from certs.svid import SvidError, check_leaf
from proxy.model.address import SocketAddress
from proxy.model.config import ConfigError
from proxy.xds.session import DeltaSession

log = logging.getLogger(__name__)

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SO_MARK = 36
CONNECT_TIMEOUT = 10.0
KEEPALIVE = 30.0
BACKOFF_BASE = 0.2
BACKOFF_CAP = 15.0
#: A full configuration of a large mesh in one go, without waiting for window updates.
WINDOW = 16 * 1024 * 1024


class _MarkedChannel(Channel):
    """A channel over a socket with ``SO_MARK`` whose peer must be ``server_id``."""

    def __init__(
        self, address: SocketAddress, context: ssl.SSLContext | None, *, mark: int, server_id: str | None
    ) -> None:
        super().__init__(
            address.host,
            address.port,
            ssl=context,
            config=Configuration(
                _keepalive_time=KEEPALIVE,
                http2_connection_window_size=WINDOW,
                http2_stream_window_size=WINDOW,
            ),
        )
        self._address = address
        self._context = context
        self._mark = mark
        self._server_id = server_id

    # grpclib has no other way to bring a socket of one's own.
    async def _create_connection(self) -> H2Protocol:
        loop = asyncio.get_running_loop()
        host, port = self._address.host, self._address.port
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for family, kind, number, _, address in infos:
            sock = socket.socket(family, kind, number)
            try:
                sock.setblocking(False)
                if self._mark:
                    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, self._mark)
                await loop.sock_connect(sock, address)
                transport, protocol = await loop.create_connection(
                    self._protocol_factory,
                    sock=sock,
                    ssl=self._context,
                    server_hostname=host if self._context is not None else None,
                )
            except OSError as error:
                sock.close()
                failure = error
                continue
            except BaseException:
                sock.close()
                raise
            self._check_server(transport)
            return protocol
        raise failure or OSError(f"{host} has no address")

    def _check_server(self, transport: asyncio.BaseTransport) -> None:
        if self._context is None:
            return
        tls = transport.get_extra_info("ssl_object")
        try:
            identity = str(check_leaf(tls.getpeercert(True)))
            if self._server_id is not None and identity != self._server_id:
                raise SvidError("foreign", f"{identity} answered instead of {self._server_id}")
        except SvidError as error:
            transport.close()
            raise ConnectionError(f"the control plane's certificate: {error}") from error


class AdsClient:
    """Keeps ``session`` in step with the control plane at ``address``.

    ``context()`` gives the TLS context for each new connection (``None`` = plain text, loopback only); ``server_id``
    is the SPIFFE ID that must answer. ``on_change`` is called after each response that was taken.
    """

    def __init__(
        self,
        session: DeltaSession,
        address: SocketAddress,
        context: Callable[[], ssl.SSLContext | None],
        *,
        server_id: str | None,
        mark: int = 0,
        on_change: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
        backoff_cap: float = BACKOFF_CAP,
    ) -> None:
        self._session = session
        self._address = address
        self._context = context
        self._server_id = server_id
        self._mark = mark
        self._on_change = on_change
        self._jitter = jitter
        self._backoff_cap = backoff_cap
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.connected = False
        self.connects = 0
        self.failures = 0

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run(), name="ads-client")

    async def stop(self, timeout: float = 1.0) -> None:
        """End the stream in order, which tells the control plane that this workload leaves."""
        self._stopping.set()
        if self._task is None:
            return
        done, _ = await asyncio.wait((self._task,), timeout=timeout)
        if not done:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            before = self.connects
            try:
                await self._stream()
                reason = "the control plane ended the stream"
            except (GRPCError, StreamTerminatedError, ProtocolError, OSError, TimeoutError) as error:
                reason = _describe(error)
            except Exception as error:
                # Whatever one response brings about, the sidecar must go on hearing of the next.
                log.exception("xDS at %s: a response could not be handled", self._address)
                reason = _describe(error)
            finally:
                self.connected = False
                self._session.disconnected()
            if self._stopping.is_set():
                return
            self.failures += 1
            failures = 1 if self.connects > before else failures + 1
            delay = min(self._backoff_cap, BACKOFF_BASE * 2.0 ** min(failures - 1, 10))
            delay *= 0.5 + 0.5 * self._jitter()
            log.warning("xDS at %s: %s; next attempt in %.1f s", self._address, reason, delay)
            try:
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _stream(self) -> None:
        channel = _MarkedChannel(self._address, self._context(), mark=self._mark, server_id=self._server_id)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await channel.__connect__()
            request = channel.request(
                METHOD,
                Cardinality.STREAM_STREAM,
                discovery_pb2.DeltaDiscoveryRequest,
                discovery_pb2.DeltaDiscoveryResponse,
            )
            async with request as stream:
                for message in self._session.connected():
                    await stream.send_message(message)
                await self._converse(stream)
        finally:
            channel.close()

    def _patience(self) -> float | None:
        """Seconds until the session gives up waiting for a resource."""
        deadline = self._session.deadline()
        return None if deadline is None else max(deadline - asyncio.get_running_loop().time(), 0.0)

    def _expire(self) -> None:
        try:
            gone = self._session.expire()
        except ConfigError as error:
            log.error("cannot go on without what did not come: %s", error)
            return
        if gone:
            log.warning("taken not to exist, since the control plane did not send it: %s", ", ".join(gone))
            self._on_change()

    async def _converse(self, stream: Stream[Any, Any]) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        receiving: asyncio.Task[Any] | None = None
        try:
            while True:
                if receiving is None:
                    receiving = asyncio.ensure_future(stream.recv_message())
                await asyncio.wait(
                    (receiving, stopping), timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED
                )
                if not receiving.done() and not stopping.done():
                    self._expire()
                    continue
                if not receiving.done():
                    await stream.end()
                    # The control plane answers the half-close by ending its side.
                    await asyncio.wait((receiving,), timeout=0.5)
                    return
                response = receiving.result()
                receiving = None
                if response is None:
                    return
                if not self.connected:
                    self.connected = True
                    self.connects += 1
                    log.info("xDS at %s: connected", self._address)
                for message in self._session.received(response):
                    if message.HasField("error_detail"):
                        log.error("configuration refused: %s", message.error_detail.message)
                    await stream.send_message(message)
                self._on_change()
        finally:
            stopping.cancel()
            if receiving is not None and not receiving.done():
                receiving.cancel()


def _describe(error: Exception) -> str:
    if isinstance(error, GRPCError):
        return f"{error.status.name}: {error.message}"
    return str(error) or type(error).__name__
