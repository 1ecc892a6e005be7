"""A client's TLS handshake: it waits for the first byte and for a slot, then ``TlsConn`` takes the transport over.

Until then there is no engine, so a silent client costs no more than its socket. It judges nobody and sets no deadline:
its owner does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.model.stats import ListenerStats
from proxy.model.tls import DownstreamTls
from proxy.tls.conn import Application, TlsConn
from proxy.tls.errors import HandshakeError, SecretError
from proxy.tls.handshakes import MAX_HANDSHAKE_BYTES
from proxy.upstream.loop_state import LoopState


class Handshake(asyncio.Protocol):
    """``on_secured`` judges and gives the application, as for ``TlsConn``; ``on_failed`` is told why there is none.

    Whoever takes or ends the connection calls ``leave``.
    """

    __slots__ = (
        "_early",
        "_listener",
        "_on_failed",
        "_on_secured",
        "_over",
        "_raw",
        "_state",
        "_stats",
        "_tls",
        "_waiting",
    )

    def __init__(
        self,
        state: LoopState,
        raw: asyncio.Transport,
        tls: DownstreamTls,
        listener: str,
        stats: ListenerStats,
        *,
        on_secured: Callable[[TlsConn], Application],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._state = state
        self._raw = raw
        self._tls = tls
        self._listener = listener
        self._stats = stats
        self._on_secured = on_secured
        self._on_failed = on_failed
        self._early = bytearray()
        self._waiting = False
        self._over = False

    def begin(self, early: bytes) -> None:
        """Take over; ``early`` was read before."""
        self._raw.set_protocol(self)
        if early:
            self._received(early)

    def leave(self) -> None:
        """There is an application, or no connection: the slot is free."""
        self._over = True
        self._state.slots.leave(self, self._listener)

    # What the transport does.

    def data_received(self, data: bytes) -> None:
        if not self._over:
            self._received(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self._on_failed(
                exc or ConnectionResetError("the peer closed the connection before its ClientHello")
            )

    # What the slots say.

    def start_handshake(self) -> None:
        """A slot is free."""
        state = self._state
        try:
            context = state.secrets.server(self._tls)
        except SecretError as error:
            self._fail(error)
            return
        raw = self._raw
        tls = TlsConn(
            context,
            state.buffers,
            state.handshakes,
            server_side=True,
            on_secured=self._on_secured,
            on_failed=self._on_failed,
        )
        raw.set_protocol(tls)
        tls.connection_made(raw)
        if self._waiting:
            self._waiting = False
            raw.resume_reading()
        early, self._early = self._early, bytearray()
        tls.feed(bytes(early))

    def give_way(self) -> None:
        """It has had its time, and others wait."""
        self._stats.ssl_handshake_evicted += 1
        self._fail(HandshakeError("the handshake made way for others"))

    # Inside.

    def _received(self, data: bytes) -> None:
        first = not self._early
        self._early += data
        if not first:
            # Reading is paused; some loops deliver what they had read already.
            if len(self._early) > MAX_HANDSHAKE_BYTES:
                self._fail(HandshakeError(f"more than {MAX_HANDSHAKE_BYTES} bytes before the handshake"))
            return
        if not self._state.slots.enter(self, self._listener) and not self._over:
            self._waiting = True
            self._stats.ssl_handshake_queued += 1
            self._raw.pause_reading()

    def _fail(self, error: Exception) -> None:
        self._raw.abort()
        self._on_failed(error)
