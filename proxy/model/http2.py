"""Temporary: see branch h2config."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Http2Options:
    hpack_table_size: int = 4096
    max_concurrent_streams: int = 1024
    initial_stream_window_size: int = 16 << 20
    initial_connection_window_size: int = 24 << 20
    allow_connect: bool = True
    stream_error_on_invalid_http_message: bool = False
    keepalive_interval: float = 0.0
    keepalive_timeout: float = 0.0
