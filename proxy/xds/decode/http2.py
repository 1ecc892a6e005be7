"""``Http2ProtocolOptions``, downstream and upstream. Ranges are those of the proto's own rules."""

from __future__ import annotations

from typing import Any

from proxy.model.http2 import (
    HTTP2_DEFAULTS,
    MAX_STREAMS,
    MAX_WINDOW,
    MIN_WINDOW,
    Http2Keepalive,
    Http2Options,
)
from proxy.xds.decode.fields import check, duration, forbid, known, wrapped

_OPTIONS = known(
    "hpack_table_size",
    "max_concurrent_streams",
    "initial_stream_window_size",
    "initial_connection_window_size",
    "allow_connect",
    "max_outbound_frames",
    "max_outbound_control_frames",
    "max_consecutive_inbound_frames_with_empty_payload",
    "max_inbound_priority_frames_per_stream",
    "max_inbound_window_update_frames_per_data_frame_sent",
    "stream_error_on_invalid_http_messaging",
    "override_stream_error_on_invalid_http_message",
    "connection_keepalive",
    without_effect={
        "max_metadata_size": "allow_metadata is refused, so that there is no METADATA",
        "use_oghttp2_codec": "chooses between the two codecs of Envoy",
    },
)
_KEEPALIVE = known("interval", "timeout", "interval_jitter", "connection_idle_interval")
_PERCENT = known("value")

_ANY_COUNT = 2**32 - 1
_SHORTEST = 0.001


def http2_options(message: Any, path: str, stream_error: bool | None = None) -> Http2Options:
    """``Http2ProtocolOptions``; ``stream_error``: what the connection manager says of invalid messages, if it does."""
    check(message, path, _OPTIONS)
    if stream_error is None:
        stream_error = message.stream_error_on_invalid_http_messaging
    options = Http2Options(
        hpack_table_size=_count(message, path, "hpack_table_size", 0),
        max_concurrent_streams=_count(message, path, "max_concurrent_streams", 1, MAX_STREAMS),
        initial_stream_window_size=_count(
            message, path, "initial_stream_window_size", MIN_WINDOW, MAX_WINDOW
        ),
        initial_connection_window_size=_count(
            message, path, "initial_connection_window_size", MIN_WINDOW, MAX_WINDOW
        ),
        allow_connect=message.allow_connect,
        max_outbound_frames=_count(message, path, "max_outbound_frames", 1),
        max_outbound_control_frames=_count(message, path, "max_outbound_control_frames", 1),
        max_consecutive_inbound_frames_with_empty_payload=_count(
            message, path, "max_consecutive_inbound_frames_with_empty_payload", 0
        ),
        max_inbound_priority_frames_per_stream=_count(
            message, path, "max_inbound_priority_frames_per_stream", 0
        ),
        max_inbound_window_update_frames_per_data_frame_sent=_count(
            message, path, "max_inbound_window_update_frames_per_data_frame_sent", 1
        ),
        stream_error_on_invalid_http_message=wrapped(
            message, "override_stream_error_on_invalid_http_message", stream_error
        ),
        connection_keepalive=_keepalive(message.connection_keepalive, f"{path}.connection_keepalive")
        if message.HasField("connection_keepalive")
        else None,
    )
    return HTTP2_DEFAULTS if options == HTTP2_DEFAULTS else options


def _count(message: Any, path: str, name: str, least: int, most: int = _ANY_COUNT) -> int:
    value: int = wrapped(message, name, getattr(HTTP2_DEFAULTS, name))
    above = f"at least {least}" if most == _ANY_COUNT else f"from {least} to {most}"
    forbid(not least <= value <= most, f"{path}.{name}", f"{value} is not {above}")
    return value


def _keepalive(message: Any, path: str) -> Http2Keepalive:
    check(message, path, _KEEPALIVE)
    forbid(not message.HasField("timeout"), f"{path}.timeout", "is required")
    for name in ("interval", "timeout", "connection_idle_interval"):
        seconds = duration(message, path, name, None)
        forbid(seconds is not None and seconds < _SHORTEST, f"{path}.{name}", "must be at least 1 ms")
    jitter = 15.0
    if message.HasField("interval_jitter"):
        check(message.interval_jitter, f"{path}.interval_jitter", _PERCENT)
        jitter = message.interval_jitter.value
        forbid(not 0 <= jitter <= 100, f"{path}.interval_jitter.value", f"{jitter:g} is not from 0 to 100")
    return Http2Keepalive(
        timeout=duration(message, path, "timeout", 0.0),
        interval=duration(message, path, "interval", 0.0),
        interval_jitter=jitter,
        connection_idle_interval=duration(message, path, "connection_idle_interval", 0.0),
    )
