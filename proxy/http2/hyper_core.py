"""What the ``h2`` engine knows of a connection, and how streams and the connection itself end.

h2 keeps the states of streams and the send windows. What it does otherwise than nghttp2 is kept here: GOAWAY, after
which h2 would take no frame, the numbers of streams, receive windows, and when ``ConnectionClosed`` is due.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from proxy.http2 import events
from proxy.http2.errors import ConnectionStateError
from proxy.http2.events import Event, Headers
from proxy.http2.hyper_state import BoundedEncoder, JudgedDecoder, Stream, Window
from proxy.http2.options import DEFAULT_WINDOW, ErrorCode, Options, Role, Setting

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_STREAM_ID: Final = (1 << 31) - 1
UNLIMITED: Final = 0xFFFFFFFF
NO_RFC7540_PRIORITIES: Final = 0x9
_INITIAL_MAX_CONCURRENT_STREAMS: Final = 100
"""What a peer is taken to allow that has not said yet, as in nghttp2."""
_RST_STREAM: Final = 3
_DEFAULTS: Final = {
    1: 4096,
    2: 1,
    3: UNLIMITED,
    4: DEFAULT_WINDOW,
    5: 16384,
    6: UNLIMITED,
    8: 0,
    9: UNLIMITED,
}
"""Settings before either side has said anything."""


class Core(ABC):
    """The state of one end of a connection; ``Inbound`` and ``HyperCodec`` make a codec of it."""

    def __init__(self, role: Role, options: Options) -> None:
        self._server = role is Role.SERVER
        self._options = options
        self._h2 = h2 = H2Connection(
            H2Configuration(
                client_side=not self._server,
                header_encoding=None,
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        first = options.settings(role)
        # h2 would count the streams against its setting before the peer has seen it: they are counted here.
        h2.local_settings = Settings(
            client=not self._server,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: UNLIMITED,
                SettingCodes.INITIAL_WINDOW_SIZE: first[Setting.INITIAL_WINDOW_SIZE],
            },
        )
        h2.decoder = self._decoder = JudgedDecoder(self._judge, options.max_header_list_size)
        self._decoder.max_allowed_table_size = max(options.hpack_table_size, self._decoder.header_table_size)
        h2.encoder = BoundedEncoder(options.hpack_table_size)
        h2.initiate_connection()
        h2.clear_outbound_data_buffer()
        self._local = dict(_DEFAULTS)
        self._remote = {**_DEFAULTS, Setting.MAX_CONCURRENT_STREAMS: _INITIAL_MAX_CONCURRENT_STREAMS}
        self._unacknowledged_settings: deque[dict[int, int]] = deque((first,))

        self._events: list[Event] = []
        self._streams: dict[int, Stream] = {}
        self._sending: dict[int, Stream] = {}
        """Streams with a body, or its end, to send."""
        self._queued_body_size = 0
        self._inbound_streams = 0
        self._outbound_streams = 0
        self._last_inbound = 0
        self._last_processed = 0
        self._next_stream_id = 1 if not self._server else 2
        self._window = Window(DEFAULT_WINDOW)
        self._unacknowledged: dict[int, int] = {}
        self._tasks: deque[Callable[[], None]] = deque()
        """What is to be sent, in order, before requests and bodies."""
        self._pings: list[bytes] = []
        self._goaways: deque[Callable[[], None]] = deque()
        """Those of the tasks that send GOAWAY, as long as they wait."""
        self._last_goaway: tuple[int, int, bytes] | None = None
        """Last stream, code and debug data of the GOAWAY that ends the connection, until it is sent."""

        self._goaway_sent = self._goaway_received = self._final_goaway_sent = False
        self._peer_last_stream = self._own_last_stream = MAX_STREAM_ID
        self._closing = self._terminating = self._closed = self._failed = False
        self._close_code = 0
        self._close_debug = b""

    def events(self) -> list[Event]:
        result = self._events
        self._events = []
        return result

    @abstractmethod
    def _judge(self, headers: Headers) -> bool:
        """Called by the decoder with a whole header list: whether it is an informational response, to h2."""

    def _apply_local_settings(self, settings: dict[int, int]) -> None:
        grown = settings.get(Setting.INITIAL_WINDOW_SIZE, 0) - self._local[Setting.INITIAL_WINDOW_SIZE]
        if Setting.INITIAL_WINDOW_SIZE in settings:
            for stream in self._streams.values():
                stream.window.size += grown
        for identifier, value in settings.items():
            if identifier in self._local:
                self._local[identifier] = value

    def _refuse(self, stream: Stream, code: int) -> None:
        if stream.refused:
            return
        stream.refused = True
        self._tasks.append(partial(self._send_reset, stream.stream_id, code))

    def _close_if_done(self, stream: Stream) -> None:
        if stream.remote_closed and stream.local_closed:
            self._close_stream(stream, ErrorCode.NO_ERROR)

    def _close_stream(self, stream: Stream, code: int, error: Exception | None = None) -> None:
        if self._streams.pop(stream.stream_id, None) is None:
            return
        self._queued_body_size -= stream.queued
        self._sending.pop(stream.stream_id, None)
        if not stream.own:
            self._inbound_streams -= 1
        elif stream.request is None:
            self._outbound_streams -= 1
        self._events.append(events.StreamClosed(stream.stream_id, code, error))

    def _close_streams_above(self, last: int, *, own: bool) -> None:
        """Those that a GOAWAY says were not taken, so that they may be tried again."""
        for stream in list(self._streams.values()):
            if stream.own is own and stream.stream_id > last and stream.request is None:
                self._close_stream(stream, ErrorCode.REFUSED_STREAM)

    def _end(self, code: int) -> None:
        """The peer broke the protocol: GOAWAY, then nothing."""
        if self._last_goaway is None:
            self._last_goaway = (self._last_processed, code, b"")
            self._closing = True
            # As nghttp2: of what waits only GOAWAY is still sent.
            self._tasks, tasks = self._goaways, self._tasks
            tasks.clear()
            self._pings.clear()

    def _fail(self) -> None:
        """Dead, without a word, as ngh2 after a fatal error."""
        self._failed = self._closed = True
        self._streams.clear()
        self._sending.clear()
        self._tasks.clear()
        self._queued_body_size = 0

    def _update_terminal_state(self) -> None:
        if self._closing and not self._closed:
            self._write(self._h2.data_to_send())
        if self._closing and not self._closed and not self.want_read and not self.want_write:
            self._closed = self._terminating = True
            self._streams.clear()
            self._sending.clear()
            self._queued_body_size = 0
            self._events.append(events.ConnectionClosed(self._close_code, self._close_debug))

    @property
    def want_read(self) -> bool:
        if self._final_goaway_sent:
            return False
        return bool(self._inbound_streams or self._outbound_streams) or not (
            self._goaway_sent or self._goaway_received
        )

    @property
    @abstractmethod
    def want_write(self) -> bool: ...

    @abstractmethod
    def _write(self, output: bytes) -> None:
        """Let ``output`` be the next to be sent."""

    @abstractmethod
    def _write_reset(self, stream_id: int, code: int) -> None: ...

    @abstractmethod
    def _send_window_update(self, increment: int, stream_id: int) -> None: ...

    @abstractmethod
    def _send_reset(self, stream_id: int, code: int) -> None:
        """Reset a stream that may be gone, and close it."""

    def _require_active(self) -> None:
        if self._failed:
            raise ConnectionStateError("Connection is no longer usable")
        if self._terminating:
            raise ConnectionStateError("Connection is terminating")

    def _is_idle(self, stream_id: int) -> bool:
        if stream_id % 2 == self._server:
            return stream_id > self._last_inbound
        return stream_id >= self._next_stream_id

    def _give_back(self, stream: Stream | None, amount: int) -> None:
        """Received bytes were used: open the connection's window, and the stream's if more is to come."""
        if not amount:
            return
        increment = self._window.release(amount)
        if increment:
            self._tasks.append(partial(self._send_window_update, increment, 0))
        if stream is not None and not stream.remote_closed and not stream.refused:
            increment = stream.window.release(amount)
            if increment:
                self._tasks.append(partial(self._send_window_update, increment, stream.stream_id))

    def _drop_reset(self) -> None:
        """h2 answers late frames of a stream that is gone with RST_STREAM each: that is no use to anyone."""
        output = self._h2.data_to_send()
        if len(output) >= 13 and output[-10] == _RST_STREAM:
            output = output[:-13]
        self._write(output)
