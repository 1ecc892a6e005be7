"""The HTTP/2 codec: the contract that a connection is written against, and the choice of the engine that keeps it.

``Codec`` is the part of ``ngh2.Connection`` that the proxy needs, by the same names: with the ``ngh2`` engine (the
default where it is installed) the connection object itself is the codec, and nothing wraps it. The ``h2`` engine
(``proxy.http2.hyper``) keeps the same contract in Python. ``TULLE_HTTP2=ngh2`` or ``h2`` chooses; an engine that was
asked for and cannot be imported is an error.

How a connection uses a codec:

- ``receive_data(bytes)``, then ``events()``; ``data_to_send()``, then ``events()`` again, because sending closes
  streams and ends the connection. It dispatches by ``table[type(event)]``; ``dispatch_table`` makes the table.
- When ``receive_data`` raises a ``CodecError`` the connection is dead: nothing can be sent any more, not even GOAWAY;
  ``events()`` still gives what came before. Most breaches do not raise: the codec queues GOAWAY, and
  ``ConnectionClosed`` comes with the ``data_to_send`` that sends it.
- Flow control is the connection's: each byte of ``DataReceived`` is given back by ``acknowledge_received_data``. A
  window is opened again when half of it has been given back. Padding, and data of streams that are gone, are given
  back by the codec.
- Nothing says when a queue has drained: look at ``queued_body_size`` after each ``data_to_send``.
- ``StreamReset`` is the peer's RST_STREAM and is followed by ``StreamClosed``, unless the stream was over already. A
  ``StreamClosed`` with another code than NO_ERROR that neither followed a ``StreamReset`` nor our own ``reset_stream``
  is the codec's refusal of what the peer sent, or REFUSED_STREAM by GOAWAY. ``malformed`` tells a malformed message
  (RFC 9113 section 8.1.1) among those. Over a malformed head or trailers Envoy ends the connection, without GOAWAY,
  unless ``override_stream_error_on_invalid_http_message``; a body that is not as long as content-length says costs
  only the stream. No ``RequestReceived`` comes for a malformed head, and the ``StreamClosed`` comes with the
  ``data_to_send`` that sends the reset; so a connection must not itself reset streams that it forgets at once with
  PROTOCOL_ERROR. For a stream whose head was seen, bad trailers and a bad length look alike.
- A request or response above ``Options.max_header_list_size`` ends the connection without a word; what is above Envoy's
  limits for one message but below that is the connection's to answer (Envoy resets the stream with INTERNAL_ERROR).
- PRIORITY and CONTINUATION frames give no event; ``proxy.http2.frames`` counts them before the codec sees them. It
  alone judges floods: the engines' own limits on rates are out of the way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from proxy.http2 import events as own_events
from proxy.http2.errors import CodecError, ConnectionProtocolError, DenialOfServiceError
from proxy.http2.events import Event, Header
from proxy.http2.options import DEFAULT_WINDOW, ErrorCode, Options, Role, Setting

try:
    import ngh2
except ImportError:
    ngh2 = None  # type: ignore[assignment]

_EVENTS: Final = (
    "RequestReceived", "ResponseReceived", "InformationalResponseReceived", "TrailersReceived", "DataReceived",
    "StreamReset", "StreamClosed", "SettingsReceived", "SettingsAcknowledged", "PingReceived", "PingAcknowledged",
    "WindowUpdated", "GoAwayReceived", "ConnectionClosed",
)  # fmt: skip

_NO_LIMIT: Final = (1 << 64) - 1

Handler = TypeVar("Handler")


class Codec(Protocol):
    """One end of an HTTP/2 connection, without the bytes' transport and without a clock."""

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take what came. Raises ``CodecError`` when that is the connection's end."""

    def events(self) -> list[Any]:
        """What has happened since the last call, in order."""

    def data_to_send(self, amount: int | None = None) -> bytes:
        """What is to be written now. ``amount`` bounds it, at a price: leave it out."""

    def send_request(self, headers: Iterable[Header], *, end_stream: bool = False) -> int:
        """Open a stream; its identifier. Raises ``ConnectionClosingError`` unless ``can_send_request``. Above the
        peer's limit of streams it waits, queued."""

    def send_response(
        self, stream_id: int, headers: Iterable[Header], *, end_stream: bool = False
    ) -> None: ...

    def send_informational_response(self, stream_id: int, headers: Iterable[Header]) -> None: ...

    def send_data(
        self, stream_id: int, data: bytes | bytearray | memoryview, *, end_stream: bool = False
    ) -> None:
        """Queue a part of a body. Raises ``StreamProtocolError`` when the stream has no open body (any more)."""

    def send_trailers(self, stream_id: int, headers: Iterable[Header]) -> None:
        """Queue trailers after the body, and end the stream's outbound direction with them."""

    def reset_stream(self, stream_id: int, error_code: int = ErrorCode.CANCEL) -> None:
        """Queue RST_STREAM. Whatever waits to be sent for that stream is dropped, its response too: for a response
        and then RST_STREAM, call ``data_to_send`` between. For a stream that is gone nothing is sent. A request that
        waits is cancelled, but closed (and its body forgotten) only when its turn comes."""

    def ping(self, opaque_data: bytes = ...) -> None: ...

    def send_goaway(
        self, error_code: int = 0, *, last_stream_id: int | None = None, debug_data: bytes = b""
    ) -> None:
        """Queue GOAWAY. Streams that are open go on; when there are none, ``ConnectionClosed``."""

    def send_shutdown_notice(self) -> None:
        """Queue a server's first GOAWAY of a graceful shutdown (RFC 9113 section 6.8)."""

    def terminate_connection(self, error_code: int = 0, *, last_stream_id: int | None = None) -> None:
        """Queue a last GOAWAY; when ``data_to_send`` has given it, ``ConnectionClosed``."""

    def acknowledge_received_data(self, amount: int, stream_id: int) -> None:
        """Give back window: ``amount`` bytes of ``DataReceived`` were used, of a stream that may be gone."""

    def set_local_window_size(self, window_size: int, *, stream_id: int = 0) -> None:
        """Say how much the peer may send at a time, on a stream or (0) on the connection."""

    def update_settings(self, settings: Mapping[int, int]) -> None: ...

    def queued_body_size(self, stream_id: int | None = None) -> int:
        """Bytes of ``send_data`` not yet given by ``data_to_send``, of a stream or of all."""

    def stream_remote_window_size(self, stream_id: int) -> int: ...

    @property
    def remote_window_size(self) -> int: ...

    @property
    def can_send_request(self) -> bool:
        """False after the peer's GOAWAY, after ours, and when identifiers are used up."""

    @property
    def want_read(self) -> bool: ...

    @property
    def want_write(self) -> bool: ...

    @property
    def local_settings(self) -> dict[int, int]:
        """Those the peer has acknowledged."""

    @property
    def remote_settings(self) -> dict[int, int]: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """One implementation of ``Codec``."""

    name: str
    make: Callable[[Role, Options], Codec]
    """A codec that has its first SETTINGS (and a client its preface) ready to send."""
    events: Any
    """A namespace with the classes of its events."""
    never_indexed: Callable[[bytes, bytes], Header]
    """A field that no HPACK table may keep. Those that came so are given so, and may be passed on as they are."""

    def dispatch_table(self, handlers: Mapping[type[Event], Handler]) -> dict[type, Handler]:
        """``handlers``, by this module's event classes, as a table by the engine's. Events that nobody handles are
        refused: each of them must be there. An engine's further events (PUSH_PROMISE is refused, and extensions that
        were not asked for mean nothing) are not: take the table's ``get``."""
        missing = [name for name in _EVENTS if getattr(own_events, name) not in handlers]
        if missing:
            raise ValueError(f"no handler for {', '.join(missing)}")
        return {getattr(self.events, kind.__name__): handler for kind, handler in handlers.items()}


def _make_ngh2(role: Role, options: Options) -> Codec:
    settings = options.settings(role)
    connection = ngh2.Connection(
        ngh2.Role.CLIENT if role is Role.CLIENT else ngh2.Role.SERVER,
        ngh2.Configuration(
            auto_window_update=False,
            max_deflate_dynamic_table_size=options.hpack_table_size,
            # Responses are larger than ngh2's 64 KiB at Envoy's limits; ours were judged when they came in.
            max_send_header_block_length=0x2000000,
            # The inspector of frames and the connection's count of what waits for the socket judge floods.
            max_outbound_ack=0xFFFFFFFF,
            stream_reset_rate_limit=(_NO_LIMIT, _NO_LIMIT),
            glitch_rate_limit=(_NO_LIMIT, _NO_LIMIT),
            max_continuations=0xFFFFFFFF,
            max_inbound_header_list_size=options.max_header_list_size,
            max_inbound_header_count=options.max_header_count,
        ),
    )
    connection.initiate_connection(settings)
    if options.initial_connection_window_size > DEFAULT_WINDOW:
        connection.set_local_window_size(options.initial_connection_window_size)
    return connection


def _make_h2(role: Role, options: Options) -> Codec:
    from proxy.http2.hyper import HyperCodec

    return HyperCodec(role, options)


def _never_indexed_h2(name: bytes, value: bytes) -> Header:
    from hpack import NeverIndexedHeaderTuple

    return NeverIndexedHeaderTuple(name, value)


H2: Final = Engine("h2", _make_h2, own_events, _never_indexed_h2)
ENGINES: Final = (
    {"ngh2": Engine("ngh2", _make_ngh2, ngh2, ngh2.NeverIndexedHeader), "h2": H2}
    if ngh2 is not None
    else {"h2": H2}
)
"""The engines that are installed, by name."""


def _chosen(name: str | None) -> Engine:
    if not name:
        return next(iter(ENGINES.values()))
    engine = ENGINES.get(name)
    if engine is None:
        raise ImportError(f"TULLE_HTTP2={name}: there is {' and '.join(ENGINES)}")
    return engine


ENGINE: Final = _chosen(os.environ.get("TULLE_HTTP2"))
"""The engine in use."""

make: Final = ENGINE.make
never_indexed: Final = ENGINE.never_indexed
dispatch_table: Final = ENGINE.dispatch_table

if TYPE_CHECKING:
    from proxy.http2 import events
else:
    events = ENGINE.events


def malformed(event: own_events.StreamClosed) -> bool:
    """Whether a ``StreamClosed`` that followed neither ``StreamReset`` nor our ``reset_stream`` says that the codec
    refused a malformed message."""
    return event.error_code == ErrorCode.PROTOCOL_ERROR


__all__ = [
    "ENGINE",
    "ENGINES",
    "Codec",
    "CodecError",
    "ConnectionProtocolError",
    "DenialOfServiceError",
    "Engine",
    "ErrorCode",
    "Options",
    "Role",
    "Setting",
    "dispatch_table",
    "events",
    "make",
    "malformed",
    "never_indexed",
]
