"""What a codec saw, or finished sending: one class an event, named and shaped as ``ngh2``'s are.

The ``h2`` engine gives these; the ``ngh2`` engine gives its own of the same names and attributes. They carry what came
and hold no state. A connection never names them directly but takes them from ``proxy.http2.codec``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = tuple[Header, ...]


class Event:
    """Base of all events."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RequestReceived(Event):
    stream_id: int
    headers: Headers
    end_stream: bool


@dataclass(frozen=True, slots=True)
class ResponseReceived(Event):
    """A final response's head."""

    stream_id: int
    headers: Headers
    end_stream: bool


@dataclass(frozen=True, slots=True)
class InformationalResponseReceived(Event):
    stream_id: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class TrailersReceived(Event):
    """Trailers, which end the stream's inbound direction."""

    stream_id: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class DataReceived(Event):
    """One whole DATA frame without its padding; ``data`` may be empty."""

    stream_id: int
    data: bytes
    end_stream: bool


@dataclass(frozen=True, slots=True)
class StreamReset(Event):
    """The peer sent RST_STREAM. ``StreamClosed`` follows."""

    stream_id: int
    error_code: int


@dataclass(frozen=True, slots=True)
class StreamClosed(Event):
    """A stream is over and forgotten; ``local_error`` says why something queued for it could not be sent."""

    stream_id: int
    error_code: int
    local_error: Exception | None


@dataclass(frozen=True, slots=True)
class SettingsReceived(Event):
    settings: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class SettingsAcknowledged(Event):
    pass


@dataclass(frozen=True, slots=True)
class PingReceived(Event):
    """The codec answers it by itself."""

    opaque_data: bytes


@dataclass(frozen=True, slots=True)
class PingAcknowledged(Event):
    opaque_data: bytes


@dataclass(frozen=True, slots=True)
class WindowUpdated(Event):
    """Stream 0 is the connection."""

    stream_id: int
    increment: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived(Event):
    last_stream_id: int
    error_code: int
    debug_data: bytes


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """Nothing more will be read, and after the output of this turn nothing written."""

    error_code: int
    debug_data: bytes
