"""What an exchange is to its client's connection, and the connection to the exchange. A protocol only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy.http1.head import Head
from proxy.model.connection import ConnectionInfo
from proxy.model.reply import Reply
from proxy.route.edits import HeaderEdits
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool
from proxy.upstream.stream import Fields

if TYPE_CHECKING:
    from proxy.stream.edge import HttpEdge
    from proxy.stream.exchange import HttpExchange


class ClientStream(Protocol):
    """Where a request came from and its response goes to.

    ``http2``: heads are fields and bodies have no framing of their own. ``keep``: whether an HTTP/1.1 connection
    outlives the exchange. ``write_paused``: the client does not read. ``added`` and ``proto_line``: fields that every
    request of the connection gets that has none of them.
    """

    state: LoopState
    pool: Pool
    connection: ConnectionInfo
    edge: HttpEdge
    added: dict[bytes, bytes]
    proto_line: bytes
    keep: bool

    @property
    def http2(self) -> bool: ...
    @property
    def write_paused(self) -> bool: ...

    def client_certificate_line(self, received: bytes | None, /) -> bytes:
        """The ``x-forwarded-client-cert`` line for the upstream, "" = none."""

    def send_continue(self) -> None:
        """Say 100 (Continue)."""

    def send_informational(self, head: Head, /) -> None:
        """Pass a 1xx on."""

    def send_response(
        self, exchange: HttpExchange, head: Head, body: bytes, done: bool, now: float, /
    ) -> None:
        """Send the head of the upstream's response, and what came with it of the body. ``now`` is monotonic time."""

    def send_body(self, data: bytes, done: bool, /) -> None:
        """Send more of the response; ``done``: this is its end."""

    def send_trailers(self, fields: Fields, /) -> None:
        """End the response with trailers."""

    def send_reply(
        self, exchange: HttpExchange, reply: Reply, edits: tuple[HeaderEdits | None, ...], /
    ) -> None:
        """Send a whole response made here."""

    def hold_for_upstream(self) -> None:
        """Read no more of the request for now."""

    def release_for_upstream(self) -> None: ...

    def start_tunnel(self) -> None:
        """From now on bytes are passed on as they come."""

    def drain(self) -> None:
        """Take no request after this one."""

    def cut_off(self) -> None:
        """End now, in the middle of the response."""

    def exchange_done(self, exchange: HttpExchange, /) -> None:
        """The exchange is over and its response (if any) written."""
