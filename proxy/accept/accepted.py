"""One accepted connection, until it has an application: original destination, first bytes, chain, handshake, policy.

It relays nothing and keeps no more than ``proxy.accept.inspection`` wants to see. Every way out without an
application is counted and, where the listener has an access log, logged.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol, cast

from proxy.accept.handshake import Handshake
from proxy.accept.inspection import FirstBytes, FirstBytesError
from proxy.accept.original_dst import original_destination, plain
from proxy.filters.connection_limit import ConnectionLimiter
from proxy.model.connection import ConnectionInfo
from proxy.runtime.runtime import FilterChainRuntime, ListenerRuntime
from proxy.stream.downstream import Downstream
from proxy.stream.edge import HttpEdge
from proxy.stream.http2 import Http2Downstream
from proxy.tcp.relay import Relay
from proxy.tcp.reset import reset
from proxy.tcp.session import Session
from proxy.tls.conn import Application, TlsConn
from proxy.tls.errors import HandshakeError, PeerRefusedError
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool

HANDSHAKE_TIMEOUT: Final = 15.0
"""Seconds for a TLS handshake when ``transport_socket_connect_timeout`` is not set."""
WRITE_BUFFER: Final = 64 * 1024
"""Bytes that a transport may hold before its other side is no longer read; ``per_connection_buffer_limit_bytes`` can
only lower it."""


class PolicyRefusedError(Exception):
    """A network filter's verdict."""

    def __init__(self, flag: str, details: str) -> None:
        super().__init__(details)
        self.flag = flag


class Limiter(Protocol):
    """Who counts connections."""

    def admit(self, listener: ListenerRuntime, descriptor: int, /) -> bool: ...
    def leave(self) -> None: ...


class Accepted(asyncio.Protocol):
    """The protocol of a new connection; it replaces itself on the transport with the application's."""

    __slots__ = (
        "_admitted",
        "_began",
        "_chain",
        "_connection",
        "_deadline",
        "_first",
        "_handshake",
        "_inspecting",
        "_limited",
        "_limiter",
        "_limits",
        "_listener",
        "_logged",
        "_over",
        "_pool",
        "_ports",
        "_runtime",
        "_session",
        "_state",
        "_transport",
    )

    def __init__(
        self, state: LoopState, pool: Pool, limiter: Limiter, listener_name: str, ports: frozenset[int]
    ) -> None:
        """``ports``: those the listener itself is bound to."""
        self._state = state
        self._pool = pool
        self._limiter = limiter
        self._ports = ports
        # The configuration now in force, which may be newer than the one that opened the socket.
        self._runtime = state.hub.current
        self._listener: ListenerRuntime | None = self._runtime.listeners.get(listener_name)
        self._admitted = False
        self._began = time.monotonic()
        self._logged = False
        self._over = False
        self._inspecting = False
        self._first: FirstBytes | None = None
        self._handshake: Handshake | None = None
        self._deadline = 0.0
        self._limited = False
        self._limits: tuple[ConnectionLimiter, ...] = ()
        self._chain: FilterChainRuntime | None = None
        # What the listener's own log is written from at the end.
        self._session: Session | None = None
        self._connection: ConnectionInfo
        self._transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        return not self._over

    # What the transport does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = raw = cast(asyncio.Transport, transport)
        listener = self._listener
        if listener is None:
            raw.abort()
            self._over = True
            return
        stats = listener.stats
        if not self._limiter.admit(listener, raw.get_extra_info("socket").fileno()):
            raw.abort()
            self._over = True
            return
        self._admitted = True
        stats.downstream_cx_total += 1
        stats.downstream_cx_active += 1
        stats.downstream_pre_cx_active += 1
        limit = listener.config.per_connection_buffer_limit_bytes
        if 0 < limit < WRITE_BUFFER:
            raw.set_write_buffer_limits(high=limit)
        self._state.connections.add(self)
        peer = raw.get_extra_info("peername")
        own = raw.get_extra_info("sockname")
        if not peer or not own:
            # Reset by the client before it was looked at.
            raw.abort()
            self._logged = True
            self._leave()
            return
        self._connection = ConnectionInfo(plain(peer), plain(own), listener.name, self._state.next_id())
        if (listener.original_dst or listener.use_original_dst) and not self._find_destination(raw, own[0]):
            return
        listener = self._listener
        assert listener is not None
        if listener.inspections:
            self._first = FirstBytes(listener.inspections, self._connection, self._state.hub.current.stats)
            if self._first.waiting:
                self._inspecting = True
                timeout = listener.config.listener_filters_timeout
                if timeout:
                    self._deadline = self._state.loop.time() + timeout
                    self._state.inspecting.add(self)
                return
        self._choose_chain()

    def data_received(self, data: bytes) -> None:
        if not self._inspecting:
            return
        assert self._listener is not None and self._first is not None
        try:
            done = self._first.feed(data)
        except FirstBytesError as error:
            self._listener.stats.downstream_listener_filter_error += 1
            self._refuse("", str(error))
            return
        if done:
            self._inspected()

    def eof_received(self) -> bool:
        if self._inspecting and self._listener is not None:
            self._listener.stats.downstream_listener_filter_remote_close += 1
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    # What the worker asks for.

    def sweep(self, now: float) -> None:
        """Look at the deadline of inspection or handshake."""
        if not self._deadline or now < self._deadline or self._over:
            return
        listener = self._listener
        assert listener is not None
        self._deadline = 0.0
        if self._limited:
            self._refuse("", "connection_limit")
            return
        if not self._inspecting:
            listener.stats.downstream_cx_transport_socket_connect_timeout += 1
            self._refuse("", "transport_socket_connect_timeout")
            return
        listener.stats.downstream_pre_cx_timeout += 1
        if listener.config.continue_on_listener_filters_timeout:
            self._inspected()
        else:
            self._refuse("", "listener_filters_timeout")

    def drain(self) -> None:
        """It is too young to be idle; its application will be drained."""

    def runtime_changed(self) -> None:
        """It goes on under the snapshot that it was accepted under; its application follows the swap."""

    def abort(self) -> None:
        if not self._over:
            self._transport.abort()
            self._leave()

    # Steps.

    def _find_destination(self, raw: asyncio.Transport, own: str) -> bool:
        """Learn the original destination, and which listener is for it. False: refused."""
        listener = self._listener
        assert listener is not None
        connection = self._connection
        found = original_destination(raw.get_extra_info("socket"), own)
        if found is not None:
            connection.local = found
            connection.restored = True
        if connection.local[1] in self._ports:
            # Dialled directly, or redirected to where it was going anyway: forwarding it would come back here.
            listener.stats.downstream_listener_filter_error += 1
            self._refuse("", "original_destination_is_the_proxy")
            return False
        if listener.use_original_dst:
            other = self._state.hub.current.handoff(*connection.local)
            if other is not None and other is not listener:
                listener.stats.downstream_cx_active -= 1
                listener.stats.downstream_pre_cx_active -= 1
                self._listener = other
                connection.listener = other.name
                other.stats.downstream_cx_total += 1
                other.stats.downstream_cx_active += 1
                other.stats.downstream_pre_cx_active += 1
        return True

    def _inspected(self) -> None:
        """The first bytes have been looked at, or waited for in vain."""
        self._inspecting = False
        self._state.inspecting.discard(self)
        listener = self._listener
        assert listener is not None
        if listener.original_dst and self._connection.local[1] in self._ports:
            # A PROXY protocol header can name the proxy itself, too.
            listener.stats.downstream_listener_filter_error += 1
            self._refuse("", "original_destination_is_the_proxy")
            return
        self._choose_chain()

    def _choose_chain(self) -> None:
        listener = self._listener
        assert listener is not None
        connection = self._connection
        chain = listener.find_chain(connection)
        if chain is None:
            listener.stats.no_filter_chain_match += 1
            self._refuse("NR", "filter_chain_not_found")
            return
        self._chain = chain
        if chain.connection_limits and not self._within(chain.connection_limits):
            return
        if chain.tls is not None:
            self._begin_tls(chain)
            return
        # A TLS client on a chain without TLS is relayed as it is.
        connection.transport_protocol = "raw_buffer"
        try:
            application = self._application(chain)
        except PolicyRefusedError as refusal:
            self._refuse(refusal.flag, str(refusal))
            return
        self._hand_over()
        self._transport.set_protocol(cast(asyncio.BaseProtocol, application))
        application.connection_made(self._transport)
        early = self._take_early()
        if early:
            application.data_received(early)

    def _within(self, limits: tuple[ConnectionLimiter, ...]) -> bool:
        """Take a place under each limit; false: there was none, and the connection is, or will be, closed."""
        for limiter in limits:
            if limiter.enter():
                self._limits += (limiter,)
                continue
            if limiter.delay:
                # Unread until then, so that whoever tries again at once has to wait.
                self._limited = True
                self._deadline = self._state.loop.time() + limiter.delay
                self._transport.pause_reading()
            else:
                self._refuse("", "connection_limit")
            return False
        return True

    def _begin_tls(self, chain: FilterChainRuntime) -> None:
        assert chain.tls is not None and self._listener is not None
        self._connection.transport_protocol = "tls"
        timeout = chain.config.transport_socket_connect_timeout or HANDSHAKE_TIMEOUT
        if self._state.shortened is not None:
            timeout = self._state.shortened.timeout("TRANSPORT_SOCKET_CONNECT", timeout)
        self._deadline = self._state.loop.time() + timeout
        self._handshake = Handshake(
            self._state,
            self._transport,
            chain.tls,
            self._listener.name,
            self._listener.stats,
            on_secured=self._secured,
            on_failed=self._tls_failed,
        )
        self._handshake.begin(self._take_early())

    def _take_early(self) -> bytes:
        """What was read to look at, which is the first that the application gets."""
        return b"" if self._first is None else self._first.take()

    def _secured(self, tls: TlsConn) -> Application:
        """The handshake is done: who is it, and may they? Raises ``HandshakeError``, ``PeerRefusedError``,
        ``PolicyRefusedError``."""
        if self._over:
            # Its last step had been put off, and was done between the abort and the end of the transport.
            raise HandshakeError("given up before it was complete")
        chain = self._chain
        listener = self._listener
        assert chain is not None and listener is not None
        connection = self._connection
        engine = tls.tls
        connection.peer, connection.principal = tls.context.judge(engine)
        connection.local_uri = tls.context.uri_of(engine.context)
        connection.tls_version = engine.version() or ""
        cipher = engine.cipher()
        connection.cipher = cipher[0] if cipher else ""
        connection.alpn = engine.selected_alpn_protocol() or ""
        stats = listener.stats
        stats.ssl_handshake += 1
        if engine.session_reused:
            stats.ssl_session_reused += 1
        if connection.peer is None:
            stats.ssl_no_certificate += 1
        application = self._application(chain)
        self._hand_over()
        self._first = None
        return application

    def _tls_failed(self, error: Exception) -> None:
        if self._over:
            return
        listener = self._listener
        assert listener is not None
        stats = listener.stats
        flag = ""
        details = f"TLS_error: {error}"
        if isinstance(error, PolicyRefusedError):
            flag = error.flag
            details = str(error)
        elif isinstance(error, PeerRefusedError):
            if error.kind == "san":
                stats.ssl_fail_verify_san += 1
            elif error.kind == "cert_hash":
                stats.ssl_fail_verify_cert_hash += 1
            elif error.kind == "no_cert":
                stats.ssl_fail_verify_no_cert += 1
            else:
                stats.ssl_fail_verify_error += 1
        elif "PEER_DID_NOT_RETURN_A_CERTIFICATE" in details:
            stats.ssl_fail_verify_no_cert += 1
        elif "CERTIFICATE_VERIFY_FAILED" in details:
            stats.ssl_fail_verify_error += 1
        elif isinstance(error, HandshakeError) or not isinstance(error, ConnectionError):
            # A client that just goes has made no error.
            stats.ssl_connection_error += 1
        self._log(flag, details)
        self._leave()

    def _application(self, chain: FilterChainRuntime) -> Application:
        """What serves the connection. Raises ``PolicyRefusedError``."""
        connection = self._connection
        for judge in chain.network_filters:
            denied = judge(connection)
            if denied is not None:
                raise PolicyRefusedError(denied.flag, denied.details)
        if chain.http is not None:
            edge = self._state.edge(chain.http, HttpEdge)
            kind = chain.http.config.codec_type
            http2 = kind == "HTTP2" or (kind == "AUTO" and connection.alpn == "h2")
            make = Http2Downstream if http2 else Downstream
            return make(self._state, self._pool, connection, self._runtime, chain, edge, self._leave)
        assert chain.tcp is not None
        assert self._listener is not None
        relay = Relay(
            self._state,
            connection,
            chain.tcp,
            self._leave,
            plain=chain.tls is None,
            limit=self._listener.config.per_connection_buffer_limit_bytes,
        )
        self._session = relay.session
        return relay.client

    def _hand_over(self) -> None:
        """The application is in charge from here; ``_leave`` is told when it ends."""
        assert self._listener is not None
        self._deadline = 0.0
        if self._handshake is not None:
            self._handshake.leave()
            self._handshake = None
        self._state.connections.discard(self)
        self._listener.stats.downstream_pre_cx_active -= 1
        self._inspecting = False
        self._chain = None

    def _refuse(self, flag: str, details: str) -> None:
        """Close without a word; the log says why."""
        self._log(flag, details)
        if self._first is not None and self._first.early:
            # What it sent was not heard.
            reset(self._transport)
        else:
            self._transport.abort()
        self._leave()

    def _log(self, flag: str, details: str) -> None:
        listener = self._listener
        if listener is None or not listener.access_logs:
            return
        self._logged = True
        session = self._session
        if session is None:
            session = Session(self._connection)
            session.start_wall -= session.start - self._began
            session.start = self._began
            session.details = details
            if flag:
                session.add_flag(flag)
            session.end = time.monotonic()
        session.log_type = "NotSet"
        for log in listener.access_logs:
            log.log(session)

    def _leave(self) -> None:
        """The connection is over, with or without an application."""
        if self._over:
            return
        self._over = True
        if not self._admitted:
            return
        self._limiter.leave()
        for limiter in self._limits:
            limiter.leave()
        self._limits = ()
        listener = self._listener
        assert listener is not None
        if self._handshake is not None:
            self._handshake.leave()
            self._handshake = None
        if listener.access_logs and not self._logged:
            self._log("", "")
        stats = listener.stats
        stats.downstream_cx_active -= 1
        stats.downstream_cx_destroy += 1
        self._state.inspecting.discard(self)
        if self in self._state.connections:
            self._state.connections.discard(self)
            stats.downstream_pre_cx_active -= 1
