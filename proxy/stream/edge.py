"""What the proxy does to heads on their way through: made once for each HTTP connection manager, used per request.

Fields are cut out of the received block and ready lines appended (``proxy.http1.splice``). It decides nothing about
routes; it is the only place that knows which fields the proxy owns.
"""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, Final

from proxy.http1.head import CHUNKED, EXPECT, INTERNAL, NOMINATED, UPGRADE, Head
from proxy.http1.splice import HOP_BY_HOP, Strip, cut_internal, nominated, strip_for
from proxy.model.reply import Reply
from proxy.runtime.runtime import HttpRuntime
from proxy.stream.local_reply import phrase

if TYPE_CHECKING:
    from proxy.stream.exchange import HttpExchange

_XFCC: Final = b"x-forwarded-client-cert"
_XFF: Final = b"x-forwarded-for"
_XFP: Final = b"x-forwarded-proto"
_SCHEMES: Final = frozenset((b"http", b"https"))
_UNUSUAL: Final = INTERNAL | NOMINATED | EXPECT | UPGRADE
_CLOSE: Final = b"connection: close\r\n"
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"
_STRIP_HOST: Final = Strip((b"host",))
_STRIP_ID: Final = Strip((b"x-request-id",))
_STRIP_EXPECT: Final = Strip((b"expect",))
_STRIP_XFP: Final = Strip((_XFP,))
_STRIP_FRAMING: Final = Strip((b"transfer-encoding", b"trailer"))

# An upgrade's own two fields must pass; they are put back as ready lines.
_UPGRADE: Final = b"connection: upgrade\r\nupgrade: %b\r\n"


class HttpEdge:
    """The header rules of one ``HttpRuntime``."""

    __slots__ = (
        "_accept_xfp",
        "_always_id",
        "_append_xff",
        "_envoy_headers",
        "_generate_id",
        "_keep_id",
        "_overwrite_server",
        "_server",
        "_strip_request",
        "_strip_response",
        "_timeouts",
        "_via_request",
    )

    def __init__(self, http: HttpRuntime) -> None:
        config = http.config
        remote = config.use_remote_address
        request = HOP_BY_HOP | {_XFCC}
        if remote:
            request |= {_XFP}
            if not config.skip_xff_append:
                request |= {_XFF}
        self._strip_request = strip_for(frozenset(request))
        self._append_xff = remote and not config.skip_xff_append
        self._accept_xfp = not remote
        self._generate_id = config.generate_request_id
        self._keep_id = not remote or config.preserve_external_request_id
        self._always_id = config.always_set_request_id_in_response
        self._envoy_headers = not config.suppress_envoy_headers
        response = HOP_BY_HOP | {b"x-envoy-upstream-service-time"}
        self._overwrite_server = config.server_header_transformation == "OVERWRITE"
        if self._overwrite_server:
            response |= {b"server"}
        self._strip_response = strip_for(frozenset(response))
        self._server = b"" if config.server_header_transformation == "PASS_THROUGH" else http.server_header
        self._via_request = http.via_header
        self._timeouts: dict[float, bytes] = {}

    def request_id(self, head: Head) -> bytes:
        """The request's ID: the one that came, where that is trusted, else a new one (a random UUID, RFC 9562)."""
        received = head.names.get(b"x-request-id")
        if received is not None and self._keep_id:
            return received
        if not self._generate_id:
            return received or b""
        bits = getrandbits(122)
        return b"%08x-%04x-4%03x-%04x-%012x" % (
            bits >> 90,
            bits >> 74 & 0xFFFF,
            bits >> 62 & 0xFFF,
            bits >> 48 & 0x3FFF | 0x8000,
            bits & 0xFFFFFFFFFFFF,
        )

    def request_head(self, exchange: HttpExchange) -> bytes:
        """The head to send upstream, its empty line included."""
        head = exchange.head
        names = head.names
        down = exchange.down
        raw = self._strip_request(head)
        extra = b""
        request_id = exchange.request_id
        if request_id and names.get(b"x-request-id") is not request_id:
            if b"x-request-id" in names:
                raw = _STRIP_ID.cut(raw)
            extra = b"x-request-id: " + request_id + b"\r\n"
        received = names.get(_XFP) if self._accept_xfp else None
        if received is None:
            extra += down.proto_line
        elif received not in _SCHEMES:
            raw = _STRIP_XFP.cut(raw)
            extra += down.proto_line
        if self._append_xff:
            before = names.get(_XFF)
            address = down.connection.remote[0].encode()
            extra += (
                b"x-forwarded-for: " + (address if before is None else before + b", " + address) + b"\r\n"
            )
        certificate = down.client_certificate_line(names.get(_XFCC))
        if certificate:
            extra += certificate
        if head.flags & _UNUSUAL:
            raw, extra = self._unusual(exchange, raw, extra)
        if b"te" in names and names[b"te"].lower() != b"trailers":
            raw = strip_for(frozenset((b"te",))).cut(raw)
        if self._via_request:
            extra += self._via_request
        route = exchange.route
        assert route is not None
        if self._envoy_headers and route.timeout:
            line = self._timeouts.get(route.timeout)
            if line is None:
                if len(self._timeouts) > 1000:
                    self._timeouts.clear()
                line = b"x-envoy-expected-rq-timeout-ms: %d\r\n" % int(route.timeout * 1000)
                self._timeouts[route.timeout] = line
            extra += line
        host = route.host_rewrite
        if host is None and exchange.host_changed:
            host = names[b"host"]
        if host is not None:
            raw = _STRIP_HOST.cut(raw)
            extra += b"host: " + host + b"\r\n"
        target = exchange.target
        assert target is not None
        edits = target.request_edits
        if edits is not None:
            strip, more = (edits.strip, edits.extra) if edits.render is None else edits.render(head, exchange)
            if strip:
                raw = strip_for(strip).cut(raw)
                extra = strip_for(strip).cut(b"\r\n" + extra)[2:]
            extra += more
        rewrite = route.rewrite_target
        wanted = head.target
        if rewrite is not None:
            wanted = rewrite(wanted)
            if self._envoy_headers and wanted != head.target:
                extra += b"x-envoy-original-path: " + head.target + b"\r\n"
        if exchange.target_changed or rewrite is not None or not head.minor:
            return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (head.method, wanted, raw[head.fields_at :], extra)
        return raw + extra + b"\r\n"

    def _unusual(self, exchange: HttpExchange, raw: bytes, extra: bytes) -> tuple[bytes, bytes]:
        head = exchange.head
        flags = head.flags
        if flags & INTERNAL:
            raw = cut_internal(raw)
        if flags & EXPECT and exchange.continued:
            raw = _STRIP_EXPECT.cut(raw)
        if flags & NOMINATED:
            raw = strip_for(nominated(head)).cut(raw)
        if exchange.upgrade:
            extra += _UPGRADE % head.names[b"upgrade"]
        return raw, extra

    def response_head(
        self, exchange: HttpExchange, head: Head, *, keep: bool, rechunk: bool, now: float
    ) -> bytes:
        """The head to send downstream. ``now`` is monotonic time; ``rechunk``: the body gets chunked framing."""
        names = head.names
        raw = self._strip_response(head)
        if self._envoy_headers:
            extra = b"x-envoy-upstream-service-time: %d\r\n" % ((now - exchange.first_upstream_tx) * 1000)
        else:
            extra = b""
        if self._overwrite_server or b"server" not in names:
            extra += self._server
        if b"date" not in names:
            extra += exchange.down.state.date
        if self._always_id and exchange.request_id and b"x-request-id" not in names:
            extra += b"x-request-id: " + exchange.request_id + b"\r\n"
        if head.flags & NOMINATED:
            raw = strip_for(nominated(head)).cut(raw)
        if self._via_request:
            extra += self._via_request
        target = exchange.target
        if target is not None and target.response_edits is not None:
            edits = target.response_edits
            strip, more = (edits.strip, edits.extra) if edits.render is None else edits.render(head, exchange)
            if strip:
                raw = strip_for(strip).cut(raw)
                extra = strip_for(strip).cut(b"\r\n" + extra)[2:]
            extra += more
        if head.status == 101:
            return raw + extra + _UPGRADE % names.get(b"upgrade", b"") + b"\r\n"
        if rechunk:
            extra += b"transfer-encoding: chunked\r\n"
        elif head.flags & CHUNKED and exchange.dechunk:
            raw = _STRIP_FRAMING.cut(raw)
        if not keep:
            extra += _CLOSE
        elif not exchange.head.minor:
            extra += _KEEP_ALIVE
        if not head.minor:
            raw = b"HTTP/1.1" + raw[8:]
        return raw + extra + b"\r\n"

    def local_reply(self, exchange: HttpExchange, reply: Reply, *, keep: bool) -> bytes:
        """A whole response made here, its body included (unless the request is HEAD)."""
        body = reply.body
        status = reply.status
        head = b"HTTP/1.1 %d %b\r\n%b" % (status, phrase(status), reply.headers)
        if status != 204 and status != 304:
            head += b"content-length: %d\r\n" % len(body)
        if body and b"content-type:" not in reply.headers.lower():
            head += b"content-type: text/plain\r\n"
        extra = exchange.down.state.date + self._server
        if self._always_id and exchange.request_id:
            extra += b"x-request-id: " + exchange.request_id + b"\r\n"
        route = exchange.route
        if route is not None and route.response_edits is not None:
            edits = route.response_edits
            if edits.render is None:
                strip, more = edits.strip, edits.extra
            else:
                strip, more = edits.render(exchange.head, exchange)
            if strip:
                head = strip_for(strip).cut(head)
            extra += more
        if not keep:
            extra += _CLOSE
        return head + extra + (b"\r\n" if exchange.is_head else b"\r\n" + body)
