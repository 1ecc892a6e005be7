"""What both ends of a connection do with their codec: bytes in, events out, and one write for each turn of the loop.

It knows no heads and no exchanges. Whoever has a body to send is told when too much of it waits here, and when it has
gone; whoever receives one says when it was used, and the peer's window opens by as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from proxy.http2 import codec as codecs
from proxy.http2 import events
from proxy.http2.codec import Codec, CodecError
from proxy.http2.errors import ConnectionStateError, StreamProtocolError, StreamUnavailableError
from proxy.http2.events import Header
from proxy.http2.frames import Breach, Flood, FrameInspector
from proxy.http2.limits import MAX_HEADER_BLOCK_SIZE, FloodLimits
from proxy.http2.options import MAX_WINDOW, ErrorCode, Options
from proxy.model.http2 import PREMATURE_RESETS, Http2Options, PrematureResets

HIGH: Final = 256 * 1024
"""Bytes of one stream that wait for the peer's window or for the socket before their source is told to stop."""
LOW: Final = 128 * 1024
"""Bytes at which it may go on."""
PULL: Final = 1 << 20
"""Bytes that are taken from the codec at one time where more wait; in between the transport says whether it is full."""
_BREACHES: Final[dict[str, int]] = {
    "stream_closed": ErrorCode.STREAM_CLOSED,
    "protocol_error": ErrorCode.PROTOCOL_ERROR,
}

_ENDED: Final = (ConnectionStateError, StreamProtocolError)


def engine_options(options: Http2Options, max_headers_kb: int) -> Options:
    """What the codec needs to know of a configuration. Above four times ``max_headers_kb`` a head ends the connection;
    what is less and too large ends its stream."""
    return Options(
        max_header_list_size=max(MAX_HEADER_BLOCK_SIZE, 4 * max_headers_kb * 1024),
        max_concurrent_streams=options.max_concurrent_streams,
        initial_stream_window_size=options.initial_stream_window_size,
        initial_connection_window_size=options.initial_connection_window_size,
        hpack_table_size=options.hpack_table_size,
        allow_connect=options.allow_connect,
    )


def flood_limits(
    options: Http2Options, max_headers_kb: int, resets: PrematureResets = PREMATURE_RESETS
) -> FloodLimits:
    """What a configuration says of floods."""
    return FloodLimits(
        max_outbound_frames=options.max_outbound_frames,
        max_outbound_control_frames=options.max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload=options.max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream=options.max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent=(
            options.max_inbound_window_update_frames_per_data_frame_sent
        ),
        max_header_block_size=max(MAX_HEADER_BLOCK_SIZE, max_headers_kb * 1024),
        premature_reset_total_stream_count=resets.total_stream_count,
        premature_reset_min_stream_lifetime_seconds=resets.min_stream_lifetime,
    )


class Sender(Protocol):
    """A stream with a body to send."""

    id: int

    def filled(self) -> None: ...
    def drained(self) -> None: ...


def _ignore(event: events.Event) -> None:
    """Nothing follows from it."""


_IGNORED: Final[dict[type[events.Event], Callable[[Any], None]]] = {
    kind: _ignore
    for kind in (
        events.RequestReceived,
        events.ResponseReceived,
        events.InformationalResponseReceived,
        events.SettingsReceived,
        events.SettingsAcknowledged,
        events.PingReceived,
        events.PingAcknowledged,
        events.WindowUpdated,
    )
}


class Flusher:
    """Sessions with something to send. Each is flushed once in a turn, however many events gave it something."""

    __slots__ = ("_call_soon", "_dirty", "_scheduled")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._dirty: list[Session] = []
        self._scheduled = False

    def mark(self, session: Session) -> None:
        """Have ``session`` flushed in this turn."""
        session.dirty = True
        self._dirty.append(session)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        dirty = self._dirty
        self._dirty = []
        for session in dirty:
            session.flush()


class Session:
    """One connection's codec. ``dirty``: it is to be flushed; ``blocked``: the transport takes no more.

    ``waiting`` are the events that come after the one that is handled, the next one last; a handler may take that one
    off, and handle it itself. ``handlers`` maps classes of events to what is called with them. ``on_flushed`` is called
    when all was written that could be.
    """

    __slots__ = (
        "_answers",
        "_answers_allowed",
        "_flusher",
        "_full",
        "_handlers",
        "_on_error",
        "_on_flood",
        "_on_flushed",
        "_opened",
        "_write",
        "blocked",
        "closed",
        "codec",
        "dirty",
        "inspector",
        "waiting",
    )

    def __init__(
        self,
        codec: Codec,
        flusher: Flusher,
        handlers: Mapping[type[events.Event], Callable[[Any], None]],
        write: Callable[[bytes], object],
        on_flushed: Callable[[], None],
        on_error: Callable[[Exception], None],
        on_flood: Callable[[str], None],
        limits: FloodLimits,
        *,
        server: bool,
    ) -> None:
        self.codec = codec
        self.inspector = FrameInspector(limits, server=server)
        self._answers = 0
        self._opened = 0
        self._answers_allowed = limits.max_outbound_control_frames
        self._on_flood = on_flood
        self._flusher = flusher
        self._handlers = codecs.dispatch_table(
            {
                **_IGNORED,
                events.PingReceived: self._answered,
                events.SettingsReceived: self._answered,
                **handlers,
            }
        )
        self._write = write
        self._on_flushed = on_flushed
        self._on_error = on_error
        self._full: dict[int, Sender] = {}
        self.dirty = False
        self.blocked = False
        self.closed = False
        self.waiting: list[Any] = []

    def mark(self) -> None:
        """There is something to send."""
        if not self.dirty:
            self._flusher.mark(self)

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer. Raises what the codec raises for a connection that cannot go on."""
        verdict = self.inspector.inspect(data)
        if verdict is not None and verdict != "grant":
            self._end(verdict)
            return
        try:
            if verdict is not None:
                data = self._judge_grants(data)
                if not data:
                    return
            self.codec.receive_data(data)
        except CodecError:
            # What came before was in order.
            self._dispatch()
            raise
        self._dispatch()
        if self._answers > self._answers_allowed and not self.blocked:
            # Much may be read before the loop's turn ends. Only written answers can block.
            self._answers = 0
            self.flush()
        if self.blocked and self._is_flood_of_answers():
            self._on_flood("outbound_control_flood")
            return
        if not self.dirty:
            self._flusher.mark(self)

    def _end(self, verdict: Flood | Breach) -> None:
        code = _BREACHES.get(verdict)
        if code is None:
            self._on_flood(verdict)
        else:
            self.terminate(code)

    def _judge_grants(self, data: bytes) -> bytes:
        """Reset streams whose window cannot take what it is given (RFC 9113 section 6.9.1); the codec would end the
        connection. What of ``data`` is left for the codec; nothing if the connection is over."""
        codec = self.codec
        grants = self.inspector.grants
        self.inspector.grants = []
        taken = 0
        for at, number, increment in grants:
            if at > taken:
                codec.receive_data(data[taken:at])
                taken = at
                self._dispatch()
                if self.closed:
                    return b""
            try:
                window = codec.stream_remote_window_size(number)
            except StreamUnavailableError:
                continue
            if window + increment > MAX_WINDOW:
                codec.reset_stream(number, ErrorCode.FLOW_CONTROL_ERROR)
                # Only when it is sent the stream is over for the codec.
                self.flush()
                if self.closed or not codec.want_read:
                    return b""
        return data[taken:]

    def _is_flood_of_answers(self) -> bool:
        """Whether a peer that does not read has made us answer too often: each PING and SETTINGS is acknowledged, and
        each stream may have been reset. The codec holds these back, so that nobody else counts them."""
        opened = self.inspector.opened_streams - self._opened
        return self._answers + opened > self._answers_allowed

    def _answered(self, event: events.Event) -> None:
        self._answers += 1

    def _dispatch(self) -> None:
        handlers = self._handlers
        self.waiting = waiting = self.codec.events()
        waiting.reverse()
        while waiting:
            event = waiting.pop()
            handle = handlers.get(event.__class__)
            if handle is not None:
                handle(event)
                if self.closed:
                    return

    def flush(self) -> None:
        """Write what the codec has, as far as the transport takes it."""
        self.dirty = False
        if self.blocked or self.closed:
            return
        codec = self.codec
        try:
            while codec.queued_body_size() > PULL:
                data = codec.data_to_send(PULL)
                self._write(data)
                if len(data) < PULL or self.blocked:
                    break
            else:
                data = codec.data_to_send()
                if data:
                    self._write(data)
        except CodecError as error:
            self._on_error(error)
            return
        if self._full:
            self._look_at_full()
        self._dispatch()
        if not self.blocked:
            self._on_flushed()

    def block(self) -> None:
        """The transport takes no more bytes for now."""
        self.blocked = True
        self._answers = 0
        self._opened = self.inspector.opened_streams

    def unblock(self) -> None:
        """The transport takes bytes again."""
        self.blocked = False
        self.flush()

    # What is said of a stream. The codec may know that the stream or the connection has ended when its events, which
    # tell us, are not dispatched yet: what is said then goes nowhere, and the events come.

    def respond(self, number: int, fields: Iterable[Header], end: bool) -> None:
        """Send the head of a response."""
        try:
            self.codec.send_response(number, fields, end_stream=end)
        except _ENDED:
            return
        if not self.dirty:
            self._flusher.mark(self)

    def inform(self, number: int, fields: Iterable[Header]) -> None:
        """Send the head of an interim response."""
        try:
            self.codec.send_informational_response(number, fields)
        except _ENDED:
            return
        self.mark()

    def send(self, sender: Sender, data: bytes, end: bool) -> None:
        """Queue a piece of a body."""
        number = sender.id
        codec = self.codec
        try:
            codec.send_data(number, data, end_stream=end)
        except _ENDED:
            return
        self.inspector.data_frames_sent += 1 + (len(data) >> 14)
        if not self.dirty:
            self._flusher.mark(self)
        queued = codec.queued_body_size(number)
        if queued > LOW and (queued > HIGH or self.blocked) and number not in self._full:
            self._full[number] = sender
            sender.filled()

    def trail(self, number: int, fields: Iterable[Header]) -> None:
        """End a stream with trailers."""
        try:
            self.codec.send_trailers(number, fields)
        except _ENDED:
            return
        if not self.dirty:
            self._flusher.mark(self)

    def used(self, number: int, size: int) -> None:
        """Give back ``size`` bytes of the windows."""
        try:
            self.codec.acknowledge_received_data(size, number)
        except _ENDED:
            return
        if not self.dirty:
            self._flusher.mark(self)

    def reset(self, number: int, code: int) -> None:
        """End a stream at once."""
        try:
            self.codec.reset_stream(number, code)
        except _ENDED:
            return
        self.mark()

    def say_goodbye(self) -> bool:
        """Send GOAWAY; false if the connection is over for the codec, as it is when the peer has said it first."""
        try:
            self.codec.send_goaway()
        except ConnectionStateError:
            return False
        self.mark()
        return True

    def terminate(self, code: int) -> None:
        """Send a last GOAWAY, whatever else waits."""
        try:
            self.codec.terminate_connection(code)
        except ConnectionStateError:
            return
        self.blocked = False
        self.flush()
        self.closed = True

    def forget(self, number: int) -> None:
        """The stream is over."""
        self._full.pop(number, None)

    def _look_at_full(self) -> None:
        queued = self.codec.queued_body_size
        for number, sender in list(self._full.items()):
            if queued(number) <= LOW:
                del self._full[number]
                sender.drained()
