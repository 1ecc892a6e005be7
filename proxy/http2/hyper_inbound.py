"""The ``h2`` engine's inbound half: bytes in, events out.

It cuts the bytes into frames and gives h2 one at a time, so that what came before a breach is not lost. h2 checks
frames, HPACK, states and windows. Judged here, where h2 does otherwise than nghttp2, are messages (``fields``),
content-length, GOAWAY, the number of streams, and frames for streams that are idle or gone. It writes nothing itself.
"""

from __future__ import annotations

from typing import Final

from h2 import events as h2_events
from h2.exceptions import DenialOfServiceError as H2DenialOfServiceError
from h2.exceptions import ProtocolError as H2ProtocolError
from hpack import HPACKError
from hyperframe.frame import WindowUpdateFrame

from proxy.http2 import events, fields
from proxy.http2.errors import ConnectionProtocolError, DenialOfServiceError
from proxy.http2.events import Event, Headers
from proxy.http2.hyper_core import MAX_STREAM_ID, NO_RFC7540_PRIORITIES, PREFACE, UNLIMITED, Core
from proxy.http2.hyper_state import Stream
from proxy.http2.options import ErrorCode, Options, Role, Setting

MAX_SETTINGS: Final = 32
"""Entries of one SETTINGS frame, as in nghttp2."""

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0,
    1,
    3,
    4,
    5,
    7,
    8,
    9,
)
_NOT_ON_IDLE: Final = (_DATA, _RST_STREAM, _WINDOW_UPDATE)
_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4


class Inbound(Core):
    """A codec's ``receive_data``."""

    def __init__(self, role: Role, options: Options) -> None:
        super().__init__(role, options)
        self._input = bytearray()
        self._preface_left = PREFACE if self._server else b""
        self._settings_seen = self._remote_settings_seen = False
        self._first_settings_acknowledged = False
        self._block_stream = 0
        self._block_ends_stream = self._block_opens = self._block_refused = False
        self._unseen = 0
        self._judged: tuple[Stream | None, fields.Message | None] = (None, None)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        self._require_active()
        if not self.want_read:
            # GOAWAY, and no streams: only our answers are still to go.
            return
        buffer = self._input
        buffer += data
        if self._preface_left and not self._take_preface(buffer):
            return
        while len(buffer) >= 9 and self._last_goaway is None:
            length = int.from_bytes(buffer[:3], "big")
            kind, flags = buffer[3], buffer[4]
            if not self._settings_seen:
                if kind != _SETTINGS or flags & _ACK:
                    self._end(ErrorCode.PROTOCOL_ERROR)
                    break
                self._settings_seen = True
            if length > self._local[Setting.MAX_FRAME_SIZE]:
                self._end(ErrorCode.FRAME_SIZE_ERROR)
                break
            if len(buffer) < 9 + length:
                break
            frame = bytes(buffer[: 9 + length])
            del buffer[: 9 + length]
            self._receive_frame(kind, flags, int.from_bytes(frame[5:9], "big") & MAX_STREAM_ID, frame)
        if self._last_goaway is not None:
            # Whatever follows a breach is ignored.
            buffer.clear()
        self._update_terminal_state()

    def _take_preface(self, buffer: bytearray) -> bool:
        size = min(len(buffer), len(self._preface_left))
        if buffer[:size] != self._preface_left[:size]:
            self._fail()
            raise ConnectionProtocolError("not the client's connection preface")
        self._h2.receive_data(self._preface_left[:size])
        self._preface_left = self._preface_left[size:]
        del buffer[:size]
        return not self._preface_left

    def _receive_frame(self, kind: int, flags: int, stream_id: int, frame: bytes) -> None:
        if self._block_stream and (kind != _CONTINUATION or stream_id != self._block_stream):
            self._end(ErrorCode.PROTOCOL_ERROR)
        elif kind == _SETTINGS:
            self._receive_settings(flags, stream_id, frame)
        elif kind == _GOAWAY:
            self._receive_goaway(stream_id, frame)
        elif kind == _PUSH_PROMISE or (kind in _NOT_ON_IDLE and stream_id and self._is_idle(stream_id)):
            self._end(ErrorCode.PROTOCOL_ERROR)
        elif kind in (_DATA, _HEADERS):
            stream = self._streams.get(stream_id)
            if stream is not None and stream.remote_closed:
                self._end(ErrorCode.STREAM_CLOSED)
                return
            if kind == _DATA:
                self._receive_data_frame(stream, frame)
            elif stream is None and not self._server and self._is_idle(stream_id):
                self._end(ErrorCode.PROTOCOL_ERROR)
            else:
                self._begin_block(stream, flags, frame, stream_id)
        elif kind == _CONTINUATION:
            if flags & _END_HEADERS:
                self._block_stream = 0
            self._receive_block(frame, stream_id)
        else:
            gone = kind == _RST_STREAM and stream_id not in self._streams
            for event in self._through_h2(frame):
                self._take_event(event)
            if gone and self._last_goaway is None:
                self._events.append(events.StreamReset(stream_id, int.from_bytes(frame[9:], "big")))

    def _through_h2(self, frame: bytes) -> list[h2_events.Event]:
        output = self._h2.data_to_send()
        self._write(output)
        try:
            return self._h2.receive_data(frame)
        except H2DenialOfServiceError as error:
            self._fail()
            raise DenialOfServiceError(str(error)) from error
        except H2ProtocolError as error:
            # Its GOAWAY is not ours.
            self._h2.clear_outbound_data_buffer()
            hpack = isinstance(error.__cause__, HPACKError)
            self._end(ErrorCode.COMPRESSION_ERROR if hpack else int(error.error_code))
            return []

    def _take_event(self, event: h2_events.Event) -> None:
        if isinstance(event, h2_events.WindowUpdated):
            if not event.stream_id or event.stream_id in self._streams:
                self._events.append(events.WindowUpdated(event.stream_id or 0, event.delta or 0))
        elif isinstance(event, h2_events.PingReceived):
            self._events.append(events.PingReceived(event.ping_data or b""))
        elif isinstance(event, h2_events.PingAckReceived):
            self._events.append(events.PingAcknowledged(event.ping_data or b""))
        elif isinstance(event, h2_events.StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                code = int(event.error_code or 0)
                if not event.remote_reset:
                    # A window beyond its maximum: nghttp2 ends the connection for it, h2 only the stream.
                    self._h2.clear_outbound_data_buffer()
                    self._end(code)
                    return
                self._events.append(events.StreamReset(stream.stream_id, code))
                self._close_stream(stream, code)

    def _receive_data_frame(self, stream: Stream | None, frame: bytes) -> None:
        if stream is not None and (stream.refused or not stream.final):
            # h2 would end the connection for a body before the final response, or after what it took for trailers.
            self._refuse(stream, ErrorCode.PROTOCOL_ERROR)
            # It never counted against the window that h2 keeps, so it is given back past h2.
            self._unseen += len(frame) - 9
            if self._unseen * 4 > self._window.size:
                self._write(WindowUpdateFrame(0, window_increment=self._unseen).serialize())
                self._unseen = 0
            return
        received = self._through_h2(frame)
        if self._last_goaway is not None:
            return
        data = next((event for event in received if isinstance(event, h2_events.DataReceived)), None)
        if stream is None or data is None:
            self._drop_reset()
            return
        length = data.flow_controlled_length or 0
        body = data.data or b""
        ends = data.stream_ended is not None
        stream.received += len(body)
        stream.remote_closed = ends
        expected = stream.expected
        if not stream.refused and (
            not stream.final
            or (
                expected is not None
                and (stream.received > expected or (ends and stream.received != expected))
            )
        ):
            self._refuse(stream, ErrorCode.PROTOCOL_ERROR)
            self._give_back(None, length)
            return
        self._give_back(stream, length - len(body))
        if body:
            stream_id = stream.stream_id
            self._unacknowledged[stream_id] = self._unacknowledged.get(stream_id, 0) + len(body)
        self._events.append(events.DataReceived(stream.stream_id, body, ends))
        self._close_if_done(stream)

    def _judge(self, headers: Headers) -> bool:
        """Called by the decoder with a whole header list: whether it is an informational response to h2."""
        if len(headers) > self._options.max_header_count:
            self._fail()
            raise DenialOfServiceError("received header list exceeds configured count")
        stream, _ = self._judged
        if stream is None:
            message = (
                fields.request(headers, allow_connect=self._options.allow_connect) if self._server else None
            )
        elif stream.final:
            message = fields.trailers(headers)
        else:
            message = fields.response(headers, method=stream.method)
        self._judged = (stream, message)
        return message is not None and 0 < message.status < 200 and not self._block_ends_stream

    def _begin_block(self, stream: Stream | None, flags: int, frame: bytes, stream_id: int) -> None:
        self._block_ends_stream = bool(flags & _END_STREAM)
        self._block_stream = 0 if flags & _END_HEADERS else stream_id
        self._block_opens = stream is None and self._is_idle(stream_id)
        self._block_refused = stream is not None and stream.final and not self._block_ends_stream
        if self._block_refused:
            # Trailers that do not end the stream: h2 is shown some that do, or it would end the connection.
            frame = frame[:4] + bytes((flags | _END_STREAM,)) + frame[5:]
        self._receive_block(frame, stream_id)

    def _receive_block(self, frame: bytes, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        self._judged = (stream, None)
        received = self._through_h2(frame)
        if self._block_stream or self._last_goaway is not None:
            return
        if not received or (stream is None and not self._block_opens):
            # For a stream that is gone.
            self._drop_reset()
            return
        message = None if self._block_refused else self._judged[1]
        if stream is None:
            stream = self._open_inbound(stream_id)
            if stream is None:
                return
            trailers = False
        else:
            trailers = stream.final
        stream.remote_closed = self._block_ends_stream
        if stream.refused:
            self._drop_reset()
        else:
            self._take_message(stream, message, trailers)

    def _open_inbound(self, stream_id: int) -> Stream | None:
        self._last_inbound = stream_id
        if self._inbound_streams >= self._local[Setting.MAX_CONCURRENT_STREAMS]:
            self._end(ErrorCode.PROTOCOL_ERROR)
            return None
        if self._goaway_sent:
            # The peer may retry what we did not take (RFC 9113 section 6.8).
            self._write(self._h2.data_to_send())
            self._h2.reset_stream(stream_id)
            self._h2.clear_outbound_data_buffer()
            return None
        pending = (
            sent.get(Setting.MAX_CONCURRENT_STREAMS) for sent in reversed(self._unacknowledged_settings)
        )
        limit = next((value for value in pending if value is not None), UNLIMITED)
        if self._inbound_streams >= limit:
            self._write_reset(stream_id, ErrorCode.REFUSED_STREAM)
            return None
        self._last_processed = stream_id
        stream = Stream(stream_id, own=False, window=self._local[Setting.INITIAL_WINDOW_SIZE])
        self._streams[stream_id] = stream
        self._inbound_streams += 1
        return stream

    def _take_message(self, stream: Stream, message: fields.Message | None, trailers: bool) -> None:
        ends = self._block_ends_stream
        stream_id = stream.stream_id
        if message is None:
            return self._refuse(stream, ErrorCode.PROTOCOL_ERROR)
        if trailers:
            if message.content_length is not None:
                if stream.expected is not None:
                    return self._refuse(stream, ErrorCode.PROTOCOL_ERROR)
                stream.expected = message.content_length
        elif stream.own:
            stream.final = message.status >= 200
            stream.expected = message.content_length
        else:
            stream.method = message.method
            stream.expected = message.content_length
        if ends and (
            not stream.final or (stream.expected is not None and stream.received != stream.expected)
        ):
            return self._refuse(stream, ErrorCode.PROTOCOL_ERROR)
        event: Event
        if trailers:
            event = events.TrailersReceived(stream_id, message.headers)
        elif not stream.own:
            event = events.RequestReceived(stream_id, message.headers, ends)
        elif stream.final:
            event = events.ResponseReceived(stream_id, message.headers, ends)
        else:
            event = events.InformationalResponseReceived(stream_id, message.headers)
        self._events.append(event)
        self._close_if_done(stream)
        return None

    def _receive_settings(self, flags: int, stream_id: int, frame: bytes) -> None:
        if flags & _ACK and not stream_id:
            if len(frame) > 9 or not self._unacknowledged_settings:
                self._end(ErrorCode.FRAME_SIZE_ERROR if len(frame) > 9 else ErrorCode.PROTOCOL_ERROR)
                return
            self._apply_local_settings(self._unacknowledged_settings.popleft())
            if self._first_settings_acknowledged:
                self._through_h2(frame)
            # h2 was not told of the first, and counts.
            self._first_settings_acknowledged = True
            self._decoder.max_allowed_table_size = self._local[Setting.HEADER_TABLE_SIZE]
            self._events.append(events.SettingsAcknowledged())
            return
        if len(frame) > 9 + 6 * MAX_SETTINGS:
            self._end(ErrorCode.ENHANCE_YOUR_CALM)
            return
        entries = [
            (int.from_bytes(frame[at : at + 2], "big"), int.from_bytes(frame[at + 2 : at + 6], "big"))
            for at in range(9, len(frame) - 5, 6)
        ]
        settings = dict(entries)
        sizes = [value for identifier, value in entries if identifier == Setting.HEADER_TABLE_SIZE]
        if sizes and min(sizes) < sizes[-1]:
            # RFC 7541 section 4.2: the smallest must be acknowledged, too. h2 sees only the last.
            self._h2.encoder.header_table_size = min(sizes)
        self._through_h2(frame)
        if self._last_goaway is not None:
            return
        if not self._remote_settings_seen:
            self._remote_settings_seen = True
            self._remote[Setting.MAX_CONCURRENT_STREAMS] = UNLIMITED
            self._remote[NO_RFC7540_PRIORITIES] = 0
        for identifier, value in settings.items():
            if identifier in self._remote:
                self._remote[identifier] = value
        self._events.append(events.SettingsReceived(settings))

    def _receive_goaway(self, stream_id: int, frame: bytes) -> None:
        if stream_id or len(frame) < 17:
            self._end(ErrorCode.PROTOCOL_ERROR if stream_id else ErrorCode.FRAME_SIZE_ERROR)
            return
        last = int.from_bytes(frame[9:13], "big") & MAX_STREAM_ID
        if (last and last % 2 == self._server) or last > self._peer_last_stream:
            self._end(ErrorCode.PROTOCOL_ERROR)
            return
        self._goaway_received = self._closing = True
        self._peer_last_stream = last
        self._close_code = int.from_bytes(frame[13:17], "big")
        self._close_debug = frame[17:]
        self._events.append(events.GoAwayReceived(last, self._close_code, self._close_debug))
        self._close_streams_above(last, own=True)
