"""One HTTP/2 connection to a host, and its streams, each of which carries one exchange.

It neither retries nor edits heads. While it takes more streams it lies on its ``shelf``, where the pool looks.
"""

from __future__ import annotations

import asyncio
from random import random
from typing import Any, Final, Literal, Protocol

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.http1.errors import ProtocolError
from proxy.http2 import codec as codecs
from proxy.http2 import events
from proxy.http2.head import read_response
from proxy.http2.keepalive import Keepalive
from proxy.http2.options import ErrorCode
from proxy.http2.session import Session, engine_options, flood_limits
from proxy.model.connection import Address
from proxy.tls.conn import Transport
from proxy.upstream.connection import QueueKey
from proxy.upstream.loop_state import LoopState
from proxy.upstream.stream import Fields, Receiver

_RESETS: Final = {
    ErrorCode.REFUSED_STREAM: "remote_refused_stream_reset",
    ErrorCode.CONNECT_ERROR: "remote_error_with_CONNECT_request",
}
"""Reasons of RST_STREAM that have names of their own."""


class Owner(Protocol):
    """The pool, as its connections see it."""

    def release(self, connection: Http2Connection, /) -> None: ...
    def closed(self, connection: Http2Connection, /) -> None: ...


class Http2Stream:
    """One request and its response. ``id`` is the stream's number; ``bounded``: the size of the response is known."""

    __slots__ = ("_connection", "_held", "_unused", "bounded", "id", "receiver", "tunnel")

    http2 = True

    def __init__(self, connection: Http2Connection, receiver: Receiver, number: int) -> None:
        self._connection = connection
        self.receiver = receiver
        self.id = number
        self.tunnel = False
        self.bounded = False
        self._held = False
        self._unused = 0

    # What the exchange does.

    def send(self, data: bytes, done: bool) -> None:
        """Send more of the request."""
        if self.id in self._connection.streams:
            self._connection.session.send(self, data, done)

    def send_trailers(self, fields: Fields) -> None:
        """End the request with trailers."""
        connection = self._connection
        if self.id in connection.streams:
            connection.session.trail(self.id, fields)

    def finish_tunnel(self) -> None:
        """The client ended its half of a tunnel."""
        self.send(b"", True)

    def detach(self) -> None:
        """The exchange is over before its response."""
        self._connection.cancel(self)

    def pause_reading(self) -> None:
        """Let the host's window run out."""
        if not self._held:
            self._held = True
            self._connection.cluster.stats.upstream_flow_control_paused_reading_total += 1

    def resume_reading(self) -> None:
        if self._held:
            self._held = False
            self._connection.cluster.stats.upstream_flow_control_resumed_reading_total += 1
            unused = self._unused
            self._unused = 0
            self._connection.used(self.id, unused)

    # What the session says.

    def filled(self) -> None:
        self._connection.cluster.stats.upstream_flow_control_backed_up_total += 1
        self.receiver.upstream_paused()

    def drained(self) -> None:
        self._connection.cluster.stats.upstream_flow_control_drained_total += 1
        self.receiver.upstream_resumed()

    # What the connection says.

    def body(self, data: bytes, done: bool) -> None:
        """A piece of the response; the window opens again when somebody has taken it."""
        size = len(data)
        self.receiver.response_body(data, size, done)
        if size:
            self.taken(size)

    def taken(self, size: int) -> None:
        """So much of the response was passed on; it counts until somebody reads it."""
        if self._held and self.id in self._connection.streams:
            self._unused += size
        else:
            self._connection.used(self.id, size)

    def give_up(self) -> None:
        """What was received and not taken counts against the connection's window no longer."""
        if self._unused:
            self._connection.used(self.id, self._unused)
            self._unused = 0


class Http2Connection(asyncio.Protocol):
    """``busy`` while it serves exchanges. ``pooled``: the pool counts it and is told of its end. ``draining``: it takes
    no more of them."""

    __slots__ = (
        "_h2_stats",
        "_keepalive",
        "_limit",
        "_owner",
        "_since",
        "_state",
        "_transport",
        "closed",
        "cluster",
        "draining",
        "epoch",
        "host",
        "idle_since",
        "key",
        "local",
        "pooled",
        "principal",
        "requests",
        "session",
        "shelf",
        "streams",
    )

    http2: Literal[True] = True

    def __init__(self, owner: Owner, state: LoopState, cluster: Cluster, host: Host) -> None:
        self._owner = owner
        self._state = state
        self.cluster = cluster
        self.host = host
        self.epoch = host.epoch
        self.key: QueueKey = host
        self.shelf = host.idle
        self.closed = False
        self.pooled = False
        self.draining = False
        self.requests = 0
        self.idle_since = 0.0
        self.local: Address | None = None
        self.principal = ""
        self.streams: dict[int, Http2Stream] = {}
        self._since = state.now
        options = cluster.config.http2
        # What the host allowed before is what it will allow, until its SETTINGS say otherwise.
        self._limit = host.max_streams or options.max_concurrent_streams
        self._h2_stats = cluster.stats.http2_stats()
        keepalive = options.connection_keepalive
        self._keepalive = None if keepalive is None else Keepalive(keepalive, state.now, random)
        made = codecs.make(
            codecs.Role.CLIENT, engine_options(options, cluster.config.max_http2_response_headers_kb)
        )
        self.session = Session(
            made,
            state.flusher,
            {
                events.ResponseReceived: self._response,
                events.InformationalResponseReceived: self._informational,
                events.DataReceived: self._data,
                events.TrailersReceived: self._trailers,
                events.StreamReset: self._reset,
                events.StreamClosed: self._stream_closed,
                events.GoAwayReceived: self._goaway,
                events.SettingsReceived: self._settings,
                events.PingAcknowledged: self._pong,
                events.ConnectionClosed: self._ended,
            },
            self._write,
            self._flushed,
            self._failed,
            self._flooded,
            flood_limits(options, cluster.config.max_http2_response_headers_kb),
            server=False,
        )

    @property
    def busy(self) -> bool:
        return bool(self.streams)

    @property
    def has_room(self) -> bool:
        """Whether it takes another exchange."""
        return not self.closed and not self.draining and len(self.streams) < self._limit

    def takes_request(self) -> bool:
        """Whether another exchange may begin now. It leaves its shelf if not: the codec may have heard of the host's
        GOAWAY, or of an error, before its events were dispatched."""
        try:
            if self.session.codec.can_send_request:
                return True
        except codecs.CodecError:
            # What it could not read ends it when the events before are dispatched.
            pass
        self.draining = True
        self._withdraw()
        return False

    # What the exchange and the pool do.

    def begin(self, receiver: Receiver, fields: Fields, done: bool) -> Http2Stream:
        """Send the head of a request; ``done``: it has no body."""
        if self._keepalive is not None and self._keepalive.before_stream(self._state.now):
            self.session.codec.ping()
        number = self.session.codec.send_request(fields, end_stream=done)
        stream = Http2Stream(self, receiver, number)
        self.streams[number] = stream
        self.requests += 1
        self.session.inspector.opened_streams += 1
        self._h2_stats.streams_active += 1
        self.session.mark()
        limit = self.cluster.config.max_requests_per_connection
        if limit and self.requests >= limit:
            self.cluster.stats.upstream_cx_max_requests += 1
            self._drain()
        elif not self.has_room:
            self._withdraw()
        return stream

    def cancel(self, stream: Http2Stream) -> None:
        """Give up a stream that is not over."""
        if self.streams.get(stream.id) is stream:
            self._h2_stats.tx_reset += 1
            self.cluster.stats.upstream_rq_tx_reset += 1
            self.session.reset(stream.id, ErrorCode.CANCEL)
            self._forget(stream)

    def used(self, number: int, size: int) -> None:
        """Open the windows by ``size`` bytes."""
        if size and not self.closed:
            self.session.used(number, size)

    def close(self) -> None:
        """Say goodbye and close after what was written is sent."""
        if not self.closed:
            self._end()
            self.cluster.stats.upstream_cx_destroy_local += 1
            if self.session.codec.can_send_request:
                # The host has not said it first.
                self._h2_stats.goaway_sent += self.session.say_goodbye()
            self.session.flush()
            self._transport.close()

    def retire(self) -> None:
        """It is not wanted any more: no further exchange, and an end after the last."""
        self._drain()

    def abort(self) -> None:
        """Close now."""
        self.cluster.stats.upstream_cx_destroy_local += not self.closed
        self._end()
        self._transport.abort()

    def sweep(self, now: float) -> bool:
        """Look at its own deadlines; false if that ended it. ``now`` is the loop's time."""
        config = self.cluster.config
        if self._keepalive is not None and (due := self._keepalive.due(now)):
            if due == "lost":
                self._h2_stats.keepalive_timeout += 1
                self._lost("connection_termination", "http2_ping_timeout")
                self.abort()
                return False
            self.session.codec.ping()
            self.session.mark()
        if config.max_connection_duration and now - self._since >= config.max_connection_duration:
            if not self.draining:
                self.cluster.stats.upstream_cx_max_duration_reached += 1
            self._drain()
        return not self.closed

    # What the transport does.

    def connection_made(self, transport: Any) -> None:
        self._transport: Transport = transport
        name = transport.get_extra_info("sockname")
        self.local = (name[0], name[1]) if name else None
        self.session.mark()

    def data_received(self, data: bytes) -> None:
        self.cluster.stats.upstream_cx_rx_bytes_total += len(data)
        if self.closed:
            return
        if self._keepalive is not None:
            self._keepalive.heard(self._state.now)
        try:
            self.session.receive(data)
        except codecs.CodecError as error:
            self._failed(error)

    def eof_received(self) -> bool:
        """Closes. It leaves the pool now and not a turn later, when somebody may have taken it."""
        if not self.streams:
            self._end()
        self.draining = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.cluster.stats.upstream_cx_destroy_remote += not self.closed
        self._end()
        if self.streams:
            self.cluster.stats.upstream_cx_destroy_with_active_rq += 1
            self.cluster.stats.upstream_cx_destroy_remote_with_active_rq += 1
            self._lost("connection_termination", "" if exc is None else str(exc))

    def pause_writing(self) -> None:
        self.session.block()

    def resume_writing(self) -> None:
        if not self.closed:
            self.session.unblock()

    # What the host says.

    def _response(self, event: events.ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        receiver = stream.receiver
        try:
            head = read_response(event.headers)
        except ProtocolError as error:
            self._misbehaved(stream, str(error))
            return
        config = self.cluster.config
        if len(event.headers) > config.max_headers_count:
            self._h2_stats.header_overflow += 1
            self._overflow(stream)
            return
        if head.size > config.max_http2_response_headers_kb * 1024:
            self._h2_stats.header_list_size_too_large += 1
            self._overflow(stream)
            return
        done = event.end_stream
        if head.length >= 0 or receiver.is_head or head.status == 204:
            stream.bounded = True
        if receiver.upgrade and head.status < 300 and not done:
            stream.tunnel = True
            if not receiver.connect:
                # As in Envoy: inside, extended CONNECT (RFC 8441) is an upgrade.
                head.status = 101
        if done:
            self._complete(stream)
        else:
            waiting = self.session.waiting
            if waiting and not stream.tunnel:
                following = waiting[-1]
                if (
                    following.__class__ is events.DataReceived
                    and following.stream_id == stream.id
                    and following.data
                ):
                    # A small message came with its head: it is passed on with it.
                    waiting.pop()
                    done = following.end_stream
                    if done:
                        self._complete(stream)
                    size = len(following.data)
                    receiver.response_started(head, following.data, size, done)
                    stream.taken(size)
                    return
        receiver.response_started(head, b"", 0, done)

    def _overflow(self, stream: Http2Stream) -> None:
        """A response of more fields than ``max_headers_count``, or larger than ``max_response_headers_kb``."""
        self._h2_stats.tx_reset += 1
        # As in Envoy, which blames the host.
        self.cluster.stats.upstream_rq_rx_reset += 1
        self.session.reset(stream.id, ErrorCode.CANCEL)
        self._forget(stream)
        stream.receiver.upstream_reset("remote_reset", "")

    def _informational(self, event: events.InformationalResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            try:
                head = read_response(event.headers)
            except ProtocolError as error:
                self._misbehaved(stream, str(error))
                return
            if head.status == 101:
                # RFC 9113 section 8.6.
                self._misbehaved(stream, "101 in HTTP/2")
            else:
                stream.receiver.informational(head)

    def _data(self, event: events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        data = event.data
        if stream is None:
            self.used(event.stream_id, len(data))
            return
        done = event.end_stream
        if done:
            self._complete(stream)
        if data or done:
            stream.body(data, done)

    def _trailers(self, event: events.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._complete(stream)
            stream.receiver.response_trailers(event.headers)

    def _reset(self, event: events.StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._h2_stats.rx_reset += 1
            self._forget(stream)
            reason = _RESETS.get(event.error_code, "remote_reset")
            self.cluster.stats.upstream_rq_rx_reset += reason == "remote_reset"
            stream.receiver.upstream_reset(reason, "")

    def _stream_closed(self, event: events.StreamClosed) -> None:
        """It ended, and nobody said why before: by the codec's own judgement, or since the host had gone away."""
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        if event.error_code == ErrorCode.REFUSED_STREAM:
            self._forget(stream)
            stream.receiver.upstream_reset("remote_refused_stream_reset", "")
        elif stream.bounded:
            # A body of another length: as in Envoy that is this stream's alone.
            self._h2_stats.tx_reset += 1
            self.cluster.stats.upstream_rq_tx_reset += 1
            self._forget(stream)
            stream.receiver.upstream_reset("protocol_error", "")
        else:
            self._misbehaved(stream, "")

    def _goaway(self, event: events.GoAwayReceived) -> None:
        if not self.closed:
            self.cluster.stats.upstream_cx_close_notify += 1
            self._drain()

    def _settings(self, event: events.SettingsReceived) -> None:
        allowed = event.settings.get(codecs.Setting.MAX_CONCURRENT_STREAMS)
        if allowed is not None:
            before = self.has_room
            self._limit = min(allowed, self.cluster.config.http2.max_concurrent_streams)
            self.host.max_streams = self._limit
            if self.has_room != before:
                self._offer(before)

    def _pong(self, event: events.PingAcknowledged) -> None:
        if self._keepalive is not None:
            self._keepalive.answered(self._state.now)

    def _ended(self, event: events.ConnectionClosed) -> None:
        if event.error_code and not self.closed:
            self._failed(None)

    # Inside.

    def _complete(self, stream: Http2Stream) -> None:
        """The response is there. What the host has not read of the request it need not."""
        if not stream.receiver.request_done:
            self._h2_stats.tx_reset += 1
            self.cluster.stats.upstream_rq_tx_reset += 1
            self.session.reset(stream.id, ErrorCode.NO_ERROR)
        self._forget(stream)

    def _forget(self, stream: Http2Stream) -> None:
        had_room = self.has_room
        del self.streams[stream.id]
        self._h2_stats.streams_active -= 1
        self.session.forget(stream.id)
        stream.give_up()
        if not self.streams:
            self.idle_since = self._state.now
            if self.draining:
                self.close()
                return
        if not had_room:
            stream.receiver.upstream_done()
            self._offer(False)

    def _offer(self, had_room: bool) -> None:
        """Tell the pool what has become of the room for further streams."""
        if not self.pooled:
            return
        if had_room:
            self._withdraw()
        elif self.has_room and self.session.codec.can_send_request:
            # Not after GOAWAY, which may have come with what made room and is looked at next.
            self._owner.release(self)

    def _withdraw(self) -> None:
        if self in self.shelf:
            self.shelf.remove(self)

    def _drain(self) -> None:
        """Take no more exchanges, and close after the last."""
        self.draining = True
        self._withdraw()
        if not self.streams and not self.closed:
            self.close()

    def _misbehaved(self, stream: Http2Stream, message: str) -> None:
        """The host broke the protocol. As in Envoy, nothing else that it says is believed either, unless configured."""
        stats = self.cluster.stats
        only = self.cluster.config.http2.stream_error_on_invalid_http_message
        stats.upstream_cx_protocol_error += not only
        stats.upstream_rq_tx_reset += 1
        self._h2_stats.tx_reset += only
        self._h2_stats.rx_messaging_error += 1
        self._forget(stream)
        stream.receiver.upstream_reset("protocol_error", message)
        if not self.closed and not only:
            self._lost("connection_termination", "")
            self._end_with(ErrorCode.PROTOCOL_ERROR)

    def _failed(self, error: Exception | None) -> None:
        """The codec cannot go on."""
        if self.closed:
            return
        if isinstance(error, codecs.DenialOfServiceError):
            self._h2_stats.header_overflow += 1
        self.cluster.stats.upstream_cx_protocol_error += 1
        self._lost("protocol_error", "" if error is None else str(error))
        self.abort()

    def _flooded(self, name: str) -> None:
        """The host sends what costs more to take than to send."""
        if self.closed:
            return
        setattr(self._h2_stats, name, getattr(self._h2_stats, name) + 1)
        self.cluster.stats.upstream_cx_protocol_error += 1
        self._lost("protocol_error", name)
        self._end_with(ErrorCode.ENHANCE_YOUR_CALM)

    def _end_with(self, code: int) -> None:
        """Say why, and close."""
        self.cluster.stats.upstream_cx_destroy_local += 1
        self._end()
        self._h2_stats.goaway_sent += 1
        self.session.terminate(code)
        self._transport.close()

    def _lost(self, reason: str, message: str) -> None:
        """Every exchange on it has lost its upstream."""
        self.draining = True
        self._withdraw()
        streams = list(self.streams.values())
        self.streams.clear()
        self._h2_stats.streams_active -= len(streams)
        stats = self.cluster.stats
        if reason == "protocol_error":
            stats.upstream_rq_tx_reset += len(streams)
        else:
            stats.upstream_rq_pending_failure_eject += len(streams)
        for stream in streams:
            stream.receiver.upstream_reset(reason, message)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def _flushed(self) -> None:
        pass

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self.draining = True
            self._withdraw()
            if self.pooled:
                self._owner.closed(self)
