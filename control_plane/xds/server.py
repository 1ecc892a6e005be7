"""The gRPC server of the Aggregated Discovery Service: both variants, over mTLS and, on loopback, plaintext.

It moves bytes between streams and subscribers, proves who the peer is, and keeps the limits. What is sent and
when is decided by sessions; what there is, by the pusher. Each stream is read and written by its own tasks, so
that a sidecar that does not read holds up nobody.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from control_plane.translate.node import NodeError, parse_xds_node
from control_plane.xds.peer import Peer, PeerError, check_node, peer_of
from control_plane.xds.push import Pusher
from control_plane.xds.session import TooManySubscriptions
from control_plane.xds.subscriber import Subscriber

log = logging.getLogger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_HARD_LIMIT = 2
"""gRPC itself cuts off messages of this many times the limit, of which nobody could be told."""

_SETTLE = 0.02
"""Seconds in which a broken connection shows as such, after its stream has read as ended."""


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """PEM bytes: the server's key, its chain (leaf first, then issuing CA), and the roots for clients' chains."""

    private_key: bytes
    chain: bytes
    client_roots: bytes


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits per process (streams), message (bytes) and stream; times in seconds."""

    max_streams: int = 10_000
    max_request_bytes: int = 4 * 1024 * 1024
    max_node_bytes: int = 64 * 1024
    first_request_timeout: float = 15.0
    keepalive: float = 30.0
    keepalive_timeout: float = 10.0


class _Refused(Exception):
    """The stream is to be ended with a status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class XdsServer:
    """``listen_*`` first, then :meth:`start`; :meth:`stop` once."""

    def __init__(self, pusher: Pusher, *, trust_domain: str, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.streams = 0
        """Open streams."""
        self._pusher = pusher
        self._counters = pusher.counters
        self._trust_domain = trust_domain
        self._certificates: grpc.ServerCertificateConfiguration | None = None
        self._closing = asyncio.Event()
        self._server = grpc.aio.server(options=self._channel_options())
        self._server.add_generic_rpc_handlers((self._handlers(),))

    async def listen_tls(self, address: str, identity: ServerIdentity) -> int:
        """Bind ``host:port`` (port 0 = any) and return the port. Raises :class:`OSError`."""
        self.rotate(identity)
        credentials = grpc.dynamic_ssl_server_credentials(
            self._current_certificates(), self._current_certificates, require_client_authentication=True
        )
        return _bound(address, lambda: self._server.add_secure_port(address, credentials))

    async def listen_plaintext(self, address: str) -> int:
        """Bind a loopback address and return the port. Raises ``ValueError`` for any other, and :class:`OSError`.

        Nobody's identity is checked there: whoever runs on this host can read all configuration.
        """
        host = address.rpartition(":")[0].strip("[]")
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(f"plaintext xDS address {address!r}: only 127.0.0.0/8 and [::1] are allowed")
        return _bound(address, lambda: self._server.add_insecure_port(address))

    async def start(self) -> None:
        await self._server.start()

    def rotate(self, identity: ServerIdentity) -> None:
        """Use ``identity`` for every connection accepted from now on."""
        self._certificates = grpc.ssl_server_certificate_configuration(
            [(identity.private_key, identity.chain)], root_certificates=identity.client_roots
        )

    def _current_certificates(self) -> grpc.ServerCertificateConfiguration:
        """gRPC asks for these before each handshake, on a thread of its own."""
        assert self._certificates is not None
        return self._certificates

    async def stop(self, grace: float) -> None:
        """End all streams, telling the clients to come again, and wait for them up to ``grace`` seconds."""
        self._pusher.stopping()
        self._closing.set()
        await self._server.stop(grace)

    def _channel_options(self) -> list[tuple[str, Any]]:
        options = self.options
        return [
            ("grpc.max_receive_message_length", _HARD_LIMIT * options.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", int(options.keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.so_reuseport", 0),
        ]

    def _handlers(self) -> grpc.GenericRpcHandler:
        def handler(delta: bool) -> grpc.RpcMethodHandler[bytes, bytes]:
            async def stream(_requests: Any, context: Any) -> None:
                await self._serve(context, delta=delta)

            return grpc.stream_stream_rpc_method_handler(stream)

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {"StreamAggregatedResources": handler(False), "DeltaAggregatedResources": handler(True)},
        )

    # -- one stream

    async def _serve(self, context: Any, *, delta: bool) -> None:
        if self.streams >= self.options.max_streams:
            self._counters.streams_refused += 1
            message = f"this control plane serves {self.streams} streams already and takes no more"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        self.streams += 1
        try:
            await self._converse(context, delta=delta)
        except _Refused as refused:
            log.warning("stream from %s refused: %s", context.peer(), refused)
            await context.abort(refused.code, str(refused))
        finally:
            self.streams -= 1

    async def _converse(self, context: Any, *, delta: bool) -> None:
        request_type = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest
        peer = self._identify(context)
        try:
            async with asyncio.timeout(self.options.first_request_timeout):
                raw = await context.read()
        except TimeoutError:
            raise _Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "no discovery request came") from None
        if raw is grpc.aio.EOF:
            return
        request = self._decode(request_type, raw)
        node = self._node(request, peer)
        self._counters.streams += 1
        subscriber = self._pusher.join(node, delta=delta, identity=str(peer.spiffe_id) if peer else "")
        clean = False
        try:
            self._take(subscriber, request)
            clean = await self._both_ways(context, subscriber, request_type, peer)
        finally:
            self._pusher.leave(subscriber, clean=clean)

    async def _both_ways(
        self, context: Any, subscriber: Subscriber, request_type: Any, peer: Peer | None
    ) -> bool:
        """Read and write until one side ends it; whether the client ended it in order."""
        reading = asyncio.create_task(self._read(context, subscriber, request_type))
        writing = asyncio.create_task(self._write(context, subscriber))
        closing = asyncio.create_task(self._closing.wait())
        tasks = (reading, writing, closing)
        remaining = None if peer is None else max(0.0, peer.not_after - time.time())
        try:
            done, _ = await asyncio.wait(tasks, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                message = (
                    f"the certificate of {peer and peer.spiffe_id} expired; connect with the renewed one"
                )
                raise _Refused(grpc.StatusCode.UNAUTHENTICATED, message)
            if closing in done:
                raise _Refused(grpc.StatusCode.UNAVAILABLE, "this control plane is stopping; connect again")
            for task in done:
                task.result()
            # A connection that broke reads like a stream that ended, but is cancelled a moment later.
            await asyncio.sleep(_SETTLE)
            return reading in done and not context.cancelled()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, context: Any, subscriber: Subscriber, request_type: Any) -> None:
        while (raw := await context.read()) is not grpc.aio.EOF:
            self._take(subscriber, self._decode(request_type, raw))

    async def _write(self, context: Any, subscriber: Subscriber) -> None:
        while True:
            await subscriber.waiting.wait()
            subscriber.waiting.clear()
            while subscriber.outbox:
                await context.write(subscriber.outbox.popleft())
                self._counters.responses += 1

    # -- what may be refused

    def _identify(self, context: Any) -> Peer | None:
        """Who the certificate says the peer is; ``None`` on the plaintext port."""
        try:
            return peer_of(context.auth_context(), self._trust_domain)
        except PeerError as error:
            self._counters.streams_unidentified += 1
            raise _Refused(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error

    def _decode(self, request_type: Any, raw: bytes) -> Any:
        if len(raw) > self.options.max_request_bytes:
            self._counters.requests_too_large += 1
            message = f"a request of {len(raw)} bytes; at most {self.options.max_request_bytes} are taken"
            raise _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        try:
            request = request_type.FromString(raw)
        except DecodeError as error:
            self._malformed(f"not a {request_type.DESCRIPTOR.name}: {error}")
        if not request.type_url:
            self._malformed("type_url is empty; the aggregated service needs it in every request")
        return request

    def _malformed(self, message: str) -> NoReturn:
        self._counters.requests_malformed += 1
        raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, message)

    def _node(self, request: Any, peer: Peer | None) -> Any:
        size = request.node.ByteSize()
        if size > self.options.max_node_bytes:
            self._counters.nodes_refused += 1
            message = f"node has {size} bytes; at most {self.options.max_node_bytes} are taken"
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, message)
        try:
            node = parse_xds_node(request.node)
        except NodeError as error:
            self._counters.nodes_refused += 1
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        if peer is not None:
            try:
                check_node(peer, node)
            except PeerError as error:
                self._counters.streams_unidentified += 1
                raise _Refused(grpc.StatusCode.PERMISSION_DENIED, str(error)) from error
        return node

    def _take(self, subscriber: Subscriber, request: Any) -> None:
        try:
            subscriber.receive(request)
        except TooManySubscriptions as error:
            self._counters.subscriptions_refused += 1
            raise _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error


def _bound(address: str, bind: Callable[[], int]) -> int:
    try:
        port = bind()
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if port == 0:
        raise OSError(f"cannot listen on {address}")
    return port
