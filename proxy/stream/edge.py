"""What the proxy does to heads on their way through: made once for each HTTP connection manager, used per request.

Fields are cut out of the received block and ready lines appended (``proxy.http1.splice``). It decides nothing about
routes; it is the only place that knows which fields the proxy owns.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from proxy.http1.fields import (
    CHUNKED,
    HAS_DATE,
    HAS_EXPECT,
    HAS_FRAMING,
    HAS_HOP_BY_HOP,
    HAS_HOST,
    HAS_LENGTH,
    HAS_REQUEST_ID,
    HAS_SERVER,
    HAS_SERVICE_TIME,
    HAS_TE,
    NOMINATED,
)
from proxy.http1.head import Head, scan_response
from proxy.http1.splice import nominated, strip_for
from proxy.http2.head import Field, lines, request_fields, response_fields
from proxy.model.reply import Reply
from proxy.route.edits import HeaderEdits
from proxy.runtime.runtime import HttpRuntime
from proxy.stream.arrival import Arrive, compile_arrival
from proxy.stream.grpc_reply import end_head
from proxy.stream.local_reply import phrase

if TYPE_CHECKING:
    from proxy.stream.state import ExchangeState

_CLOSE: Final = b"connection: close\r\n"
_BARE_STATUS_LINE: Final = len(b"HTTP/1.1 200\r\n")
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"
_PLAIN_TE: Final = (b"trailers", b"")
_FRAMED: Final = HAS_LENGTH | HAS_FRAMING
_BODILESS: Final = frozenset((b"GET", b"HEAD", b"DELETE", b"TRACE", b"CONNECT"))
_ORIGINAL_HOST: Final = frozenset((b"x-envoy-original-host",))
_FORWARDED_HOST: Final = frozenset((b"x-forwarded-host",))
_SERVER_FIELD: Final = strip_for(frozenset((b"server",)))
_NO_BODY: Final = frozenset((204, 304))
_NONE: Final[frozenset[bytes]] = frozenset()

# An upgrade's own two fields must pass; they are put back as ready lines.
_UPGRADE: Final = b"connection: upgrade\r\nupgrade: %b\r\n"


Outgoing = tuple[bytes | None, bytes | None, int, bytes, frozenset[bytes]]
"""Of a request: its target and its authority (``None``: as received), and what ``Head.emit`` takes: fields to leave out
(bits), lines to add, fields to leave out (names)."""
Returning = tuple[int, bytes, frozenset[bytes]]
"""The same of a response."""


class HttpEdge:
    """The header rules of one ``HttpRuntime``. ``arrive`` is for a request's head, before it is routed."""

    __slots__ = (
        "_always_id",
        "_envoy_headers",
        "_overwrite_server",
        "_server",
        "_strip_response",
        "_timeouts",
        "_via",
        "arrive",
    )

    def __init__(self, http: HttpRuntime) -> None:
        config = http.config
        self.arrive: Arrive = compile_arrival(http)
        self._always_id = config.always_set_request_id_in_response
        self._envoy_headers = not config.suppress_envoy_headers
        response = HAS_HOP_BY_HOP | HAS_SERVICE_TIME
        self._overwrite_server = config.server_header_transformation == "OVERWRITE"
        if self._overwrite_server:
            response |= HAS_SERVER
        self._strip_response = response
        self._server = b"" if config.server_header_transformation == "PASS_THROUGH" else http.server_header
        self._via = http.via_header
        self._timeouts: dict[float, bytes] = {}

    def outgoing(self, exchange: ExchangeState) -> Outgoing:
        """What becomes of a request's head on its way to the upstream, whatever the upstream speaks."""
        head = exchange.head
        present = head.present
        strip = exchange.strip
        extra = exchange.extra
        if present & HAS_EXPECT and exchange.continued:
            strip |= HAS_EXPECT
        if present & HAS_TE:
            te = (head.get(b"te") or b"").lower()
            if te not in _PLAIN_TE:
                strip |= HAS_TE
                if b"trailers" in [coding.strip() for coding in te.split(b",")]:
                    extra += b"te: trailers\r\n"
        route = exchange.route
        assert route is not None
        if self._envoy_headers:
            timeout = route.timeout
            if route.retry is not None and route.retry.per_try_timeout:
                timeout = min(timeout or inf, route.retry.per_try_timeout)
            if timeout:
                line = self._timeouts.get(timeout)
                if line is None:
                    if len(self._timeouts) > 1000:
                        self._timeouts.clear()
                    line = b"x-envoy-expected-rq-timeout-ms: %d\r\n" % int(timeout * 1000)
                    self._timeouts[timeout] = line
                extra += line
        host = route.host_rewrite
        also = exchange.also
        if host is not None:
            if self._envoy_headers:
                extra += b"x-envoy-original-host: " + (head.host or b"") + b"\r\n"
                also |= _ORIGINAL_HOST
            if route.append_x_forwarded_host:
                before = head.get(b"x-forwarded-host")
                also |= _FORWARDED_HOST
                value = head.host or b""
                if before:
                    value = before + b"," + value
                extra += b"x-forwarded-host: " + value + b"\r\n"
        elif exchange.host_changed:
            host = head.host
        if head.flags & NOMINATED:
            also |= nominated(head)
        target = exchange.target
        assert target is not None
        edits = target.request_edits
        if edits is not None:
            also, extra = _edited(edits, head, exchange, also, extra)
        rewrite = route.rewrite_target
        wanted = head.target if exchange.target_changed else None
        if rewrite is not None:
            wanted = rewrite(head.target)
            if self._envoy_headers and wanted != head.target:
                extra += b"x-envoy-original-path: " + head.target + b"\r\n"
        return wanted, host, strip, extra, also

    def request_block(self, exchange: ExchangeState, out: Outgoing, more: bytes) -> bytes:
        """The head to send to an upstream of HTTP/1.1, its empty line included. ``more``: further ready lines."""
        wanted, host, strip, extra, also = out
        head = exchange.head
        if more:
            extra += more
        if host is not None:
            strip |= HAS_HOST
            extra += b"host: " + host + b"\r\n"
        if exchange.upgrade and not exchange.connect:
            extra += _UPGRADE % (head.get(b"upgrade") or b"")
        if exchange.unframed and head.length < 0 and not exchange.upgrade:
            extra += b"transfer-encoding: chunked\r\n"
        elif not head.present & _FRAMED and head.method not in _BODILESS:
            # RFC 9110 section 8.6: so that nobody behind us waits for a body.
            extra += b"content-length: 0\r\n"
        if wanted is not None or not head.minor:
            return head.emit(b"%b %b HTTP/1.1\r\n" % (head.method, wanted or head.target), strip, extra, also)
        return head.emit(None, strip, extra, also)

    def request_fields(self, exchange: ExchangeState, out: Outgoing, more: bytes) -> list[Field]:
        """The head to send to an upstream of HTTP/2."""
        wanted, host, strip, extra, also = out
        head = exchange.head
        return request_fields(
            head,
            scheme=exchange.down.added[b"x-forwarded-proto"],
            target=wanted or head.target,
            authority=host or head.host or b"",
            strip=strip,
            extra=extra + more if more else extra,
            also=also,
            protocol=head.get(b"upgrade") if exchange.upgrade and not exchange.connect else None,
        )

    def _tells_id(self, exchange: ExchangeState) -> bool:
        """Whether the client is told its request's ID."""
        return bool(exchange.request_id) and (
            self._always_id or exchange.head.get(b"x-envoy-force-trace") is not None
        )

    def returning(self, exchange: ExchangeState, head: Head, now: float) -> Returning:
        """What becomes of a response's head on its way to the client. ``now`` is monotonic time."""
        present = head.present
        if self._envoy_headers and exchange.request_done and not exchange.upgrade:
            extra = b"x-envoy-upstream-service-time: %d\r\n" % ((now - exchange.first_upstream_tx) * 1000)
        else:
            extra = b""
        if self._overwrite_server or not present & HAS_SERVER:
            extra += self._server
        if not present & HAS_DATE:
            extra += exchange.down.state.date
        if (
            (self._always_id or exchange.internal)
            and not present & HAS_REQUEST_ID
            and self._tells_id(exchange)
        ):
            extra += b"x-request-id: " + exchange.request_id + b"\r\n"
        if self._via:
            extra += self._via
        also = nominated(head) if head.flags & NOMINATED else _NONE
        target = exchange.target
        if target is not None and target.response_edits is not None:
            also, extra = _edited(target.response_edits, head, exchange, also, extra)
        return self._strip_response, extra, also

    def response_block(
        self, exchange: ExchangeState, head: Head, now: float, *, keep: bool, rechunk: bool, length: int
    ) -> bytes:
        """The head to send to a client of HTTP/1.1. ``rechunk``: the body gets chunked framing; ``length``: what is
        known of its size, if it has no framing yet."""
        strip, extra, also = self.returning(exchange, head, now)
        if exchange.tunnel:
            if head.status == 101:
                extra += _UPGRADE % (head.get(b"upgrade") or exchange.head.get(b"upgrade") or b"")
            # RFC 9110 section 9.3.6: there is no framing in a tunnel.
            return head.emit(None, strip | HAS_FRAMING | HAS_LENGTH, extra, also)
        if rechunk:
            extra += b"transfer-encoding: chunked\r\n"
        elif head.flags & CHUNKED:
            if exchange.dechunk:
                strip |= HAS_FRAMING
        elif head.length < length and not exchange.is_head and head.status not in _NO_BODY:
            extra += b"content-length: %d\r\n" % length
        if not keep:
            extra += _CLOSE
        elif not exchange.head.minor:
            extra += _KEEP_ALIVE
        if head.status == 204 or head.status == 304:
            # RFC 9112 section 6.1 and RFC 9110 section 8.6: they have no body, and say nothing of one.
            strip |= HAS_FRAMING | HAS_LENGTH if head.status == 204 else HAS_FRAMING
        if exchange.dechunk or not head.minor or head.fields_at == _BARE_STATUS_LINE:
            # RFC 9112 section 4: there is a blank after the status even if no phrase follows.
            version = b"HTTP/1.0 " if exchange.dechunk else b"HTTP/1.1 "
            if head.fields_at:
                first = version + head.raw[9 : head.fields_at - 2].ljust(4) + b"\r\n"
            else:
                first = b"%b%d %b\r\n" % (version, head.status, phrase(head.status))
        else:
            first = None
        return head.emit(first, strip, extra, also)

    def response_fields(self, exchange: ExchangeState, head: Head, now: float) -> list[Field]:
        """The head to send to a client of HTTP/2."""
        strip, extra, also = self.returning(exchange, head, now)
        status = head.status
        if exchange.tunnel:
            # As in Envoy: extended CONNECT (RFC 8441) is answered with 200.
            return response_fields(
                head,
                200 if status == 101 else status,
                strip=strip | HAS_LENGTH | HAS_FRAMING,
                extra=extra,
                also=also,
            )
        if status == 204:
            strip |= HAS_LENGTH
        return response_fields(head, status, strip=strip, extra=extra, also=also)

    def local_fields(
        self, exchange: ExchangeState, reply: Reply, edits: tuple[HeaderEdits | None, ...]
    ) -> list[Field]:
        """The head of a response of HTTP/2 made here."""
        _, _, block = self.reply_block(exchange, reply, *edits).partition(b"\r\n")
        if not reply.body:
            # As in Envoy: the end of the stream says it.
            block = block.replace(b"content-length: 0\r\n", b"", 1)
        return [(b":status", b"%d" % reply.status), *lines(block)]

    def local_reply(
        self, exchange: ExchangeState, reply: Reply, *edits: HeaderEdits | None, keep: bool
    ) -> bytes:
        """A whole response of HTTP/1.1 made here, its body included (unless the request is HEAD). ``edits`` apply in
        order."""
        version = b"HTTP/1.0" if exchange.dechunk and reply.status != 426 else b"HTTP/1.1"
        block = self.reply_block(exchange, reply, *edits, version=version)
        if reply.grpc_message is not None:
            block += b"content-length: 0\r\n"
        if not keep:
            block += _CLOSE
        elif exchange.dechunk:
            block += _KEEP_ALIVE
        return block + (b"\r\n" if exchange.is_head else b"\r\n" + reply.body)

    def reply_block(
        self, exchange: ExchangeState, reply: Reply, *edits: HeaderEdits | None, version: bytes = b"HTTP/1.1"
    ) -> bytes:
        """The head of a response made here, without its empty line."""
        body = reply.body
        status = reply.status
        head = b"%b %d %b\r\n%b" % (version, status, phrase(status), reply.headers)
        if status != 204 and status != 304 and reply.grpc_message is None:
            head += b"content-length: %d\r\n" % len(body)
        if body and b"content-type:" not in reply.headers.lower():
            head += b"content-type: text/plain\r\n"
        extra = exchange.down.state.date + self._server
        if (self._always_id or exchange.internal) and self._tells_id(exchange):
            extra += b"x-request-id: " + exchange.request_id + b"\r\n"
        for edit in edits:
            if edit is None:
                continue
            strip, more = edit.strip, edit.extra
            if edit.render is not None:
                made = scan_response(head + b"\r\n")
                assert made is not None
                strip, more = edit.render(made, exchange)
            if strip:
                head = strip_for(strip).cut(head)
            head += more
            if self._overwrite_server:
                head = _SERVER_FIELD.cut(head)
        if reply.grpc_message is not None:
            head = end_head(head, reply)
            # For the log, which looks for the status there.
            exchange.response = scan_response(head + extra + b"\r\n")
        return head + extra


def _edited(
    edits: HeaderEdits, head: Head, exchange: ExchangeState, also: frozenset[bytes], extra: bytes
) -> tuple[frozenset[bytes], bytes]:
    """The fields to leave out and the lines to add, after a route's edits."""
    strip, more = (edits.strip, edits.extra) if edits.render is None else edits.render(head, exchange)
    if strip:
        also |= strip
        extra = strip_for(strip).cut(b"\r\n" + extra)[2:]
    return also, extra + more
