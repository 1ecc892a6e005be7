"""The ``h2`` engine: ``Codec`` kept in Python, by python-hyper's h2.

Its state is in ``hyper_core``, its inbound half in ``hyper_inbound``.

It is the fallback where ngh2 is not installed, and the second opinion in tests. Like ngh2 it queues what it is asked to
send, and writes in ``data_to_send``: what concerns streams in order, then requests that the peer's limit lets open,
then bodies as far as windows let them, a frame of each stream in turn, then trailers.

What the peer or the caller may still see to be different from ngh2:

- a peer that exceeds a stream's window, sends trailers without END_STREAM or an informational response after the final
  one loses its connection, not only the stream; more than 64 CONTINUATION frames in a row do the same;
- late HEADERS or DATA for a stream that both sides had finished are a connection error STREAM_CLOSED, where nghttp2
  ignores them; late ones for a stream that was reset are ignored by both, but h2 remembers 65,536 of them only;
- GOAWAY carries no debug data that says what was wrong, and may give another code for what is wrong in two ways;
- a stream whose window the peer overflows by WINDOW_UPDATE is closed at once, not when RST_STREAM is sent;
- ``data_to_send(amount)`` counts all that windows let pass as sent, not only what it gives;
- an empty trailer section is sent as an empty DATA frame with END_STREAM; an empty head is a ``ValueError``;
- names are sent as they are: nghttp2 makes them lower case;
- bodies of several streams are interleaved where nghttp2 sends one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from h2.exceptions import H2Error
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame

from proxy.http2.errors import (
    ConnectionClosingError,
    ConnectionProtocolError,
    NoAvailableStreamIDError,
    StreamProtocolError,
    StreamUnavailableError,
)
from proxy.http2.events import Header
from proxy.http2.hyper_core import MAX_STREAM_ID, PREFACE
from proxy.http2.hyper_inbound import Inbound
from proxy.http2.hyper_state import Stream, for_hpack
from proxy.http2.options import DEFAULT_WINDOW, ErrorCode, Options, Role, Setting

_MAX_DATA = 16384
"""Payload of one DATA frame at most, whatever more the peer would take, as nghttp2."""


class HyperCodec(Inbound):
    """One end of a connection. See ``proxy.http2.codec.Codec`` for what each operation means."""

    def __init__(self, role: Role, options: Options) -> None:
        super().__init__(role, options)
        self._output = bytearray(b"" if self._server else PREFACE)
        self._requests: deque[Stream] = deque()
        self._goaway_submitted = False
        self._output += SettingsFrame(0, settings=options.settings(role)).serialize()
        if options.initial_connection_window_size > DEFAULT_WINDOW:
            self.set_local_window_size(options.initial_connection_window_size)

    # --- operations

    def send_request(self, headers: Iterable[Header], *, end_stream: bool = False) -> int:
        fields = for_hpack(headers)
        self._require_active()
        if self._server:
            raise ConnectionProtocolError("a server cannot send requests")
        if not fields:
            raise ValueError("a request without fields")
        if self._next_stream_id > MAX_STREAM_ID:
            raise NoAvailableStreamIDError("the stream identifiers are used up")
        if not self.can_send_request:
            raise ConnectionClosingError("the connection cannot create another request stream")
        stream = Stream(self._next_stream_id, own=True, window=self._local[Setting.INITIAL_WINDOW_SIZE])
        self._next_stream_id += 2
        stream.request = (fields, end_stream)
        stream.method = next((value for name, value in fields if name == b":method"), b"")
        stream.body_open = not end_stream
        self._streams[stream.stream_id] = stream
        self._requests.append(stream)
        return stream.stream_id

    def send_response(self, stream_id: int, headers: Iterable[Header], *, end_stream: bool = False) -> None:
        fields = for_hpack(headers)
        stream = self._responding(stream_id)
        if not fields:
            raise ValueError("a response without fields")
        stream.responded = True
        stream.body_open = not end_stream
        self._tasks.append(partial(self._send_headers, stream_id, fields, end_stream))

    def send_informational_response(self, stream_id: int, headers: Iterable[Header]) -> None:
        fields = for_hpack(headers)
        self._responding(stream_id)
        self._tasks.append(partial(self._send_headers, stream_id, fields, False))

    def send_data(
        self, stream_id: int, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        stream = self._open_body(stream_id)
        if data:
            stream.chunks.append(bytes(data))
            stream.queued += len(data)
            self._queued_body_size += len(data)
        stream.ended = end_stream
        if data or end_stream:
            self._sending[stream_id] = stream

    def send_trailers(self, stream_id: int, headers: Iterable[Header]) -> None:
        fields = for_hpack(headers)
        stream = self._open_body(stream_id)
        stream.trailers = fields
        stream.ended = True
        self._sending[stream_id] = stream

    def reset_stream(self, stream_id: int, error_code: int = ErrorCode.CANCEL) -> None:
        self._require_active()
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.request is not None:
            if stream.cancelled is None:
                stream.cancelled = error_code
        else:
            self._refuse(stream, error_code)

    def ping(self, opaque_data: bytes = bytes(8)) -> None:
        self._require_active()
        if len(opaque_data) != 8:
            raise ValueError("opaque_data must contain exactly 8 bytes")
        self._pings.append(opaque_data)

    def send_goaway(
        self, error_code: int = 0, *, last_stream_id: int | None = None, debug_data: bytes = b""
    ) -> None:
        self._require_active()
        last = self._last_processed if last_stream_id is None else last_stream_id
        if last and last % 2 != self._server:
            raise ValueError("last_stream_id is not one of the peer's streams")
        self._queue_goaway(partial(self._send_goaway, last, error_code, debug_data))

    def send_shutdown_notice(self) -> None:
        self._require_active()
        if not self._server:
            raise ConnectionProtocolError("a client cannot send shutdown notices")
        if self._goaway_submitted or self._goaway_received:
            return
        self._queue_goaway(partial(self._write_goaway, MAX_STREAM_ID, ErrorCode.NO_ERROR, b""))

    def terminate_connection(self, error_code: int = 0, *, last_stream_id: int | None = None) -> None:
        self._require_active()
        self._end(error_code)
        if last_stream_id is not None:
            self._last_goaway = (last_stream_id, error_code, b"")
        self._terminating = True
        self._sending.clear()
        self._queued_body_size = 0

    def acknowledge_received_data(self, amount: int, stream_id: int) -> None:
        self._require_active()
        left = self._unacknowledged.get(stream_id, 0) - amount
        if amount < 0 or left < 0:
            raise ValueError("amount exceeds unacknowledged data")
        if left:
            self._unacknowledged[stream_id] = left
        else:
            self._unacknowledged.pop(stream_id, None)
        self._give_back(self._streams.get(stream_id), amount)

    def set_local_window_size(self, window_size: int, *, stream_id: int = 0) -> None:
        self._require_active()
        window = self._stream(stream_id).window if stream_id else self._window
        increment = window.resize(window_size)
        if increment:
            self._tasks.append(partial(self._send_window_update, increment, stream_id))

    def update_settings(self, settings: Mapping[int, int]) -> None:
        self._require_active()
        self._h2.update_settings(dict(settings))
        self._unacknowledged_settings.append(dict(settings))

    # --- state

    @property
    def can_send_request(self) -> bool:
        return not (
            self._server
            or self._terminating
            or self._last_goaway is not None
            or self._goaway_received
            or self._next_stream_id > MAX_STREAM_ID
        )

    @property
    def want_write(self) -> bool:
        if self._final_goaway_sent:
            return False
        if self._output or self._pings or self._tasks or self._last_goaway is not None:
            return True
        if self._requests and self._may_open():
            return True
        return self._h2.outbound_flow_control_window > 0 and any(
            stream.request is None for stream in self._sending.values()
        )

    @property
    def local_settings(self) -> dict[int, int]:
        self._require_active()
        return dict(self._local)

    @property
    def remote_settings(self) -> dict[int, int]:
        self._require_active()
        return dict(self._remote)

    @property
    def remote_window_size(self) -> int:
        self._require_active()
        return self._h2.outbound_flow_control_window

    def stream_remote_window_size(self, stream_id: int) -> int:
        self._require_active()
        self._stream(stream_id)
        return max(self._h2.streams[stream_id].outbound_flow_control_window, 0)

    def queued_body_size(self, stream_id: int | None = None) -> int:
        if stream_id is None:
            return self._queued_body_size
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.queued

    def _stream(self, stream_id: int) -> Stream:
        stream = self._streams.get(stream_id)
        if stream is None or stream.request is not None:
            raise StreamUnavailableError("stream does not exist")
        return stream

    def _responding(self, stream_id: int) -> Stream:
        self._require_active()
        if not self._server:
            raise ConnectionProtocolError("a client cannot send responses")
        stream = self._stream(stream_id)
        if stream.responded:
            raise StreamProtocolError("a response is already pending")
        return stream

    def _open_body(self, stream_id: int) -> Stream:
        self._require_active()
        stream = self._streams.get(stream_id)
        if stream is None or not stream.body_open:
            raise StreamProtocolError("stream has no open body")
        if stream.ended:
            raise StreamProtocolError("stream body is already ended")
        return stream

    # --- output

    def data_to_send(self, amount: int | None = None) -> bytes:
        if self._failed:
            self._require_active()
        for opaque_data in self._pings:
            self._h2.ping(opaque_data)
        self._pings.clear()
        while self._tasks:
            self._tasks.popleft()()
        self._goaways.clear()
        if self._last_goaway is None and not self._closed:
            self._send_bodies()
            while self._open_request():
                self._send_bodies()
        self._write(self._h2.data_to_send())
        if self._last_goaway is not None and not self._final_goaway_sent:
            self._write_goaway(*self._last_goaway)
            self._final_goaway_sent = self._goaway_sent = True
            self._close_streams_above(self._own_last_stream, own=False)
            while self._open_request():
                pass
        size = len(self._output) if amount is None else amount
        data = bytes(self._output[:size])
        del self._output[:size]
        self._update_terminal_state()
        return data

    def _write(self, output: bytes) -> None:
        self._output += output

    def _queue_goaway(self, task: Callable[[], None]) -> None:
        self._goaway_submitted = True
        self._tasks.append(task)
        self._goaways.append(task)

    def _write_reset(self, stream_id: int, code: int) -> None:
        try:
            self._h2.reset_stream(stream_id, code)
        except H2Error:
            # Both sides had finished, for h2.
            self._write(self._h2.data_to_send())
            self._write(RstStreamFrame(stream_id, error_code=code).serialize())

    def _send_window_update(self, increment: int, stream_id: int) -> None:
        if not stream_id:
            self._h2.increment_flow_control_window(increment)
            return
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.refused and not stream.remote_closed:
            self._h2.increment_flow_control_window(increment, stream_id)

    def _send_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._write_reset(stream_id, code)
            self._close_stream(stream, code)

    def _write_goaway(self, last: int, code: int, debug_data: bytes) -> None:
        # Not by h2, which takes a connection for closed when GOAWAY is sent.
        self._own_last_stream = last = min(last, self._own_last_stream)
        self._closing = True
        self._close_code = code
        self._close_debug = debug_data
        self._write(self._h2.data_to_send())
        self._write(GoAwayFrame(0, last, code, debug_data).serialize())

    def _send_goaway(self, last: int, code: int, debug_data: bytes) -> None:
        self._write_goaway(last, code, debug_data)
        self._goaway_sent = True
        self._close_streams_above(self._own_last_stream, own=False)

    def _send_headers(self, stream_id: int, headers: list[Header], end_stream: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or stream.refused:
            return
        try:
            self._h2.send_headers(stream_id, headers, end_stream=end_stream)
        except H2Error as error:
            self._write_reset(stream_id, ErrorCode.INTERNAL_ERROR)
            self._close_stream(stream, ErrorCode.INTERNAL_ERROR, StreamProtocolError(str(error)))
            return
        # h2 would check content-length by it.
        self._h2.streams[stream_id].request_method = None
        if end_stream:
            stream.local_closed = True
            self._close_if_done(stream)

    def _may_open(self) -> bool:
        return self._outbound_streams < self._remote[Setting.MAX_CONCURRENT_STREAMS]

    def _open_request(self) -> bool:
        """Send the next request that waits, or give it up; False when there is none that may be sent."""
        if not self._requests or not self._may_open():
            return False
        stream = self._requests.popleft()
        assert stream.request is not None
        if stream.cancelled is not None:
            self._close_stream(stream, stream.cancelled)
        elif self._goaway_received or self._last_goaway is not None:
            error = ConnectionClosingError("request HEADERS is not allowed")
            self._close_stream(stream, ErrorCode.REFUSED_STREAM, error)
        else:
            headers, end_stream = stream.request
            stream.request = None
            self._outbound_streams += 1
            self._send_headers(stream.stream_id, headers, end_stream)
        return True

    def _send_bodies(self) -> None:
        progress = True
        while progress:
            progress = False
            for stream in list(self._sending.values()):
                if stream.request is None and self._send_frame(stream):
                    progress = True

    def _send_frame(self, stream: Stream) -> bool:
        """One DATA frame, or trailers; False when there is nothing to send for the time being."""
        stream_id = stream.stream_id
        size = 0
        if stream.queued:
            size = min(
                stream.queued,
                _MAX_DATA,
                self._h2.max_outbound_frame_size,
                self._h2.local_flow_control_window(stream_id),
            )
            if size <= 0:
                return False
        elif not stream.ended:
            del self._sending[stream_id]
            return False
        if not size and stream.trailers:
            del self._sending[stream_id]
            self._send_headers(stream_id, stream.trailers, True)
            return True
        ends = stream.ended and size == stream.queued and not stream.trailers
        self._h2.send_data(stream_id, stream.take(size) if size else b"", end_stream=ends)
        self._queued_body_size -= size
        if ends:
            del self._sending[stream_id]
            stream.local_closed = True
            self._close_if_done(stream)
        return True
