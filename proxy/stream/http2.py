"""One HTTP/2 client connection and its streams, each of which is where one exchange came from.

It knows no route and no upstream. A stream whose upstream cannot keep up is not read further: its window stays shut.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite
from random import random
from time import monotonic
from typing import Any, Final

from proxy.http1.chunked import may_trail
from proxy.http1.errors import ProtocolError
from proxy.http1.fields import HAS_HOP_BY_HOP, UPGRADE
from proxy.http1.head import Head
from proxy.http2 import codec as codecs
from proxy.http2 import events
from proxy.http2.head import read_request, response_fields
from proxy.http2.keepalive import Keepalive
from proxy.http2.options import ErrorCode
from proxy.http2.resets import PrematureResets
from proxy.http2.session import Session, engine_options, flood_limits
from proxy.model.connection import ConnectionInfo
from proxy.model.reply import Reply
from proxy.route.edits import HeaderEdits
from proxy.runtime.runtime import FilterChainRuntime, Runtime
from proxy.stream.connection import ClientConnection
from proxy.stream.edge import HttpEdge
from proxy.stream.exchange import HttpExchange
from proxy.stream.state import NO_HEAD
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool
from proxy.upstream.stream import Fields

_MALFORMED: Final = "http2.invalid.header.field"
_BROKEN: Final = "codec_error"
_PROTOCOL_ERRORS: Final = frozenset(("header_overflow", "inbound_window_update_frames_flood"))
"""Floods that Envoy's codec refuses, and counts so."""
_NO_FIELDS: Final[frozenset[bytes]] = frozenset()
_CONTINUE: Final = ((b":status", b"100"),)


class Http2Stream:
    """One request and its response; an exchange's ``ClientStream``. ``ended``: all of the request came."""

    __slots__ = (
        "_connection",
        "_early",
        "_held",
        "_unused",
        "added",
        "connection",
        "edge",
        "ended",
        "exchange",
        "id",
        "keep",
        "pool",
        "proto_line",
        "state",
        "write_paused",
    )

    http2 = True
    exchange: HttpExchange

    def __init__(self, connection: Http2Downstream, number: int, ended: bool) -> None:
        self._connection = connection
        self.id = number
        self.ended = ended
        self.state = connection.state
        self.pool = connection.pool
        self.connection = connection.connection
        self.edge = connection.edge
        self.added = connection.added
        self.proto_line = connection.proto_line
        self.keep = True
        self.write_paused = False
        self._early = b""
        self._held = False
        self._unused = 0

    # What the connection says.

    def data(self, data: bytes, ended: bool) -> None:
        """A piece of the request; the window opens again when somebody has taken it."""
        exchange = self.exchange
        size = len(data)
        if ended:
            self.ended = True
        if not exchange.upgrade:
            exchange.request_body(data, size, ended)
        elif exchange.tunnel:
            if data:
                exchange.tunnel_data(data)
            if ended and not exchange.done:
                exchange.tunnel_ended()
        else:
            # Not passed on before the upstream has agreed (CVE-2025-64763), and not acknowledged: the window bounds it.
            self._early += data
            self._unused += size
            return
        if size:
            if self._held:
                self._unused += size
            else:
                self._connection.used(self.id, size)

    def give_up(self) -> None:
        """What was received and not taken counts against the connection's window no longer."""
        if self._unused:
            self._connection.used(self.id, self._unused)
            self._unused = 0

    # What the session says.

    def filled(self) -> None:
        self.write_paused = True
        self.exchange.downstream_paused()

    def drained(self) -> None:
        self.write_paused = False
        self.exchange.downstream_resumed()

    # What the exchange asks for.

    def client_certificate_line(self, received: bytes | None) -> bytes:
        return self._connection.client_certificate_line(received)

    def send_continue(self) -> None:
        self._connection.session.inform(self.id, _CONTINUE)

    def send_informational(self, head: Head) -> None:
        fields = response_fields(head, head.status, strip=HAS_HOP_BY_HOP, extra=b"", also=_NO_FIELDS)
        self._connection.session.inform(self.id, fields)

    def send_response(self, exchange: HttpExchange, head: Head, body: bytes, done: bool, now: float) -> None:
        fields = self.edge.response_fields(exchange, head, now)
        session = self._connection.session
        session.respond(self.id, fields, done and not body)
        if body:
            session.send(self, body, done)

    def send_body(self, data: bytes, done: bool) -> None:
        self._connection.session.send(self, data, done)

    def send_trailers(self, fields: Fields) -> None:
        self._connection.session.trail(self.id, fields)

    def send_reply(self, exchange: HttpExchange, reply: Reply, edits: tuple[HeaderEdits | None, ...]) -> None:
        fields = self.edge.local_fields(exchange, reply, edits)
        body = b"" if exchange.is_head else reply.body
        session = self._connection.session
        session.respond(self.id, fields, not body)
        if body:
            session.send(self, body, True)

    def hold_for_upstream(self) -> None:
        self._held = True

    def release_for_upstream(self) -> None:
        if self._held:
            self._held = False
            self.give_up()

    def start_tunnel(self) -> None:
        early = self._early
        self._early = b""
        if early:
            self.exchange.tunnel_data(early)
        if not self._held:
            self.give_up()
        if self.ended and not self.exchange.done:
            self.exchange.tunnel_ended()

    def drain(self) -> None:
        self._connection.drain()

    def cut_off(self) -> None:
        # RFC 9113 section 8.5.
        lost = self.exchange.tunnel and "UC" in self.exchange.flags
        self._connection.reset(self, ErrorCode.CONNECT_ERROR if lost else ErrorCode.INTERNAL_ERROR)

    def exchange_done(self, exchange: HttpExchange) -> None:
        self._connection.stream_done(self)


class Http2Downstream(ClientConnection):
    """One client connection. ``streams`` are those whose exchange is under way, by number."""

    __slots__ = (
        "_goaway_at",
        "_h2_stats",
        "_keepalive",
        "_last",
        "_reset_by_client",
        "_resets",
        "_unread",
        "session",
        "streams",
    )

    def __init__(
        self,
        state: LoopState,
        pool: Pool,
        connection: ConnectionInfo,
        runtime: Runtime,
        chain: FilterChainRuntime,
        edge: HttpEdge,
        on_closed: Callable[[], None],
    ) -> None:
        super().__init__(state, pool, connection, runtime, chain, edge, on_closed)
        self.streams: dict[int, Http2Stream] = {}
        self._last = 0
        self._reset_by_client = 0
        self._unread: set[int] = set()
        self._goaway_at = inf
        http = self._http
        self._h2_stats = http.http2_stats
        limits = flood_limits(
            http.config.http2, http.config.max_request_headers_kb, http.config.premature_resets
        )
        self.session = Session(
            codecs.make(
                codecs.Role.SERVER, engine_options(http.config.http2, http.config.max_request_headers_kb)
            ),
            state.flusher,
            {
                events.RequestReceived: self._request,
                events.DataReceived: self._data,
                events.TrailersReceived: self._trailers,
                events.StreamReset: self._reset,
                events.StreamClosed: self._stream_closed,
                events.GoAwayReceived: self._goaway,
                events.PingAcknowledged: self._pong,
                events.ConnectionClosed: self._ended,
            },
            self.write,
            self._flushed,
            self._failed,
            self._flooded,
            limits,
            server=True,
        )
        self._resets = PrematureResets(limits)
        keepalive = http.config.http2.connection_keepalive
        self._keepalive = None if keepalive is None else Keepalive(keepalive, state.now, random)

    @property
    def busy(self) -> bool:
        return bool(self.streams)

    # What the transport does.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._cx_stats.downstream_cx_http2_total += 1
        self._cx_stats.downstream_cx_http2_active += 1
        self.session.mark()

    def take_over(self, transport: Any, data: bytes) -> None:
        """Go on for the one that ``data``, its first bytes, showed to be of the wrong version."""
        self._transport = transport
        self.state.connections.add(self)
        self._cx_stats.downstream_cx_http2_total += 1
        self._cx_stats.downstream_cx_http2_active += 1
        transport.set_protocol(self)
        self.session.mark()
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        self._http.stats.downstream_cx_rx_bytes_total += len(data)
        if self._lingering or self._closed:
            return
        if self._keepalive is not None:
            self._keepalive.heard(self.state.now)
        try:
            self.session.receive(data)
        except codecs.CodecError as error:
            self._failed(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(remote=not self._lingering)

    def pause_writing(self) -> None:
        self.session.block()

    def resume_writing(self) -> None:
        if not self._closed:
            self.session.unblock()

    # What the streams do.

    def used(self, number: int, size: int) -> None:
        """Open the windows by ``size`` bytes."""
        if size and not self._closed:
            self.session.used(number, size)

    def reset(self, stream: Http2Stream, code: int) -> None:
        """End a stream at once."""
        if not self._closed and stream.id in self.streams:
            self._h2_stats.tx_reset += 1
            if self.session.dirty:
                # What was said before goes first: the codec would drop it.
                self.session.flush()
            self.session.reset(stream.id, code)
            self._forget(stream)

    def stream_done(self, stream: Http2Stream) -> None:
        """The exchange is over and its response (if any) given to the session."""
        if self.streams.get(stream.id) is not stream:
            return
        self._resets.closed += 1
        if not stream.ended and not self._closed:
            # Nobody will read the rest (RFC 9113 section 8.1); but the response goes first.
            self._unread.add(stream.id)
        self._forget(stream)

    # What the client says.

    def _request(self, event: events.RequestReceived) -> None:
        if self._runtime is not self.state.hub.current and not self._rebind():
            self.drain()
        http = self._http
        self._last = number = event.stream_id
        try:
            head = read_request(event.headers)
        except ProtocolError:
            self._refuse(number)
            return
        if len(event.headers) > http.max_headers_count:
            # As in Envoy, pseudo-fields count.
            self._h2_stats.header_overflow += 1
            self._overflow(number, "http2.too_many_headers")
            return
        if head.size > http.max_request_headers_bytes:
            self._h2_stats.header_list_size_too_large += 1
            self._overflow(number, "http2.header_list_size_too_large")
            return
        http.stats.downstream_rq_http2_total += 1
        self.session.requests += 1
        ended = event.end_stream
        stream = Http2Stream(self, number, ended)
        self.streams[number] = stream
        self._h2_stats.streams_active += 1
        stream.exchange = exchange = HttpExchange(stream, http, head, ended)
        limit = http.config.max_requests_per_connection
        if limit and self.session.requests >= limit and self.keep:
            http.stats.downstream_cx_max_requests_reached += 1
            self.drain()
        waiting = self.session.waiting
        if waiting and not ended and not head.flags & UPGRADE and head.method != b"CONNECT":
            following = waiting[-1]
            if (
                following.__class__ is events.DataReceived
                and following.stream_id == number
                and following.end_stream
            ):
                # All of a small message is there: it goes to the upstream in one go.
                size = len(following.data)
                exchange.run(following.data, size, ended=True)
                if exchange.request_done:
                    waiting.pop()
                    stream.ended = True
                    self.used(number, size)
                return
        exchange.run(b"", 0)

    def _data(self, event: events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.data(event.data, event.end_stream)
        else:
            self.used(event.stream_id, len(event.data))
            if event.end_stream:
                self._unread.discard(event.stream_id)

    def _trailers(self, event: events.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self._unread.discard(event.stream_id)
            return
        self._h2_stats.trailers += 1
        stream.ended = True
        if stream.exchange.upgrade:
            stream.data(b"", True)
        else:
            stream.exchange.request_trailers([field for field in event.headers if may_trail(field[0])])

    def _reset(self, event: events.StreamReset) -> None:
        self._h2_stats.rx_reset += 1
        self._reset_by_client = event.stream_id
        self._unread.discard(event.stream_id)
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._forget(stream)
            exchange = stream.exchange
            lived = monotonic() - exchange.start
            responded = exchange.status != 0
            exchange.downstream_reset()
            self._judge_reset(lived, responded=responded)

    def _judge_reset(self, lived: float, *, responded: bool) -> None:
        """A stream was reset by the client, or by the codec for what the client sent (CVE-2025-8671)."""
        if self._resets.stream_closed(lived, responded=responded) and not self._lingering:
            self._http.stats.downstream_rq_too_many_premature_resets += 1
            self._end_with(ErrorCode.ENHANCE_YOUR_CALM)

    def _stream_closed(self, event: events.StreamClosed) -> None:
        """It ended, and nobody said why before: the codec judged that the client broke the protocol."""
        self._unread.discard(event.stream_id)
        number = event.stream_id
        if number == self._reset_by_client:
            return
        stream = self.streams.get(number)
        code = event.error_code
        if stream is not None:
            self._forget(stream)
            exchange = stream.exchange
            length = code == ErrorCode.PROTOCOL_ERROR and exchange.head.length >= 0
            if length or code == ErrorCode.FLOW_CONTROL_ERROR:
                # A body of another length: as in Envoy that is this stream's alone. So is its window.
                self._h2_stats.tx_reset += 1
                self._h2_stats.rx_messaging_error += length
                lived = monotonic() - exchange.start
                responded = exchange.status != 0
                exchange.downstream_broke("http2.remote_reset" if length else _BROKEN)
                self._judge_reset(lived, responded=responded)
                return
            exchange.downstream_broke(_MALFORMED if code == ErrorCode.PROTOCOL_ERROR else _BROKEN)
        elif code == ErrorCode.PROTOCOL_ERROR:
            self._without_head(number).downstream_broke(_MALFORMED)
        if code == ErrorCode.PROTOCOL_ERROR:
            self._h2_stats.rx_messaging_error += 1
            self._misbehaved()

    def _goaway(self, event: events.GoAwayReceived) -> None:
        self.keep = False

    def _pong(self, event: events.PingAcknowledged) -> None:
        if self._keepalive is not None:
            self._keepalive.answered(self.state.now)

    def _ended(self, event: events.ConnectionClosed) -> None:
        if not self._closed and not self._lingering:
            if event.error_code:
                self._http.stats.downstream_cx_protocol_error += 1
            self._abandon(_BROKEN if event.error_code else "")
            self._linger()

    # Ends.

    def drain(self) -> None:
        """Take no more requests: say so, and mean it after ``drain_timeout``, as what the client has sent before it
        heard of it shall be served (RFC 9113 section 6.8)."""
        if self._closed or self._lingering or self._goaway_at != inf:
            return
        self.keep = False
        if not self.streams:
            self._http.stats.downstream_cx_drain_close += 1
            self._say_goodbye()
            return
        self.session.codec.send_shutdown_notice()
        self._h2_stats.goaway_sent += 1
        self.session.mark()
        self._goaway_at = self.state.now + self._http.config.drain_timeout

    def runtime_changed(self) -> None:
        """A new snapshot is in force: end an idle connection that it does not allow any more."""
        if not self.streams and not self._lingering and not self._rebind():
            self._say_goodbye()

    def sweep(self, now: float) -> None:
        """Look at the connection's own deadlines. ``now`` is the loop's time."""
        if self._lingering:
            self._sweep_closing(now)
            return
        if self._keepalive is not None and (due := self._keepalive.due(now)):
            if due == "lost":
                self._h2_stats.keepalive_timeout += 1
                self._abandon(why="http2_ping_timeout")
                self.abort()
                return
            self.session.codec.ping()
            self.session.mark()
        config = self._http.config
        longest = config.max_connection_duration
        idle_timeout = self._http.idle_timeout
        shortened = self.state.shortened
        if shortened is not None:
            longest = shortened.timeout("HTTP_DOWNSTREAM_CONNECTION_MAX", longest)
            idle_timeout = shortened.timeout("HTTP_DOWNSTREAM_CONNECTION_IDLE", idle_timeout)
        if -inf < self._goaway_at <= now:
            self._send_goaway()
            if not self.streams:
                self._say_goodbye()
        elif longest and self.keep and now - self._started >= longest:
            self._http.stats.downstream_cx_max_duration_reached += 1
            self.drain()
        elif not self.streams and idle_timeout and now - self._since >= idle_timeout:
            self._http.stats.downstream_cx_idle_timeout += 1
            self._say_goodbye()

    def _send_goaway(self) -> None:
        """The last one, unless it was sent."""
        if self._goaway_at != -inf:
            self._goaway_at = -inf
            self._h2_stats.goaway_sent += self.session.say_goodbye()

    def _say_goodbye(self) -> None:
        if not self._closed and not self._lingering:
            self._send_goaway()
            self.session.flush()
            self.close()

    def _refuse(self, number: int) -> None:
        """A request that no head could be made of."""
        self._h2_stats.rx_messaging_error += 1
        self._without_head(number).downstream_broke(_MALFORMED)
        self.session.reset(number, ErrorCode.PROTOCOL_ERROR)
        self._misbehaved()

    def _overflow(self, number: int, details: str) -> None:
        """A request of more fields than ``max_headers_count``, or larger than ``max_request_headers_kb``."""
        self._h2_stats.tx_reset += 1
        self.session.reset(number, ErrorCode.INTERNAL_ERROR)
        self._without_head(number).downstream_reset(details)

    def _without_head(self, number: int) -> HttpExchange:
        """An exchange for a request that nobody is to see: its line in the log."""
        self._last = number
        stream = Http2Stream(self, number, False)
        stream.exchange = exchange = HttpExchange(stream, self._http, NO_HEAD, False)
        stats = self._http.stats
        stats.downstream_rq_http2_total += 1
        stats.downstream_rq_total += 1
        stats.downstream_rq_active += 1
        return exchange

    def _misbehaved(self) -> None:
        """The client broke the protocol in one stream. As in Envoy that ends all, unless configured otherwise."""
        if not self._http.config.http2.stream_error_on_invalid_http_message and not self._lingering:
            self._http.stats.downstream_cx_protocol_error += 1
            self._end_with(ErrorCode.PROTOCOL_ERROR)
        elif not self._lingering:
            self._judge_reset(0.0, responded=False)

    def _failed(self, error: Exception) -> None:
        """The codec cannot go on."""
        if isinstance(error, codecs.DenialOfServiceError):
            self._h2_stats.header_overflow += 1
        self._http.stats.downstream_cx_protocol_error += 1
        self._abandon(_BROKEN)
        self.abort()

    def _flooded(self, name: str) -> None:
        """The client sends what costs more to take than to send."""
        if self._closed or self._lingering:
            return
        setattr(self._h2_stats, name, getattr(self._h2_stats, name) + 1)
        self._http.stats.downstream_cx_protocol_error += name in _PROTOCOL_ERRORS
        self._abandon(f"http2.{name}")
        self._end_with(ErrorCode.ENHANCE_YOUR_CALM)

    def _end_with(self, code: int) -> None:
        """Say why, and close."""
        self._abandon()
        # What the codec says of the end is no news.
        self._lingering = True
        self._h2_stats.goaway_sent += 1
        self.session.terminate(code)
        if not self._closed:
            self._linger()

    def _abandon(self, details: str = "", *, why: str = "") -> None:
        """Every exchange has lost its client. ``details``: of the breach of the protocol that ended it; ``why`` it was
        ended without one."""
        streams = list(self.streams.values())
        self.streams.clear()
        self._h2_stats.streams_active -= len(streams)
        begun = self.session.inspector.last_stream
        if details and begun & 1 and begun > self._last:
            # Its head had begun.
            self._without_head(begun).downstream_broke(details)
        for stream in streams:
            if details:
                stream.exchange.downstream_broke(details)
            else:
                stream.exchange.downstream_lost(remote=False, why=why)

    def _forget(self, stream: Http2Stream) -> None:
        del self.streams[stream.id]
        self._h2_stats.streams_active -= 1
        self.session.forget(stream.id)
        stream.give_up()
        if not self.streams:
            self._since = self.state.now
            if not self.keep and not isfinite(self._goaway_at):
                self._say_goodbye()

    def _flushed(self) -> None:
        """All was written: streams whose request nobody reads may end now."""
        if self._unread:
            codec = self.session.codec
            for number in [number for number in self._unread if not codec.queued_body_size(number)]:
                self._unread.discard(number)
                self.session.reset(number, ErrorCode.NO_ERROR)

    def _gone(self, *, remote: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self.session.closed = True
        stats = self._cx_stats
        stats.downstream_cx_http2_active -= 1
        self._leave(remote=remote)
        if self.streams:
            stats.downstream_cx_destroy_remote_active_rq += remote
            streams = list(self.streams.values())
            self.streams.clear()
            self._h2_stats.streams_active -= len(streams)
            for stream in streams:
                stream.exchange.downstream_lost(remote=remote)
        self._on_closed()
