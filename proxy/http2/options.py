"""What an engine is told when a connection begins. It judges nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

DEFAULT_WINDOW: Final = 65_535
"""RFC 9113 section 6.9.2: every window before either side has said otherwise."""
MAX_WINDOW: Final = (1 << 31) - 1
"""RFC 9113 section 6.9.1."""


class Role(Enum):
    """Which end of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


class ErrorCode:
    """RFC 9113 section 7. Plain integers, because the wire may carry any."""

    NO_ERROR: Final = 0x0
    PROTOCOL_ERROR: Final = 0x1
    INTERNAL_ERROR: Final = 0x2
    FLOW_CONTROL_ERROR: Final = 0x3
    SETTINGS_TIMEOUT: Final = 0x4
    STREAM_CLOSED: Final = 0x5
    FRAME_SIZE_ERROR: Final = 0x6
    REFUSED_STREAM: Final = 0x7
    CANCEL: Final = 0x8
    COMPRESSION_ERROR: Final = 0x9
    CONNECT_ERROR: Final = 0xA
    ENHANCE_YOUR_CALM: Final = 0xB
    INADEQUATE_SECURITY: Final = 0xC
    HTTP_1_1_REQUIRED: Final = 0xD


class Setting:
    """RFC 9113 section 6.5.2 and RFC 8441 section 3."""

    HEADER_TABLE_SIZE: Final = 0x1
    ENABLE_PUSH: Final = 0x2
    MAX_CONCURRENT_STREAMS: Final = 0x3
    INITIAL_WINDOW_SIZE: Final = 0x4
    MAX_FRAME_SIZE: Final = 0x5
    MAX_HEADER_LIST_SIZE: Final = 0x6
    ENABLE_CONNECT_PROTOCOL: Final = 0x8


@dataclass(frozen=True, slots=True)
class Options:
    """Envoy's ``Http2ProtocolOptions``, as far as an engine needs them, with Envoy's names and defaults."""

    max_concurrent_streams: int = 1024
    """Streams the peer may have open; from a client it means pushed ones, of which there are none."""
    initial_stream_window_size: int = 16 << 20
    initial_connection_window_size: int = 24 << 20
    hpack_table_size: int = 4096
    """Bytes of the dynamic tables, of the peer's encoder and at most of ours."""
    max_header_list_size: int = 256 * 1024
    """Bytes of one decoded header list (RFC 9113 section 6.5.2: 32 more for each field) above which the whole
    connection ends at once, without GOAWAY. What an exchange may have is less and judged by the connection."""
    max_header_count: int = 10_000
    """Fields of one header list above which the connection ends, in the same way."""
    allow_connect: bool = False
    """Whether a server offers extended CONNECT (RFC 8441)."""
    advertised_header_list_size: int | None = None
    """SETTINGS_MAX_HEADER_LIST_SIZE; Envoy sends none."""

    def settings(self, role: Role) -> dict[int, int]:
        """The first SETTINGS frame."""
        sent = {Setting.ENABLE_PUSH: 0} if role is Role.CLIENT else {}
        sent[Setting.HEADER_TABLE_SIZE] = self.hpack_table_size
        if role is Role.SERVER:
            sent[Setting.ENABLE_CONNECT_PROTOCOL] = int(self.allow_connect)
        sent[Setting.MAX_CONCURRENT_STREAMS] = self.max_concurrent_streams
        sent[Setting.INITIAL_WINDOW_SIZE] = self.initial_stream_window_size
        if self.advertised_header_list_size is not None:
            sent[Setting.MAX_HEADER_LIST_SIZE] = self.advertised_header_list_size
        return sent
