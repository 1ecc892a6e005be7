"""Options of one side's HTTP/2 (``config.core.v3.Http2ProtocolOptions``), with the defaults of Envoy 1.40.

It holds no state of a connection and knows no codec.
"""

from __future__ import annotations

from proxy.model.frozen import dataclass

MIN_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
MAX_STREAMS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Http2Keepalive:
    """``KeepaliveSettings``. Seconds; ``interval_jitter`` is the percentage of ``interval`` that is added at random.

    ``interval`` 0: no PING by the clock; ``connection_idle_interval`` 0: none before a stream after a pause.
    """

    timeout: float
    interval: float = 0.0
    interval_jitter: float = 15.0
    connection_idle_interval: float = 0.0


@dataclass(frozen=True, slots=True)
class Http2Options:
    """``Http2ProtocolOptions``: what is told to the peer, and what of the peer is too much.

    ``max_concurrent_streams`` is what the peer may open; upstream it is also what is opened here at most on one
    connection. A window is what the peer may send before it is told to go on.
    ``max_inbound_priority_frames_per_stream`` times (1 + streams) PRIORITY frames are a flood, so are more than
    5 + 2 * (streams + ``max_inbound_window_update_frames_per_data_frame_sent`` * DATA frames sent) WINDOW_UPDATEs.
    ``stream_error_on_invalid_http_message``: an invalid message ends its stream, not the connection.
    A client may reset ``stream_reset_burst`` streams at once, and ``stream_reset_rate`` more each second (the schema
    that is read has no fields for these two yet).
    """

    hpack_table_size: int = 4096
    max_concurrent_streams: int = 1024
    initial_stream_window_size: int = 16 * 1024 * 1024
    initial_connection_window_size: int = 24 * 1024 * 1024
    allow_connect: bool = False
    max_outbound_frames: int = 10_000
    max_outbound_control_frames: int = 1000
    max_consecutive_inbound_frames_with_empty_payload: int = 1
    max_inbound_priority_frames_per_stream: int = 100
    max_inbound_window_update_frames_per_data_frame_sent: int = 10
    stream_error_on_invalid_http_message: bool = False
    connection_keepalive: Http2Keepalive | None = None
    stream_reset_burst: int = 1000
    stream_reset_rate: int = 33


HTTP2_DEFAULTS = Http2Options()
"""One object for all who set nothing: a mesh has many clusters."""


@dataclass(frozen=True, slots=True)
class PrematureResets:
    """The runtime keys ``overload.premature_reset_*``: when a client is taken for one that only opens and resets.

    A reset is premature if no answer had begun and the stream had lasted no more than ``min_stream_lifetime`` whole
    seconds.
    """

    total_stream_count: int = 500
    min_stream_lifetime: int = 1

    def is_premature(self, lifetime: float) -> bool:
        """Whether a reset after ``lifetime`` seconds without an answer is."""
        return int(lifetime) <= self.min_stream_lifetime

    def too_many(self, closed: int, premature: int) -> bool:
        """Whether a connection is to be closed of whose streams ``closed`` are over, ``premature`` of them so.

        Half of them are too many; before ``total_stream_count`` it is only when the half of that is reached.
        """
        return closed > 0 and premature * 2 >= max(closed, self.total_stream_count)


PREMATURE_RESETS = PrematureResets()
