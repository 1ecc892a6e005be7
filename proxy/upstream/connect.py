"""Open one connection to a host: socket options, source address, TCP, TLS, the peer's identity.

It decides nothing about pools or retries. This is where the data path may await: a new connection is the slow path.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol, TypeVar, cast

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.model.address import BindConfig
from proxy.model.connection import Address, Ends
from proxy.model.tls import UpstreamTls
from proxy.tls.conn import Application, TlsConn
from proxy.tls.errors import PeerRefusedError, SecretError
from proxy.upstream.loop_state import LoopState
from proxy.upstream.proxy_protocol import header

ConnectFailure = Literal["remote_connection_failure", "local_connection_failure", "connection_timeout"]

_IP_BIND_ADDRESS_NO_PORT = 24


class UpstreamApplication(Application, Protocol):
    """An application that can sit on a raw transport as well, and wants to know the peer's principal."""

    principal: str


App = TypeVar("App", bound=UpstreamApplication)
T = TypeVar("T")


class ConnectError(Exception):
    """There is no connection. ``reason`` is Envoy's reset reason; the text is the transport failure."""

    def __init__(self, reason: ConnectFailure, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def connect(
    state: LoopState,
    cluster: Cluster,
    host: Host,
    make: Callable[[str], App],
    client: Ends | None = None,
    offer: tuple[str, ...] = (),
) -> App:
    """Connect to ``host`` within the cluster's ``connect_timeout``; its ``connection_made`` was called on return.

    ``make`` is told the protocol that TLS negotiated by ALPN, "" = none; ``offer`` is what is offered where the
    configuration names nothing.
    ``client``: on whose behalf, for clusters that are told by the PROXY protocol. Raises ``ConnectError``.
    """
    return await _timed(state, cluster, _connect(state, cluster, host, make, client, offer))


async def connect_plain(
    state: LoopState, cluster: Cluster, host: Host, client: Ends | None = None
) -> socket.socket:
    """As ``connect``, to a host without TLS: the non-blocking socket itself."""
    return await _timed(state, cluster, _connect_tcp(state, cluster, host, client))


async def _timed(state: LoopState, cluster: Cluster, connecting: Coroutine[Any, Any, T]) -> T:
    stats = cluster.stats
    started = state.loop.time()
    try:
        async with asyncio.timeout(cluster.config.connect_timeout):
            made = await connecting
    except TimeoutError:
        stats.upstream_cx_connect_timeout += 1
        stats.upstream_cx_connect_fail += 1
        raise ConnectError("connection_timeout", "connection timeout") from None
    except ConnectError:
        stats.upstream_cx_connect_fail += 1
        raise
    stats.cx_connect_ms.record(int((state.loop.time() - started) * 1000))
    return made


async def _connect_tcp(state: LoopState, cluster: Cluster, host: Host, client: Ends | None) -> socket.socket:
    sock = _open_socket(cluster, host.address)
    try:
        await state.loop.sock_connect(sock, host.address)
        version = cluster.config.proxy_protocol
        if version:
            # A new socket's buffer holds much more than this. It goes before everything else, before TLS too.
            sock.send(header(version, client, sock))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise ConnectError(
                "remote_connection_failure", f"delayed_connect_error: {os.strerror(error.errno or 0)}"
            ) from error
        raise
    return sock


async def _connect(
    state: LoopState,
    cluster: Cluster,
    host: Host,
    make: Callable[[str], App],
    client: Ends | None,
    offer: tuple[str, ...],
) -> App:
    sock = await _connect_tcp(state, cluster, host, client)
    if host.tls is None:
        app = make("")
        transport, _ = await state.loop.create_connection(lambda: cast(asyncio.BaseProtocol, app), sock=sock)
        _limit_buffer(cluster, transport)
        return app
    return await _secure(state, cluster, host, host.tls, sock, make, offer)


def _limit_buffer(cluster: Cluster, transport: asyncio.WriteTransport) -> None:
    """``per_connection_buffer_limit_bytes``, 0 = none, can only lower what a transport may hold by itself."""
    limit = cluster.config.per_connection_buffer_limit_bytes
    if limit and limit < transport.get_write_buffer_limits()[1]:
        transport.set_write_buffer_limits(high=limit)


async def _secure(
    state: LoopState,
    cluster: Cluster,
    host: Host,
    tls: UpstreamTls,
    sock: socket.socket,
    make: Callable[[str], App],
    offer: tuple[str, ...],
) -> App:
    stats = cluster.stats
    done: asyncio.Future[App] = state.loop.create_future()

    def secured(conn: TlsConn) -> Application:
        peer, principal = conn.context.judge(
            conn.tls, conn.server_name if tls.auto_sni_san_validation else ""
        )
        app = make(conn.tls.selected_alpn_protocol() or "")
        app.principal = principal or (peer.dns[0] if peer is not None and peer.dns else "")
        stats.ssl_handshake += 1
        if conn.tls.session_reused:
            stats.ssl_session_reused += 1
        if not done.done():
            done.set_result(app)
        return app

    def failed(error: Exception) -> None:
        if not done.done():
            done.set_exception(error)

    try:
        context = state.secrets.client(tls, offer)
    except SecretError as error:
        sock.close()
        raise ConnectError("local_connection_failure", f"TLS: {error}") from error
    conn = TlsConn(
        context,
        state.buffers,
        state.handshakes,
        server_side=False,
        on_secured=secured,
        on_failed=failed,
        session_key=host.label,
        server_name=host.hostname if tls.auto_host_sni else "",
    )
    try:
        transport, _ = await state.loop.create_connection(lambda: conn, sock=sock)
        _limit_buffer(cluster, transport)
        return await done
    except PeerRefusedError as error:
        if error.kind == "san":
            stats.ssl_fail_verify_san += 1
        elif error.kind == "cert_hash":
            stats.ssl_fail_verify_cert_hash += 1
        else:
            stats.ssl_fail_verify_error += 1
        raise ConnectError("remote_connection_failure", f"TLS_error: {error}") from error
    except (OSError, ssl.SSLError) as error:
        if isinstance(error, ssl.SSLCertVerificationError):
            stats.ssl_fail_verify_error += 1
        else:
            stats.ssl_connection_error += 1
        raise ConnectError("remote_connection_failure", f"TLS_error: {error}") from error
    except asyncio.CancelledError:
        conn.abort()
        raise


def _open_socket(cluster: Cluster, address: Address) -> socket.socket:
    """A non-blocking socket with the cluster's options and source address. Raises ``ConnectError``."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        # No descriptor is left.
        raise ConnectError(
            "local_connection_failure", f"cannot make a socket: {os.strerror(error.errno or 0)}"
        ) from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _bind(sock, family, cluster.config.bind_config)
    except OSError as error:
        sock.close()
        cluster.stats.bind_errors += 1
        raise ConnectError(
            "local_connection_failure", f"cannot set up the socket: {os.strerror(error.errno or 0)}"
        ) from error
    return sock


def _bind(sock: socket.socket, family: socket.AddressFamily, config: BindConfig) -> None:
    for option in config.socket_options:
        sock.setsockopt(option.level, option.name, option.int_value)
    for source in (config.source_address, *config.extra_source_addresses):
        if source is not None and (":" in source.host) == (family == socket.AF_INET6):
            if not source.port:
                # The port is chosen at connect, when the whole 4-tuple counts: a source has more than 28,000 ports so.
                sock.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source.host, source.port))
            return
