"""One HTTP/1.1 connection to a host: it sends a request, frames the response and hands it on as it comes.

It neither retries nor edits heads. A connection serves one exchange at a time and gives itself back to its pool.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final, Literal, Protocol

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.http1.chunked import ChunkedBody
from proxy.http1.errors import ProtocolError
from proxy.http1.fields import CHUNKED, CLOSE, KEEP_ALIVE
from proxy.http1.head import Head, scan_response
from proxy.model.connection import Address
from proxy.tls.conn import Transport
from proxy.tls.errors import TruncatedError
from proxy.upstream.stream import Fields, Receiver

UNTIL_CLOSE: Final = -2
"""The body ends with the connection (RFC 9112 section 6.3)."""
_CHUNKED: Final = -1


_RAW: Final = Head()
"""Stands for the head of a response that has none."""


QueueKey = Host | tuple[Host, str]
"""What requests wait for: any connection of a host, or one of a version."""


class Owner(Protocol):
    """The pool, as its connections see it."""

    def release(self, connection: UpstreamConnection, /) -> None: ...
    def closed(self, connection: UpstreamConnection, /) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """``busy`` while it serves an exchange. ``pooled``: the pool counts it and is told of its end.

    ``dedicated``: it is for one tunnel, whose host may speak first.
    """

    http2: Literal[False] = False

    __slots__ = (
        "_buffer",
        "_chunked",
        "_dedicated",
        "_full",
        "_head",
        "_informational",
        "_keep",
        "_left",
        "_owner",
        "_paused",
        "_receiver",
        "_transport",
        "closed",
        "cluster",
        "epoch",
        "host",
        "idle_since",
        "key",
        "local",
        "pooled",
        "principal",
        "requests",
        "shelf",
    )

    def __init__(self, owner: Owner, cluster: Cluster, host: Host, *, dedicated: bool = False) -> None:
        self._owner = owner
        self._dedicated = dedicated
        self._receiver: Receiver | None = None
        self._head: Head | None = None
        self._left = 0
        self._chunked: ChunkedBody | None = None
        self._keep = False
        self._buffer = b""
        self._informational = 0
        self._paused = False
        self._full = False
        self.cluster = cluster
        self.host = host
        self.epoch = host.epoch
        self.key: QueueKey = host
        self.shelf = host.idle
        self.closed = False
        self.pooled = False
        self.requests = 0
        self.idle_since = 0.0
        self.local: Address | None = None
        self.principal = ""

    @property
    def busy(self) -> bool:
        return self._receiver is not None

    # What the exchange does.

    def begin(self, receiver: Receiver, data: bytes) -> None:
        """Send the beginning of a request (all of its head)."""
        self._receiver = receiver
        self.requests += 1
        self._transport.write(data)

    def begin_raw(self, receiver: Receiver) -> bytes:
        """Pass bytes on as they are, both ways, from now on; nothing was sent yet. What has come already."""
        self._receiver = receiver
        self.requests += 1
        self._head = _RAW
        self._left = UNTIL_CLOSE
        self._keep = False
        early = self._buffer
        self._buffer = b""
        return early

    def send(self, data: bytes, done: bool) -> None:
        """Send more of the request; its framing says where it ends."""
        if data and not self.closed:
            self._transport.write(data)

    def send_trailers(self, fields: Fields) -> None:
        """A body with a length has no trailers (RFC 9112 section 6.1): they are left out."""

    def finish_tunnel(self) -> None:
        """The client ended its half of a tunnel."""
        if not self.closed:
            self._transport.write_eof()

    def detach(self) -> None:
        """The exchange is over before its response: this connection cannot be used again."""
        self._receiver = None
        self.abort()

    def pause_reading(self) -> None:
        if not self._paused and not self.closed:
            self._paused = True
            self.cluster.stats.upstream_flow_control_paused_reading_total += 1
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self.cluster.stats.upstream_flow_control_resumed_reading_total += 1
            self._transport.resume_reading()

    def close(self) -> None:
        """Close after what was written is sent."""
        self.cluster.stats.upstream_cx_destroy_local += not self.closed
        self._end()
        self._transport.close()

    def retire(self) -> None:
        """It is not wanted any more."""
        self.close()

    def abort(self) -> None:
        """Close now."""
        self.cluster.stats.upstream_cx_destroy_local += not self.closed
        self._end()
        self._transport.abort()

    # What the transport does.

    def connection_made(self, transport: Any) -> None:
        self._transport: Transport = transport
        name = transport.get_extra_info("sockname")
        self.local = (name[0], name[1]) if name else None

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        self.cluster.stats.upstream_cx_rx_bytes_total += len(data)
        if receiver is None and self._dedicated and not self.requests:
            self._buffer += data
            return
        if receiver is None:
            # Bytes that nobody asked for: whatever they mean, the next response would be misread.
            if not self.closed:
                self.close()
            return
        if self._head is not None:
            self._body(receiver, data)
            return
        seen = len(self._buffer)
        if seen:
            data = self._buffer + data
        try:
            self._read_head(receiver, data, seen)
        except ProtocolError as error:
            self._protocol_error(error)

    def eof_received(self) -> bool:
        """Closes. An idle connection leaves the pool now and not a turn later, when somebody may have taken it."""
        if self._receiver is None:
            self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        receiver = self._receiver
        head = self._head
        stats = self.cluster.stats
        clean = exc is None or not isinstance(exc, TruncatedError | ssl.SSLError | OSError)
        # As in Envoy, where such a tunnel's other half is ours to end.
        ours = (
            clean
            and self._left == UNTIL_CLOSE
            and receiver is not None
            and receiver.connect
            and not receiver.request_done
        )
        stats.upstream_cx_destroy_local += not self.closed and ours
        stats.upstream_cx_destroy_remote += not self.closed and not ours
        self._end()
        if receiver is None:
            return
        if head is not None and self._left == UNTIL_CLOSE and clean:
            self._receiver = None
            receiver.response_body(b"", 0, True)
            return
        self._receiver = None
        stats.upstream_cx_destroy_with_active_rq += 1
        stats.upstream_cx_destroy_remote_with_active_rq += 1
        # As Envoy names it: a response that ends before its framing does is the server's breach of the protocol.
        if self._buffer or (head is not None and self._left != UNTIL_CLOSE):
            stats.upstream_cx_protocol_error += 1
            receiver.upstream_reset("protocol_error", "")
        else:
            receiver.upstream_reset("connection_termination", "" if exc is None else str(exc))

    def pause_writing(self) -> None:
        self._full = True
        self.cluster.stats.upstream_flow_control_backed_up_total += 1
        if self._receiver is not None:
            self._receiver.upstream_paused()

    def resume_writing(self) -> None:
        self._full = False
        self.cluster.stats.upstream_flow_control_drained_total += 1
        if self._receiver is not None:
            self._receiver.upstream_resumed()

    # Framing.

    def _read_head(self, receiver: Receiver, data: bytes, seen: int) -> None:
        at = 0
        config = self.cluster.config
        max_bytes = config.max_response_headers_kb * 1024
        max_fields = config.max_headers_count
        while True:
            head = scan_response(data, at, seen=seen, max_bytes=max_bytes, max_fields=max_fields)
            if head is None:
                self._buffer = data[at:] if at else data
                return
            if head.status >= 200:
                break
            if head.status == 101:
                if receiver.upgrade and not receiver.connect:
                    break
                raise ProtocolError("101 Switching Protocols to a request that did not ask for it")
            if head.flags & CHUNKED or head.length >= 0:
                raise ProtocolError("an interim response with a body")
            # One response: its interim heads count against the limit that its head has (Envoy has none for them).
            self._informational += head.end - at
            if self._informational > max_bytes:
                raise ProtocolError(f"interim responses of more than {max_bytes} bytes")
            receiver.informational(head)
            at = head.end
            seen = 0
        self._buffer = b""
        self._informational = 0
        self._head = head
        status = head.status
        flags = head.flags
        self._keep = not flags & CLOSE and (head.minor == 1 or bool(flags & KEEP_ALIVE))
        if not self._keep:
            self.cluster.stats.upstream_cx_close_notify += 1
        rest = data[head.end :]
        if receiver.upgrade:
            # Whoever refuses may still take what follows for the tunnel's bytes: nobody else's request comes here.
            self._keep = False
        if status == 101 or (receiver.upgrade and status < 300 and receiver.connect):
            self._left = UNTIL_CLOSE
        elif status == 204 and (flags & CHUNKED or head.length > 0):
            raise ProtocolError("204 with a body")
        elif receiver.is_head or status == 204 or status == 304:
            self._left = 0
        elif flags & CHUNKED:
            self._left = _CHUNKED
            self._chunked = body = ChunkedBody(decode=receiver.dechunk, limit=max_bytes)
            piece, end = body.feed(rest)
            self._finish_head(receiver, head, piece, body.payload, body.done, len(rest) - end)
            return
        elif head.length >= 0:
            self._left = head.length
        else:
            self._left = UNTIL_CLOSE
            self._keep = False
        left = self._left
        size = len(rest)
        if left == UNTIL_CLOSE:
            receiver.response_started(head, rest, size, False)
        elif size >= left:
            self._finish_head(receiver, head, rest[:left], left, True, size - left)
        else:
            self._left = left - size
            receiver.response_started(head, rest, size, False)

    def _finish_head(
        self, receiver: Receiver, head: Head, piece: bytes, payload: int, done: bool, surplus: int
    ) -> None:
        if done:
            if surplus:
                self._surplus()
            if receiver.dechunk and self._chunked is not None and self._chunked.trailers:
                receiver.response_started(head, piece, payload, False)
                self._end_with_trailers(receiver)
                return
            self._release(receiver)
        receiver.response_started(head, piece, payload, done)

    def _body(self, receiver: Receiver, data: bytes) -> None:
        left = self._left
        size = len(data)
        if left > size:
            self._left = left - size
            receiver.response_body(data, size, False)
        elif left >= 0:
            if size > left:
                self._surplus()
            self._complete(receiver, data[:left] if size > left else data, left)
        elif left == UNTIL_CLOSE:
            receiver.response_body(data, size, False)
        else:
            chunked = self._chunked
            assert chunked is not None
            before = chunked.payload
            try:
                piece, end = chunked.feed(data)
            except ProtocolError as error:
                self._protocol_error(error)
                return
            payload = chunked.payload - before
            if chunked.done:
                if end < size:
                    self._surplus()
                self._complete(receiver, piece, payload)
            elif piece:
                receiver.response_body(piece, payload, False)

    def _end_with_trailers(self, receiver: Receiver) -> None:
        """Whoever wants no framing is told them apart."""
        if self._receiver is receiver and self._chunked is not None:
            trailers = self._chunked.trailers
            self._release(receiver)
            receiver.response_trailers(trailers)

    def _complete(self, receiver: Receiver, data: bytes, payload: int) -> None:
        if receiver.dechunk and self._chunked is not None and self._chunked.trailers:
            if data:
                receiver.response_body(data, payload, False)
            self._end_with_trailers(receiver)
            return
        self._release(receiver)
        receiver.response_body(data, payload, True)

    def _release(self, receiver: Receiver) -> None:
        """The response is complete. The connection goes back first, so that the next request finds it."""
        self._receiver = None
        self._head = None
        self._chunked = None
        if self._paused:
            self.resume_reading()
        if self.closed:
            return
        if self._full or not receiver.request_done:
            # It answered what it has not read yet, and need not: a close would wait until all of that is sent.
            self.abort()
        elif self._keep and not self._transport.is_closing():
            if self.cluster.breaker.pending:
                receiver.upstream_done()
            self._owner.release(self)
        else:
            self.close()

    def _surplus(self) -> None:
        """There are bytes after the response: whatever they mean, the next one would be misread."""
        self._keep = False
        self.cluster.stats.upstream_cx_protocol_error += 1

    def _protocol_error(self, error: ProtocolError) -> None:
        receiver = self._receiver
        self._receiver = None
        self.cluster.stats.upstream_cx_protocol_error += 1
        self.abort()
        if receiver is not None:
            receiver.upstream_reset("protocol_error", str(error))

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            if self.pooled:
                self._owner.closed(self)
