"""The life of streams and connections: resets, GOAWAY, retries, limits, SETTINGS, windows, PING, tunnels."""

from __future__ import annotations

from tests.support.h2_arena import Case
from tests.support.h2_document import H1, H2, Setup
from tests.support.h2_exchanges.build import asks, fields, get, head, ok, plain, post
from tests.support.h2_frames import (
    data,
    frame,
    goaway,
    headers,
    integer,
    ping,
    priority,
    rst,
    settings,
    window,
)
from tests.support.h2_script import Close, Deaf, Got, Heed, Say, Serve, Until

_RETRY = {"retry_policy": {"retry_on": "reset,refused-stream", "num_retries": 2}}
_REFUSED = {"retry_policy": {"retry_on": "refused-stream", "num_retries": 2}}
_AGAIN = Setup("h2", route=_RETRY)
_UNASKED = frozenset({"backend", "counted"})
"""Whether the backend was asked before the connection ended is chance."""
_BIG = b"x" * 300_000
_WEBSOCKET = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
_CONNECT = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
_EXTENDED = {"allow_connect": True}
_UPGRADE = headers(
    1,
    (
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":authority", b"h"),
        (b":path", b"/chat"),
        (b"sec-websocket-version", b"13"),
    ),
    end=False,
)
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
_TUNNEL = headers(1, ((b":method", b"CONNECT"), (b":authority", b"h:80")), end=False)
_TERMINATES = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}

_RESETS = [
    *(
        Case(f"the client resets with {code} in the request to {kind}",
             (post() + data(1, b"abc"), Heed("got"), rst(1, code), get(stream=3), Until("end", 3)), setup=setup,
             backend=((got, Say("got")) if kind == "h1" else (got, Say("got"), Until("rst", 1), Serve(1)),))
        for code in (0, 2, 8)
        for kind, setup, got in (("h1", H1, Got(b"abc")), ("h2", H2, Until("data", 1, 3)))
    ),
    *(
        Case(f"the client resets in the response of {kind}",
             (get(), Until("data", 1, 3), rst(1), get(stream=3), Until("end", 3)), setup=setup, backend=(script,))
        for kind, setup, script in (
            ("h1", H1, (Got(b"\r\n\r\n"), plain(b"content-length: 9", body=b"abc"))),
            ("h2", H2, (Until("end", 1), head(1, b"200") + data(1, b"abc"), Until("rst", 1), Serve(1))),
        )
    ),
    Case("the client leaves in the request", (post() + data(1, b"abc"), Heed("got"), Close()), setup=H2,
         backend=((Until("data", 1, 3), Say("got")),), end="leave"),
    Case("the client leaves in the response", (get(), Until("data", 1, 3), Close()), setup=H2,
         backend=((Until("end", 1), head(1, b"200") + data(1, b"abc")),), end="leave"),
    Case("the client says GOAWAY and leaves", (get(), Until("end", 1), goaway(0)), end="leave"),
    Case("the client says GOAWAY in a request", (post() + data(1, b"abc") + goaway(0), data(1, b"d", end=True),
         Until("end", 1)), end="leave"),
    Case("the client resets a stream that is done", (get(), Until("end", 1), rst(1))),
    Case("DATA after the end", (get(), Until("end", 1), data(1, b"abc"))),
    Case("HEADERS after the end", (get(), Until("end", 1), get())),
    Case("WINDOW_UPDATE after the end", (get(), Until("end", 1), window(1, 10))),
    Case("DATA on an idle stream", (data(1, b"abc"),)),
    Case("RST_STREAM on an idle stream", (rst(1),)),
    Case("WINDOW_UPDATE on an idle stream", (window(1, 1),)),
    Case("a stream of the server's", (get(stream=2),)),
    Case("a lower stream than before", (get(stream=5), Until("end", 5), get(stream=3))),
    Case("a skipped stream", (get(stream=7), Until("end", 7))),
    Case("DATA on stream 0", (data(0, b"abc"),)),
    Case("HEADERS on stream 0", (get(stream=0),)),
    Case("a stream that depends on itself", (priority(1, 1), get(), Until("end", 1))),
    Case("HEADERS between CONTINUATION", (headers(1, fields(), more=True) + get(stream=3),)),
    Case("a lone CONTINUATION", (frame(9, 4, 1, b""),)),
    Case("PUSH_PROMISE from the client", (frame(5, 4, 1, b"\0\0\0\x02"),)),
    Case("an unknown frame", (frame(0xEE, 0xFF, 0, b"abc"), get(), Until("end", 1))),
    Case("an unknown frame between CONTINUATION", (headers(1, fields(), more=True) + frame(0xEE, 0, 1, b""),)),
    Case("a frame too large", (frame(0, 0, 1, b"x" * 16385),)),
    Case("padding longer than the frame", (post() + frame(0, 0x8, 1, b"\x05abc"),)),
    Case("PRIORITY of four bytes", (get(), frame(2, 0, 1, b"\0\0\0\0"), Until("end", 1))),
    Case("RST_STREAM of three bytes", (post(), frame(3, 0, 1, b"\0\0\0"))),
    Case("PING of seven bytes", (frame(6, 0, 0, b"\0" * 7),)),
    Case("PING on a stream", (frame(6, 0, 1, b"\0" * 8),)),
    Case("PING", (ping(b"12345678"), Until("ping-ack"))),
    Case("a PING's answer unasked", (ping(ack=True),)),
    Case("a bad field block", (headers(1, b"\xff\xff\xff\xff\xff"),)),
    Case("an index beyond the table", (headers(1, integer(100, 7, 0x80)),)),
    Case("a table larger than allowed", (headers(1, integer(65536, 5, 0x20)),)),
    Case("a field block cut short", (headers(1, b"\x00\x05ab"),)),
]  # fmt: skip

_CONNECTION = [
    Case("no preface", (b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",), hello=None, end="read"),
    Case("a preface cut short", (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",), hello=None, end="read"),
    Case("a preface and no SETTINGS", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + ping(),), hello=None, end="read"),
    Case("SETTINGS, acknowledged", (settings({1: 0, 3: 1, 4: 10, 5: 20000, 6: 100}), Until("settings-ack", 0, 2))),
    Case("SETTINGS of an unknown name", (settings({99: 1}), Until("settings-ack", 0, 2))),
    Case("SETTINGS of five bytes", (frame(4, 0, 0, b"\0" * 5),)),
    Case("SETTINGS on a stream", (frame(4, 0, 1, b""),)),
    Case("SETTINGS acknowledged with a payload", (frame(4, 1, 0, b"\0" * 6),)),
    Case("SETTINGS acknowledged unasked", (settings(ack=True) * 2,)),
    Case("ENABLE_PUSH of 2", (settings({2: 2}),)),
    Case("INITIAL_WINDOW_SIZE of 2**31", (settings({4: 1 << 31}),)),
    Case("MAX_FRAME_SIZE of 1", (settings({5: 1}),)),
    Case("MAX_FRAME_SIZE of 2**24", (settings({5: 1 << 24}),)),
    Case("MAX_HEADER_LIST_SIZE smaller than the response", (settings({6: 10}), get(), Until("end", 1))),
    Case("HEADER_TABLE_SIZE of 0", (get(), Until("end", 1), settings({1: 0}), Until("settings-ack", 0, 2),
         get(stream=3), Until("end", 3))),
    Case("a window of 0, opened later", (get(), Until("head", 1), Until("settings-ack"), window(1, 1),
         Until("data", 1, 1), window(1, 1), Until("end", 1)), hello={4: 0}),
    Case("a window of 0, opened by SETTINGS", (get(), Until("head", 1), settings({4: 65535}), Until("end", 1)),
         hello={4: 0}),
    Case("a window that becomes negative", (get(), Until("data", 1, 1000), settings({4: 0}),
         Until("settings-ack", 0, 2), settings({4: 300_000}), Until("end", 1)), hello={4: 1000},
         backend=((Got(b"\r\n\r\n"), plain(b"content-length: 3000", body=b"x" * 3000)),)),
    Case("the connection's window is used up", (get(), Until("data", 1, 65535), window(0, 10),
         Until("data", 1, 65545), window(0, 1_000_000), Until("end", 1)), hello={4: 1 << 30},
         backend=((Got(b"\r\n\r\n"), plain(b"content-length: 300000", body=_BIG)),)),
    Case("WINDOW_UPDATE of 0 on a stream", (post(), window(1, 0), Until("end", 1)), without=_UNASKED),
    Case("WINDOW_UPDATE of 0 on the connection", (window(0, 0),)),
    Case("WINDOW_UPDATE of three bytes", (frame(8, 0, 0, b"\0\0\1"),)),
    Case("the connection's window overflows", (window(0, 0x7FFFFFFF),)),
    Case("a stream's window overflows", (post(), window(1, 0x7FFFFFFF), Until("end", 1)),
         without=_UNASKED),
    Case("SETTINGS make a stream's window overflow", (post(), window(1, 0x7FFFFFFF - 10), settings({4: 100}),
         Until("settings-ack", 0, 2)), hello={4: 10}),
    Case("the client exceeds its window", (post(), data(1, b"x" * 200_000)), setup=Setup("h2", http2={
        "initial_stream_window_size": 65535, "initial_connection_window_size": 65535}), backend_hello={4: 0},
        without=_UNASKED | {"log"}),
    Case("the backend's window is small", asks(post(body=_BIG[:60_000])), setup=H2, backend_hello={4: 1000},
         backend=((Until("data", 1, 1000), window(0, 1 << 20) + window(1, 1 << 20), Until("end", 1), ok()),)),
    Case("the backend's window is 0", asks(post(body=b"abc")), setup=H2, backend_hello={4: 0},
         backend=((Until("headers", 1), window(1, 3), Until("data", 1, 3), ok()),)),
    Case("the backend's window overflows", asks(post()), setup=H2,
         backend=((Until("headers", 1), window(1, 0x7FFFFFFF)),)),
    Case("a stalled reader holds the backend up", (get(), Until("head", 1), Heed("stuck", deaf=True),
         window(1, 1 << 24), window(0, 1 << 24), Until("end", 1)), hello={4: 1000},
         backend=((Got(b"\r\n\r\n"), plain(b"content-length: 300000", body=_BIG[:1000]), Say("stuck"),
                   _BIG[1000:]),)),
    Case("one stalled stream does not hold another up", (get(), Until("data", 1, 1000), get(stream=3, path=b"/direct"),
         Until("end", 3), window(1, 1 << 24), Until("end", 1)), hello={4: 1000},
         backend=((Got(b"\r\n\r\n"), plain(b"content-length: 50000", body=_BIG[:50_000])),)),
    Case("more streams than allowed", (post() + post(stream=3) + post(stream=5), Until("rst", 5),
         data(1, end=True) + data(3, end=True), Until("end", 1), Until("end", 3)),
         setup=Setup("h2", http2={"max_concurrent_streams": 2})),
    Case("more streams than allowed, again and again", (post() + b"".join(
         post(stream=2 * n + 3) for n in range(20)), Until("rsts", 0, 20)),
         setup=Setup("h2", http2={"max_concurrent_streams": 1}), without=frozenset({"backend"})),
    Case("requests a connection", (get(), Until("end", 1), get(stream=3), Until("end", 3)), end="read",
         setup=Setup(manager={"common_http_protocol_options": {"max_requests_per_connection": 2}})),
    Case("a connection that is idle", (get(), Until("end", 1)), end="read",
         setup=Setup(manager={"common_http_protocol_options": {"idle_timeout": "0.3s"}})),
    Case("a connection as old as may be", (get(), Until("end", 1)), end="read", setup=Setup(manager={
        "common_http_protocol_options": {"max_connection_duration": "0.3s"}, "drain_timeout": "0.1s"})),
    Case("a stream that is idle", (post(), Until("end", 1)), setup=Setup(manager={"stream_idle_timeout": "0.3s"})),
    Case("a request that takes too long", (post(), Until("end", 1)), setup=Setup(manager={"request_timeout": "0.3s"})),
    Case("a head that takes too long", (headers(1, fields(), more=True), Until("end", 1)),
         setup=Setup(manager={"request_headers_timeout": "0.3s"})),
    Case("a backend that takes too long", asks(get()), setup=Setup("h2", route={"timeout": "0.3s"}),
         backend=((Until("rst", 1),),)),
    Case("a connection kept alive", (Deaf(),), end="read", setup=Setup("h2", http2={"connection_keepalive": {
        "interval": "0.2s", "timeout": "0.2s"}})),
]  # fmt: skip

_UPSTREAM = [
    Case("a refused stream", asks(get()), setup=H2, backend=((Until("end", 1), rst(1, 7)),)),
    Case("a refused stream, tried again", asks(get()), setup=Setup("h2", route=_REFUSED),
         backend=((Until("end", 1), rst(1, 7), Serve(1)),)),
    Case("a refused stream with a body, tried again", asks(post(body=b"abc")), setup=Setup("h2", route=_REFUSED),
         backend=((Until("end", 1), rst(1, 7), Serve(1)),)),
    Case("a refused stream, refused again", asks(get()), setup=Setup("h2", route=_REFUSED),
         backend=((Until("end", 1), rst(1, 7), Until("end", 3), rst(3, 7), Until("end", 5), rst(5, 7)),)),
    Case("a reset stream, refused-stream asked for", asks(get()), setup=Setup("h2", route=_REFUSED),
         backend=((Until("end", 1), rst(1, 2), Serve(1)),)),
    Case("a reset stream, tried again", asks(get()), setup=_AGAIN, backend=((Until("end", 1), rst(1, 2), Serve(1)),)),
    Case("a closed connection, tried again", asks(get()), setup=_AGAIN, backend=((Until("end", 1), Close()),)),
    Case("GOAWAY below the stream, tried again", asks(get()), setup=Setup("h2", route=_REFUSED),
         backend=((Until("end", 1), goaway(0)),)),
    Case("GOAWAY below the stream", asks(get()), setup=H2, backend=((Until("end", 1), goaway(0)),)),
    Case("GOAWAY at the stream", (get(), Until("end", 1), get(stream=3), Until("end", 3)), setup=H2,
         backend=((Until("end", 1), goaway(1) + ok()),)),
    Case("GOAWAY with streams above the last", (get() + get(stream=3), Until("end", 1), Until("end", 3)),
         setup=Setup("h2", route=_REFUSED), backend=((Until("end", 1), Until("end", 3), goaway(1) + ok()),)),
    Case("GOAWAY in two steps", (get(), Until("end", 1), get(stream=3), Until("end", 3)), setup=H2,
         backend=((Until("end", 1), goaway(0x7FFFFFFF) + ok() + goaway(1)),)),
    Case("GOAWAY with an error", asks(get()), setup=H2, backend=((Until("end", 1), goaway(0, 2)),)),
    Case("GOAWAY and an end", asks(get()), setup=H2, backend=((Until("end", 1), goaway(1), Close()),)),
    Case("GOAWAY between requests", (get(), Until("end", 1), Heed("gone"), get(stream=3), Until("end", 3)), setup=H2,
         backend=((Until("end", 1), ok() + goaway(1), ping(), Until("ping-ack"), Say("gone")),)),
    Case("the backend allows one stream", (get() + get(stream=3), Until("end", 1), Until("end", 3)), setup=H2,
         backend_hello={3: 1, 4: 1 << 30}, backend=((Serve(),), (Serve(),))),
    Case("the backend allows no stream", asks(get()), setup=Setup("h2", route={"timeout": "1s"}),
         backend_hello={3: 0}),
    Case("the backend's SETTINGS change", (get(), Until("end", 1), get(stream=3), Until("end", 3)), setup=H2,
         backend=((Until("end", 1), settings({4: 10, 5: 16777215, 1: 0}), ok(), Serve(1)),)),
    Case("the backend's SETTINGS are bad", asks(get()), setup=H2,
         backend=((Until("end", 1), settings({5: 1}) + ok()),)),
    Case("a PING of the backend", asks(get()), setup=H2,
         backend=((Until("end", 1), ping(b"12345678"), Until("ping-ack"), ok()),)),
    Case("streams a connection", (get(), Until("end", 1), get(stream=3), Until("end", 3)), setup=Setup(
        "h2", upstream_common={"max_requests_per_connection": 1})),
    Case("streams at a time", (get() + get(stream=3), Until("end", 1), Until("end", 3)), setup=Setup(
        "h2", upstream_http2={"max_concurrent_streams": 1}), without=frozenset({"backend"})),
    Case("requests beyond the breaker", (post() + post(stream=3), Until("end", 3), data(1, end=True),
         Until("end", 1)), setup=Setup("h2", cluster={"circuit_breakers": {"thresholds": [{"max_requests": 1}]}})),
    Case("the backend says nothing", asks(get()), setup=Setup("h2", route={"timeout": "5s"}, upstream_http2={
        "connection_keepalive": {"interval": "0.2s", "timeout": "0.2s"}}), backend=((Deaf(), Until("over")),)),
]  # fmt: skip

_TUNNELS = [
    Case("websocket to h1", (_UPGRADE, Until("head", 1), data(1, b"ping"), Until("data", 1, 4),
         Say("done"), Until("end", 1)), setup=Setup(http2=_EXTENDED, manager=_WEBSOCKET),
         backend=((Got(b"\r\n\r\n"), _SWITCH, Got(b"ping"), b"pong", Heed("done"), Close()),)),
    Case("websocket to h1, refused", (_UPGRADE, Until("end", 1)), setup=Setup(http2=_EXTENDED, manager=_WEBSOCKET),
         backend=((Got(b"\r\n\r\n"), plain(b"content-length: 2", status=b"403 No", body=b"no")),)),
    Case("websocket to h1, answered with 200", (_UPGRADE, Until("end", 1)),
         setup=Setup(http2=_EXTENDED, manager=_WEBSOCKET),
         backend=((Got(b"\r\n\r\n"), plain(b"content-length: 2", body=b"no")),)),
    Case("websocket to h1, the client resets", (_UPGRADE, Until("head", 1), data(1, b"ping"), Until("data", 1, 4),
         rst(1)), setup=Setup(http2=_EXTENDED, manager=_WEBSOCKET),
         backend=((Got(b"\r\n\r\n"), _SWITCH, Got(b"ping"), b"pong"),)),
    Case("websocket to h2", (_UPGRADE, Until("head", 1), data(1, b"ping"), Until("data", 1, 4),
         data(1, end=True), Until("end", 1)), backend_hello={8: 1, 4: 1 << 20},
         setup=Setup("h2", http2=_EXTENDED, manager=_WEBSOCKET, upstream_http2=_EXTENDED),
         backend=((Until("headers", 1), head(1, b"200"), Until("data", 1, 4), data(1, b"pong"), Until("end", 1),
                   data(1, end=True)),)),
    Case("websocket to h2 that does not allow it", (_UPGRADE, Until("end", 1)),
         setup=Setup("h2", http2=_EXTENDED, manager=_WEBSOCKET, upstream_http2=_EXTENDED, route={"timeout": "1s"}),
         backend=((Until("headers", 1), head(1, b"501", end=True)),)),
    Case("websocket where no route allows it", (_UPGRADE, Until("end", 1)), setup=Setup(http2=_EXTENDED)),
    Case("extended CONNECT of another protocol", (headers(1, ((b":method", b"CONNECT"), (b":protocol", b"x"),
         (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/")), end=False), Until("end", 1)),
         setup=Setup(http2=_EXTENDED, manager=_WEBSOCKET)),
    Case("CONNECT, terminated", (_TUNNEL, Until("head", 1), data(1, b"ping"), Until("data", 1, 4),
         Say("done"), Until("end", 1)), setup=Setup(http2=_EXTENDED, manager=_CONNECT,
         match={"connect_matcher": {}}, route=_TERMINATES), backend=((Got(b"ping"), b"pong", Heed("done"), Close()),)),
    Case("CONNECT, forwarded to h1", (_TUNNEL, Until("head", 1), data(1, b"ping"), Until("data", 1, 4),
         Say("done"), Until("end", 1)), setup=Setup(http2=_EXTENDED, manager=_CONNECT,
         match={"connect_matcher": {}}), backend=((Got(b"\r\n\r\n"), plain(), Got(b"ping"), b"pong", Heed("done"),
         Close()),)),
    Case("CONNECT, forwarded to h2", (_TUNNEL, Until("head", 1), data(1, b"ping"), Until("data", 1, 4),
         data(1, end=True), Until("end", 1)), setup=Setup("h2", http2=_EXTENDED, manager=_CONNECT,
         upstream_http2=_EXTENDED, match={"connect_matcher": {}}),
         backend=((Until("headers", 1), head(1, b"200"), Until("data", 1, 4), data(1, b"pong"), Until("end", 1),
                   data(1, end=True)),)),
    Case("CONNECT, refused by h2", (_TUNNEL, Until("end", 1)), setup=Setup("h2", http2=_EXTENDED,
         manager=_CONNECT, upstream_http2=_EXTENDED, match={"connect_matcher": {}}),
         backend=((Until("headers", 1), head(1, b"403", end=True)),)),
]  # fmt: skip

CASES = [*_RESETS, *_CONNECTION, *_UPSTREAM, *_TUNNELS]
