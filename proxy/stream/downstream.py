"""The HTTP/1.1 server connection: heads and body framing in, responses out, one exchange at a time, in order.

It knows no route and no upstream; it holds the client back when somebody behind it cannot keep up. The transport is a
raw one or a ``TlsConn``; the same object is the protocol of the first and the application of the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from proxy.http1.chunked import LAST_CHUNK, ChunkedBody, chunk
from proxy.http1.errors import ProtocolError
from proxy.http1.fields import CHUNKED, CLOSE, HAS_HOP_BY_HOP, KEEP_ALIVE
from proxy.http1.head import Head, scan_request
from proxy.http1.splice import nominated
from proxy.model.connection import ConnectionInfo
from proxy.model.reply import Reply
from proxy.route.edits import HeaderEdits
from proxy.runtime.runtime import FilterChainRuntime, HttpRuntime, Runtime
from proxy.stream import local_reply
from proxy.stream.connection import ClientConnection
from proxy.stream.edge import HttpEdge
from proxy.stream.exchange import HttpExchange
from proxy.stream.framing import last_chunk
from proxy.stream.http2 import Http2Downstream
from proxy.stream.state import NO_HEAD
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool
from proxy.upstream.stream import Fields

_UPSTREAM, _PIPELINED = 1, 2
_PREFACE: Final = b"PRI * HTTP/2.0\r\n"


class Downstream(ClientConnection):
    """One client connection. ``keep``: whether it outlives the exchange under way. ``write_paused``: the client does
    not read."""

    http2 = False

    __slots__ = (
        "_buffer",
        "_chunked",
        "_exchange",
        "_held",
        "_in_dispatch",
        "_left",
        "_rechunk",
        "_requests",
        "_tunnel",
        "write_paused",
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
        self._exchange: HttpExchange | None = None
        self._buffer = b""
        self._left = 0
        self._chunked: ChunkedBody | None = None
        self._held = 0
        self._requests = 0
        self._in_dispatch = False
        self._rechunk = False
        self.write_paused = False
        self._tunnel = False

    @property
    def busy(self) -> bool:
        return self._exchange is not None or bool(self._buffer)

    # What the transport does.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._cx_stats.downstream_cx_http1_total += 1
        self._cx_stats.downstream_cx_http1_active += 1

    def data_received(self, data: bytes) -> None:
        self._http.stats.downstream_cx_rx_bytes_total += len(data)
        exchange = self._exchange
        if exchange is None:
            if self._lingering or self._closed:
                return
            if self.write_paused:
                # Nobody would pause the server whose response comes on top of what is not read.
                self._keep_early(self._buffer + data)
                return
            self._dispatch(self._buffer + data if self._buffer else data, len(self._buffer))
        elif self._tunnel:
            exchange.tunnel_data(data)
        elif exchange.request_done or (exchange.upgrade and self._body_done()):
            self._buffer += data
            self._hold(_PIPELINED)
        else:
            self._request_body(exchange, data)

    def eof_received(self) -> bool:
        exchange = self._exchange
        if exchange is not None and self._tunnel:
            exchange.tunnel_ended()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(remote=not self._lingering)

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._exchange is not None:
            self._exchange.downstream_paused()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._exchange is not None:
            self._exchange.downstream_resumed()
        elif self._buffer and not self._in_dispatch and not self._lingering:
            self._continue()

    # What the exchange asks for.

    def send_continue(self) -> None:
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_informational(self, head: Head) -> None:
        self.write(head.emit(None, HAS_HOP_BY_HOP, b"", nominated(head)))

    def send_response(self, exchange: HttpExchange, head: Head, body: bytes, done: bool, now: float) -> None:
        """The body's framing is the upstream's if the client understands it."""
        if not exchange.request_done:
            # HTTP/1.1 cannot answer the next request while this one is still coming in (and so does Envoy).
            self.keep = False
        if not exchange.tunnel:
            if head.length < 0 and not head.flags & CHUNKED and not done:
                if exchange.head.minor:
                    self._rechunk = True
                else:
                    self.keep = False
            elif exchange.dechunk and head.flags & CHUNKED:
                self.keep = False
        rechunk = self._rechunk
        out = self.edge.response_block(
            exchange, head, now, keep=self.keep, rechunk=rechunk, length=len(body) if done else -1
        )
        if body:
            out += chunk(body) if rechunk else body
        self.write(out)

    def send_body(self, data: bytes, done: bool) -> None:
        if self._rechunk:
            if data:
                data = chunk(data)
            if done:
                data += LAST_CHUNK
        if data:
            self.write(data)

    def send_trailers(self, fields: Fields) -> None:
        """Trailers need chunked framing; without it they are left out."""
        if self._rechunk:
            self.write(last_chunk(fields))

    def send_reply(self, exchange: HttpExchange, reply: Reply, edits: tuple[HeaderEdits | None, ...]) -> None:
        self.write(self.edge.local_reply(exchange, reply, *edits, keep=self.keep))

    def hold_for_upstream(self) -> None:
        """Read no more of the request for now."""
        self._hold(_UPSTREAM)

    def release_for_upstream(self) -> None:
        self._release(_UPSTREAM)

    def start_tunnel(self) -> None:
        """From now on bytes are passed on as they come; those that came early go first."""
        self._tunnel = True
        early = self._buffer
        self._buffer = b""
        self._release(_PIPELINED)
        exchange = self._exchange
        if early and exchange is not None:
            exchange.tunnel_data(early)

    def exchange_done(self, exchange: HttpExchange) -> None:
        """The exchange is over and its response (if any) written."""
        self._exchange = None
        self._chunked = None
        self._rechunk = False
        if self._closed:
            return
        self._since = self.state.now
        self._release(_UPSTREAM)
        if not self.keep or self._tunnel or not exchange.request_done:
            # What follows a request to switch protocols has no end that could be seen.
            unended = not exchange.request_done or exchange.upgrade
            self._end(linger=unended or bool(self._buffer))
        elif not self._in_dispatch:
            self._continue()

    def drain(self) -> None:
        """End after the exchange under way, or now if there is none."""
        self.keep = False
        if not self.busy and not self._lingering:
            self._http.stats.downstream_cx_drain_close += 1
            self.close()

    def cut_off(self) -> None:
        """End now, in the middle of a response: nothing may come after it, no pipelined request's either."""
        self._exchange = None
        self._buffer = b""
        self.abort()

    def runtime_changed(self) -> None:
        """A new snapshot is in force: end an idle connection that it does not allow any more."""
        if self._exchange is None and not self._lingering and not self._rebind():
            self.close()

    def sweep(self, now: float) -> None:
        """Look at the connection's own deadlines. ``now`` is the loop's time."""
        if self._lingering:
            self._sweep_closing(now)
            return
        config = self._http.config
        longest = config.max_connection_duration
        idle_timeout = self._http.idle_timeout
        stream_idle = self._http.stream_idle_timeout
        shortened = self.state.shortened
        if shortened is not None:
            longest = shortened.timeout("HTTP_DOWNSTREAM_CONNECTION_MAX", longest)
            idle_timeout = shortened.timeout("HTTP_DOWNSTREAM_CONNECTION_IDLE", idle_timeout)
            stream_idle = shortened.timeout("HTTP_DOWNSTREAM_STREAM_IDLE", stream_idle)
        if longest and self.keep and now - self._started >= longest:
            self._http.stats.downstream_cx_max_duration_reached += 1
            self.drain()
        if self._exchange is not None:
            return
        idle = now - self._since
        if self._buffer and not self.write_paused:
            if self._http.request_headers_timeout and idle >= self._http.request_headers_timeout:
                self._http.stats.downstream_rq_header_timeout += 1
                self._refuse(local_reply.REQUEST_HEADER_TIMEOUT)
            elif stream_idle and idle >= stream_idle:
                # A head is part of its stream from its first byte on.
                self._http.stats.downstream_rq_idle_timeout += 1
                self._refuse(local_reply.IDLE_BEFORE_REQUEST_END)
        elif idle_timeout and idle >= idle_timeout:
            self._http.stats.downstream_cx_idle_timeout += 1
            self.close()

    # Requests.

    def _continue(self) -> None:
        """Go on with what came while an exchange was under way."""
        data = self._buffer
        if not data:
            self._release(_PIPELINED)
        elif not self.write_paused:
            self._buffer = b""
            self._release(_PIPELINED)
            self._dispatch(data, 0)

    def _dispatch(self, data: bytes, seen: int) -> None:
        """Start the requests in ``data`` one after the other, as long as each is answered at once."""
        self._buffer = b""
        if self._runtime is not self.state.hub.current and not self._rebind():
            self.close()
            return
        http = self._http
        at = 0
        self._in_dispatch = True
        try:
            while True:
                try:
                    head = scan_request(
                        data,
                        at,
                        seen=seen,
                        max_bytes=http.max_request_headers_bytes,
                        max_fields=http.max_headers_count,
                    )
                    if head is None:
                        if at or not seen:
                            self._since = self.state.now
                        self._buffer = data[at:] if at else data
                        return
                except ProtocolError as error:
                    if data.startswith(_PREFACE) and not self._requests and http.config.codec_type == "AUTO":
                        self._speak_http2(data)
                        return
                    http.stats.downstream_cx_protocol_error += 1
                    self._refuse(local_reply.malformed(error))
                    return
                at = self._start(http, head, data)
                seen = 0
                if self._exchange is not None or self._closed or self._lingering:
                    if at < len(data) and not self._lingering:
                        self._keep_early(data[at:])
                    return
                if at == len(data):
                    return
                if self.write_paused:
                    self._buffer = data[at:]
                    self._hold(_PIPELINED)
                    return
        finally:
            self._in_dispatch = False

    def _keep_early(self, rest: bytes) -> None:
        """Bytes after the request under way: the next request, or (early) the first bytes of a tunnel."""
        self._buffer = rest
        self._hold(_PIPELINED)

    def _start(self, http: HttpRuntime, head: Head, data: bytes) -> int:
        """Begin one exchange; where in ``data`` its request ends."""
        flags = head.flags
        end = head.end
        body = b""
        payload = 0
        done = True
        broken: ProtocolError | None = None
        if flags & CHUNKED:
            chunked = ChunkedBody(limit=http.max_request_headers_bytes)
            try:
                body, end = chunked.feed(data, end)
            except ProtocolError as error:
                broken = error
            payload = chunked.payload
            done = chunked.done
            self._chunked = chunked
        elif head.length > 0:
            payload = min(head.length, len(data) - end)
            body = data[end : end + payload]
            end += payload
            self._left = head.length - payload
            done = not self._left
            self._chunked = None
        self._requests += 1
        keep = not flags & CLOSE if head.minor else bool(flags & KEEP_ALIVE)
        limit = http.config.max_requests_per_connection
        if limit and self._requests >= limit:
            http.stats.downstream_cx_max_requests_reached += 1
            keep = False
        self.keep = keep and not self.state.draining and self.keep
        http.stats.downstream_rq_http1_total += 1
        self._exchange = exchange = HttpExchange(self, http, head, done)
        if broken is None:
            exchange.run(body, payload)
        else:
            # Nobody behind us has seen anything of it yet.
            http.stats.downstream_rq_total += 1
            http.stats.downstream_rq_active += 1
            exchange.refuse(broken)
        return end

    def _speak_http2(self, data: bytes) -> None:
        """The client begins with HTTP/2 and has said so in no other way (RFC 9113 section 3.3)."""
        successor = Http2Downstream(
            self.state, self.pool, self.connection, self._runtime, self._chain, self.edge, self._on_closed
        )
        self._cx_stats.downstream_cx_http1_total -= 1
        self._cx_stats.downstream_cx_http1_active -= 1
        self.state.connections.discard(self)
        self._closed = True
        successor.take_over(self._transport, data)

    def _request_body(self, exchange: HttpExchange, data: bytes) -> None:
        chunked = self._chunked
        if chunked is None:
            size = len(data)
            left = self._left
            if size > left:
                self._keep_early(data[left:])
                data = data[:left]
                size = left
            self._left = left = left - size
            exchange.request_body(data, size, not left)
            return
        before = chunked.payload
        try:
            piece, end = chunked.feed(data)
        except ProtocolError as error:
            exchange.refuse(error)
            return
        if chunked.done and end < len(data):
            self._keep_early(data[end:])
        exchange.request_body(piece, chunked.payload - before, chunked.done)

    def _refuse(self, reply: Reply) -> None:
        """Answer bytes that are no request, log it, close."""
        self._buffer = b""
        self.keep = False
        self._began_without_head().reply(reply)

    def _began_without_head(self) -> HttpExchange:
        """An exchange for bytes of which no head could be made."""
        exchange = HttpExchange(self, self._http, NO_HEAD, False)
        self._exchange = exchange
        self._http.stats.downstream_rq_http1_total += 1
        self._http.stats.downstream_rq_total += 1
        self._http.stats.downstream_rq_active += 1
        return exchange

    def _body_done(self) -> bool:
        """Whether a request has come as far as its framing says; one for a tunnel goes on after that."""
        return not self._left and (self._chunked is None or self._chunked.done)

    # Holding back and ending.

    def _hold(self, reason: int) -> None:
        if not self._held and not self._closed:
            self._transport.pause_reading()
        self._held |= reason

    def _release(self, reason: int) -> None:
        if self._held & reason:
            self._held &= ~reason
            if not self._held and not self._closed and not self._transport.is_closing():
                self._transport.resume_reading()

    def _end(self, *, linger: bool) -> None:
        """Close. With ``linger`` the client may still be sending: a reset would take the response from it, so its
        bytes are read and thrown away for a while (Envoy's ``delayed_close_timeout``)."""
        self._buffer = b""
        if not linger:
            self.close()
            return
        self._release(_PIPELINED | _UPSTREAM)
        self._linger()

    def _gone(self, *, remote: bool) -> None:
        if self._closed:
            return
        self._closed = True
        stats = self._cx_stats
        stats.downstream_cx_http1_active -= 1
        self._leave(remote=remote)
        exchange = self._exchange
        if exchange is not None:
            stats.downstream_cx_destroy_remote_active_rq += remote
            exchange.downstream_lost(remote=remote)
        elif self._buffer and not self._lingering:
            # Half a head is a request that was given up.
            self._began_without_head().downstream_lost(remote=remote)
        self._buffer = b""
        self._on_closed()
