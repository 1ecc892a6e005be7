"""How much of what costs more to take than to send a peer may send, as Envoy has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_HEADER_BLOCK_SIZE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """Options of Envoy's ``Http2ProtocolOptions`` and of its runtime, with its names and defaults."""

    max_outbound_frames: int = 10_000
    max_outbound_control_frames: int = 1_000
    max_consecutive_inbound_frames_with_empty_payload: int = 1
    max_inbound_priority_frames_per_stream: int = 100
    max_inbound_window_update_frames_per_data_frame_sent: int = 10
    max_header_block_size: int = MAX_HEADER_BLOCK_SIZE
    """Bytes of one HEADERS frame and its CONTINUATION frames, before HPACK. Above ``max_request_headers_kb``
    Envoy resets the stream only, after it has decoded everything: this is where that ends, and
    ``Options.max_header_list_size`` is the same bound after HPACK."""
    premature_reset_total_stream_count: int = 500
    """``overload.premature_reset_total_stream_count``"""
    premature_reset_min_stream_lifetime_seconds: int = 1
    """``overload.premature_reset_min_stream_lifetime_seconds``"""
