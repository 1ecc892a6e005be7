"""TLS over a raw transport: a protocol towards the loop, a transport towards the application.

Made by hand over ``ssl.MemoryBIO`` because it costs less than the loop's own TLS, resumes sessions and lets the peer be
judged before the application hears of the connection. It opens no sockets and keeps no timers: whoever started the
handshake ends it with ``abort`` when it takes too long.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from proxy.tls.context import TlsContext
from proxy.tls.errors import FloodError, HandshakeError, TruncatedError
from proxy.tls.handshakes import MAX_HANDSHAKE_BYTES, Budget

FEED_SIZE: Final = 64 * 1024
"""Bytes given to the engine at one time: its buffers never shrink. With smaller pieces bulk costs a fifth more."""
HANDSHAKE_FEED_SIZE: Final = 512
"""The same before the handshake is complete, so that a connection that stays idle after it has a small buffer."""
MAX_BARREN_BYTES: Final = 64 * 1024
"""What a peer may send without any application data in it: tickets, alerts, key updates, pieces of a record."""
_RECORD: Final = 16 * 1024


class Buffers:
    """Scratch space that all connections of one loop share: it holds nothing between two callbacks."""

    __slots__ = ("plain", "read")

    def __init__(self) -> None:
        self.read = memoryview(bytearray(FEED_SIZE))
        self.plain = memoryview(bytearray(FEED_SIZE + _RECORD))


class Transport(Protocol):
    """What an application needs of a connection; raw transports and ``TlsConn`` both give it."""

    def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_extra_info(self, name: str, default: Any = None, /) -> Any: ...
    def get_write_buffer_size(self) -> int: ...
    def set_protocol(self, protocol: Any, /) -> None: ...


class Application(Protocol):
    """What is told of a connection."""

    def connection_made(self, transport: Any, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class TlsConn(asyncio.Protocol):
    """One TLS connection.

    After the handshake ``on_secured(self)`` judges the peer and returns the application, or raises to refuse. If there
    is no connection in the end (handshake failed, refused, lost before) ``on_failed`` is called once instead.
    """

    __slots__ = (
        "_app",
        "_barren",
        "_budget",
        "_buffers",
        "_closing",
        "_deferred",
        "_incoming",
        "_lost",
        "_on_failed",
        "_on_secured",
        "_outgoing",
        "_pending_eof",
        "_server_side",
        "_session_key",
        "context",
        "raw",
        "server_name",
        "tls",
    )

    def __init__(
        self,
        context: TlsContext,
        buffers: Buffers,
        budget: Budget,
        *,
        server_side: bool,
        on_secured: Callable[[TlsConn], Application],
        on_failed: Callable[[Exception], None],
        session_key: str = "",
        server_name: str = "",
    ) -> None:
        """``session_key`` (clients): under which name sessions are kept and resumed, "" = not at all. ``server_name``
        (clients): the SNI, if it is not the context's.
        """
        self.context = context
        self.server_name = "" if server_side else server_name or context.sni or ""
        self._server_side = server_side
        self._buffers = buffers
        self._budget = budget
        self._on_secured = on_secured
        self._on_failed = on_failed
        self._session_key = session_key
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.ssl.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side,
            self.server_name or None,
            session=context.resumable(session_key) if session_key else None,
        )
        self._app: Application | None = None
        self._closing = False
        self._lost = False
        self._pending_eof = False
        self._deferred = False
        self._barren = 0

    # Towards the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.raw = cast(asyncio.Transport, transport)
        if not self._server_side:
            self._shake()

    def feed(self, data: bytes) -> None:
        """Bytes that were read before this took the connection over."""
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if size <= _RECORD and self._app is not None and not self._closing:
            # Nearly every read: something small on a connection that is up.
            self._incoming.write(data)
            self._read_records(size)
            if self._outgoing.pending:
                self._flush()
            return
        most = FEED_SIZE if self._app is not None else HANDSHAKE_FEED_SIZE
        if size <= most:
            self._incoming.write(data)
            self._received(size)
        else:
            view = memoryview(data)
            for at in range(0, size, most):
                piece = view[at : at + most]
                self._incoming.write(piece)
                self._received(len(piece))

    def eof_received(self) -> bool:
        """TCP's end. After ``close_notify`` it is news to nobody; before, what came may have been cut short."""
        if self._pending_eof and not self._closing:
            return True
        if self._app is None or self._closing:
            return False
        self._fail(TruncatedError("the peer closed the connection without close_notify"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return
        if not self._closing:
            self._forget_session()
        self._lost = self._closing = True
        app = self._app
        if app is None:
            self._on_failed(
                exc or ConnectionResetError("the peer closed the connection during the TLS handshake")
            )
        else:
            app.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._app is not None:
            self._app.resume_writing()

    # Towards the application.

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self.tls.write(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self.raw.write(self._outgoing.read())

    def write_eof(self) -> None:
        """Send ``close_notify``: nothing more will be written; reading goes on."""
        if not self._closing:
            self._notify_close()
            if not self.raw.is_closing():
                self.raw.write_eof()

    def close(self) -> None:
        """Send what is buffered and ``close_notify``, then close."""
        if self._closing:
            return
        self._closing = True
        if self._app is not None:
            self._notify_close()
        self.raw.close()

    def abort(self) -> None:
        self._closing = True
        if not self._lost:
            self.raw.abort()

    def is_closing(self) -> bool:
        return self._closing or self.raw.is_closing()

    def pause_reading(self) -> None:
        if not self._lost:
            self.raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._closing:
            self.raw.resume_reading()

    def set_protocol(self, protocol: Application) -> None:
        """Have another application go on."""
        self._app = protocol

    def get_write_buffer_size(self) -> int:
        return 0 if self._lost else self.raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.raw.get_extra_info(name, default)

    # The engine.

    def _shake(self) -> None:
        """Go on with the handshake, in this turn of the loop or in a later one; until then nothing more is read."""
        if not self._deferred and not self._budget.run(self._step):
            self._deferred = True
            self.raw.pause_reading()

    def _step(self) -> None:
        if self._lost or self._closing:
            return
        if self._deferred:
            self._deferred = False
            self.raw.resume_reading()
        if self._handshake() and self._incoming.pending:
            self._read_records(0)
            self._flush()

    def _handshake(self) -> bool:
        """Go on with the handshake; whether it is complete."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except (ssl.SSLError, ValueError) as error:
            self._flush()  # the alert
            self._fail(error)
            return False
        self._flush()
        try:
            app = self._on_secured(self)
        except Exception as error:  # noqa: BLE001 - whatever the reason: no verdict, no connection
            self._fail(error)
            return False
        self._barren = 0
        self._app = app
        # Who asked is not kept for as long as the connection lasts.
        self._on_secured = _nobody
        self._on_failed = _ignored
        app.connection_made(self)
        return True

    def _received(self, size: int) -> None:
        if self._closing:
            return
        if self._app is None:
            self._barren += size
            if self._barren > MAX_HANDSHAKE_BYTES:
                self._fail(HandshakeError(f"more than {MAX_HANDSHAKE_BYTES} bytes without a handshake"))
            else:
                self._shake()
            return
        if size <= _RECORD:
            self._read_records(size)
        else:
            self._read_bulk(size)
        self._flush()

    def _read_records(self, size: int) -> None:
        """One upcall for each record: mostly there is one, and no exception is raised for it."""
        app = self._app
        assert app is not None
        tls = self.tls
        incoming = self._incoming
        try:
            while not self._closing:
                data = tls.read(_RECORD)
                if not data:
                    self._ended()
                    return
                if self._session_key:
                    self._keep_session()
                size = 0
                app.data_received(data)
                if not incoming.pending and not tls.pending():
                    self._barren = 0
                    return
        except ssl.SSLWantReadError:
            if size:
                self._nothing_in(size)
            else:
                self._barren = 0
        except ssl.SSLZeroReturnError:
            self._ended()
        except ssl.SSLError as error:
            self._fail(error)

    def _nothing_in(self, size: int) -> None:
        """OpenSSL takes any number of key updates and the like, and answers them."""
        self._barren += size
        if self._barren > MAX_BARREN_BYTES:
            self._fail(FloodError(f"{self._barren} bytes of TLS records without any data"))

    def _read_bulk(self, received: int) -> None:
        """Gather all records of this read for a single upcall."""
        app = self._app
        assert app is not None
        tls = self.tls
        incoming = self._incoming
        plain = self._buffers.plain
        size = 0
        ended = False
        failure: ssl.SSLError | None = None
        try:
            while size < FEED_SIZE:
                count = tls.read(len(plain) - size, plain[size:] if size else plain)
                if not count:
                    ended = True
                    break
                size += cast(int, count)
                if not incoming.pending and not tls.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            failure = error
        if size:
            self._barren = 0
            if self._session_key:
                self._keep_session()
            app.data_received(bytes(plain[:size]))
        elif failure is None and not ended:
            self._nothing_in(received)
        if failure is not None:
            self._fail(failure)
        elif ended:
            self._ended()
        elif incoming.pending or tls.pending():
            self._read_records(0)

    def _keep_session(self) -> None:
        """TLS 1.3 sends its tickets after the handshake; by the first data they are here."""
        if self.context.wants_session(self._session_key, resumed=bool(self.tls.session_reused)):
            session = self.tls.session
            if session is not None and session.has_ticket:
                self.context.remember(self._session_key, session)
        self._session_key = ""

    def _forget_session(self) -> None:
        """The connection ended before the server said anything: perhaps because of what was to be resumed."""
        if self._session_key:
            self.context.sessions.pop(self._session_key, None)

    def _ended(self) -> None:
        """The peer's ``close_notify``."""
        if self._closing or self._pending_eof:
            return
        self._pending_eof = True
        assert self._app is not None
        if not self._app.eof_received():
            self.close()

    def _notify_close(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            # Raised in all cases: it wants the peer's close_notify, for which nobody waits.
            pass
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._lost and not self.raw.is_closing():
            self.raw.write(self._outgoing.read())

    def _fail(self, error: Exception) -> None:
        """No (more) connection: tell whoever must know, once."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._forget_session()
        if self._app is None:
            self.raw.close()
            self._on_failed(error)
        else:
            self.raw.abort()
            self._app.connection_lost(error)


def _nobody(conn: TlsConn) -> Application:
    raise AssertionError("the handshake is complete")


def _ignored(error: Exception) -> None:
    """There is an application, which is told."""
