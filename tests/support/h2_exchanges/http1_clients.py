"""Clients of HTTP/1.1 before backends of both versions: tunnels, ends, and what is counted."""

from __future__ import annotations

from typing import Any, Literal

from tests.support.h2_arena import Case
from tests.support.h2_document import Setup
from tests.support.h2_exchanges.build import head, ok, plain, trailers
from tests.support.h2_frames import data, goaway, rst
from tests.support.h2_script import Close, Eof, Got, Heed, Reset, Say, Script, Until

_HEAD = b"\r\n\r\n"
_WEBSOCKET: dict[str, Any] = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
_CONNECT: dict[str, Any] = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
_TERMINATES: dict[str, Any] = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
_ANY_CONNECT: dict[str, Any] = {"connect_matcher": {}}
_EXTENDED = {"allow_connect": True}
_ALLOWS = {8: 1, 4: 1 << 20}
_UPGRADE = (
    b"GET /chat HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\n\r\n"
)
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
_TUNNEL = b"CONNECT h:80 HTTP/1.1\r\nhost: h:80\r\n\r\n"
_CUT = plain(b"content-length: 9", body=b"abc")


def _get(*lines: bytes, path: bytes = b"/", method: bytes = b"GET") -> bytes:
    return b"\r\n".join((method + b" " + path + b" HTTP/1.1", b"host: h", *lines, b"", b""))


_LAST = _get(b"connection: close")
_POST = _get(b"content-length: 9", method=b"POST") + b"abc"


def _setup(upstream: Literal["h1", "h2"] = "h1", **more: Any) -> Setup:
    return Setup(upstream, downstream="h1", **more)


_H1 = _setup()
_H2 = _setup("h2")


def _case(name: str, *client: Any, setup: Setup = _H1, backend: Script | None = None, leave: bool = False,
          hello: dict[int, int] | None = None, without: frozenset[str] = frozenset()) -> Case:  # fmt: skip
    return Case(f"of h1: {name}", client, (backend,) if backend is not None else (), setup,
                "leave" if leave else "read", backend_hello=hello, without=without)  # fmt: skip


_TO_H1 = _setup(manager=_WEBSOCKET)
_TO_H2 = _setup("h2", manager=_WEBSOCKET, upstream_http2=_EXTENDED)
_CONNECT_H1 = _setup(manager=_CONNECT, match=_ANY_CONNECT)
_CONNECT_H2 = _setup("h2", manager=_CONNECT, match=_ANY_CONNECT, upstream_http2=_EXTENDED)
_ENDS_HERE = _setup(manager=_CONNECT, match=_ANY_CONNECT, route=_TERMINATES)
_TALK: Script = (_UPGRADE, Got(_HEAD), b"ping", Got(b"pong"))
_OPEN: Script = (_TUNNEL, Got(_HEAD), b"ping", Got(b"pong"))
_TALKS: Script = (Got(_HEAD), _SWITCH, Got(b"ping"), b"pong")
_TALKS_H2: Script = (Until("headers", 1), head(1, b"200"), Until("data", 1, 4), data(1, b"pong"))
_HEARS_H2: Script = (*_TALKS_H2, Until("end", 1), data(1, end=True))
_OPENS: Script = (Got(_HEAD), plain(), Got(b"ping"), b"pong")

_TUNNELS = [
    _case("websocket, the backend ends", *_TALK, Say("done"), setup=_TO_H1, backend=(*_TALKS, Heed("done"), Close())),
    _case("websocket, the backend resets", *_TALK, Say("done"), setup=_TO_H1, backend=(*_TALKS, Heed("done"), Reset())),
    _case("websocket, the client leaves", *_TALK, Close(), setup=_TO_H1, backend=_TALKS, leave=True),
    _case("websocket, the client resets", *_TALK, Reset(), setup=_TO_H1, backend=_TALKS, leave=True),
    _case("websocket, refused", _UPGRADE, setup=_TO_H1,
          backend=(Got(_HEAD), plain(b"content-length: 2", status=b"403 No", body=b"no"))),
    _case("websocket, answered with 200", _UPGRADE, setup=_TO_H1,
          backend=(Got(_HEAD), plain(b"content-length: 2", body=b"no"))),
    _case("websocket, the backend closes at once", _UPGRADE, setup=_TO_H1, backend=(Got(_HEAD), Close())),
    _case("websocket where no route allows it", _UPGRADE),
    _case("websocket to h2, the backend ends", *_TALK, setup=_TO_H2, hello=_ALLOWS,
          backend=(*_TALKS_H2, data(1, end=True))),
    _case("websocket to h2, the backend resets", *_TALK, setup=_TO_H2, hello=_ALLOWS, backend=(*_TALKS_H2, rst(1, 8))),
    _case("websocket to h2, the backend leaves", *_TALK, setup=_TO_H2, hello=_ALLOWS, backend=(*_TALKS_H2, Close())),
    _case("websocket to h2, the client leaves", *_TALK, Close(), setup=_TO_H2, hello=_ALLOWS, leave=True,
          backend=_HEARS_H2),
    _case("websocket to h2, refused", _UPGRADE, setup=_TO_H2, hello=_ALLOWS,
          backend=(Until("headers", 1), head(1, b"403") + data(1, b"no", end=True))),
    _case("websocket to h2, reset", _UPGRADE, setup=_TO_H2, hello=_ALLOWS, backend=(Until("headers", 1), rst(1, 2))),
    _case("CONNECT, the backend ends", *_OPEN, Say("done"), setup=_CONNECT_H1,
          backend=(*_OPENS, Heed("done"), Close())),
    _case("CONNECT, the client leaves", *_OPEN, Close(), setup=_CONNECT_H1, backend=_OPENS, leave=True),
    _case("CONNECT to h2, the backend ends", *_OPEN, setup=_CONNECT_H2, hello=_ALLOWS,
          backend=(*_TALKS_H2, data(1, end=True))),
    _case("CONNECT to h2, the backend resets", *_OPEN, setup=_CONNECT_H2, hello=_ALLOWS,
          backend=(*_TALKS_H2, rst(1, 10))),
    _case("CONNECT to h2, the client leaves", *_OPEN, Close(), setup=_CONNECT_H2, hello=_ALLOWS, leave=True,
          backend=_HEARS_H2),
    _case("CONNECT to h2, refused", _TUNNEL, setup=_CONNECT_H2, hello=_ALLOWS,
          backend=(Until("headers", 1), head(1, b"403", end=True))),
    _case("CONNECT, terminated, the backend ends", *_OPEN, Say("done"), setup=_ENDS_HERE,
          backend=(Got(b"ping"), b"pong", Heed("done"), Close())),
    _case("CONNECT, terminated, the client leaves", *_OPEN, Close(), setup=_ENDS_HERE, leave=True,
          backend=(Got(b"ping"), b"pong")),
    _case("CONNECT, terminated, the backend speaks first", _TUNNEL, Got(b"hello"), Say("done"), setup=_ENDS_HERE,
          backend=(b"hello", Heed("done"), Close())),
]  # fmt: skip

_RETRY = {"retry_policy": {"retry_on": "reset", "num_retries": 1}}
_GRPC = _get(b"content-type: application/grpc", b"te: trailers", b"content-length: 0", method=b"POST")

_COUNTED = [
    _case("a request", _LAST),
    _case("a request that stays", _get(), Got(b"ok"), leave=True),
    _case("a body", _POST + b"defghi", Got(b"ok"), leave=True),
    _case("the response is cut short", _get(), backend=(Got(_HEAD), _CUT, Close())),
    _case("the response is reset", _get(), Got(b"abc"), Say("got"), backend=(Got(_HEAD), _CUT, Heed("got"), Reset())),
    _case("chunks are cut short", _get(), backend=(
        Got(_HEAD), plain(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n"), Close())),
    _case("the response of a gRPC call is cut short", _GRPC, backend=(
        Got(_HEAD), plain(b"content-type: application/grpc", b"content-length: 9", body=b"abc"), Close())),
    _case("a response until the end", _get(), backend=(Got(_HEAD), plain(body=b"abc"), Close())),
    _case("a response that says close", _get(), Got(b"ok"), leave=True, backend=(
        Got(_HEAD), plain(b"connection: close", b"content-length: 2", body=b"ok"))),
    _case("a response of HTTP/1.0", _get(), Got(b"ok"), leave=True, backend=(
        Got(_HEAD), b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok")),
    _case("the backend closes at once", _get(), Got(b"95"), leave=True, backend=(Got(_HEAD), Close())),
    _case("the backend closes at once, tried again", _get(), Got(b"ok"), leave=True, setup=_setup(route=_RETRY),
          # What is left of the route's timeout is another number each time.
          without=frozenset({"backend"}), backend=(Got(_HEAD), Close())),
    _case("the backend closes in the request", _POST, backend=(Got(b"abc"), Close())),
    _case("the backend answers in the request", _POST, backend=(
        Got(b"abc"), plain(b"content-length: 2", body=b"ok"))),
    _case("the backend's response is no HTTP", _get(), Got(b"87"), leave=True, backend=(Got(_HEAD), b"no\r\n\r\n")),
    _case("the client leaves in the request", _POST, Heed("got"), Close(), leave=True,
          backend=(Got(b"abc"), Say("got"))),
    _case("the client leaves before the response", _get(), Heed("got"), Close(), leave=True,
          backend=(Got(_HEAD), Say("got"))),
    _case("the client leaves in the response", _get(), Got(b"abc"), Close(), leave=True, backend=(Got(_HEAD), _CUT)),
    _case("the client ends its half", _get(), Heed("got"), Eof(), leave=False, backend=(Got(_HEAD), Say("got"))),
    _case("a direct response", _get(path=b"/direct"), Got(b"direct"), leave=True),
    _case("a direct response before the body", _get(b"content-length: 9", path=b"/direct", method=b"POST"),
          Got(b"direct")),
    _case("a direct response with the body", _get(b"content-length: 3", path=b"/direct", method=b"POST") + b"abc",
          Got(b"direct")),
    _case("OPTIONS *", _get(path=b"*", method=b"OPTIONS"), Got(_HEAD), leave=True),
    _case("no request", b"\x00\r\n\r\n"),
    _case("a chunk that is none", _get(b"transfer-encoding: chunked", method=b"POST"), Heed("got"), b"x\r\n",
          backend=(Got(_HEAD), Say("got"))),
    _case("a stream that is idle", _POST, setup=_setup(manager={"stream_idle_timeout": "0.3s"}),
          backend=(Got(b"abc"),)),
    _case("a request that takes too long", _POST, setup=_setup(manager={"request_timeout": "0.3s"}),
          backend=(Got(b"abc"),)),
    _case("a head that takes too long", b"GET / HTTP/1.1\r\n",
          setup=_setup(manager={"request_headers_timeout": "0.3s"})),
    _case("a backend that takes too long", _get(), Got(b"timeout"), leave=True,
          setup=_setup(route={"timeout": "0.3s"}), backend=(Got(_HEAD),)),
    _case("a connection that is idle", _get(), Got(b"ok"), setup=_setup(
        manager={"common_http_protocol_options": {"idle_timeout": "0.3s"}})),
    _case("requests a connection", _get(), Got(b"ok"), _get(), setup=_setup(
        manager={"common_http_protocol_options": {"max_requests_per_connection": 2}})),
    _case("to h2: a request", _get(), Got(b"ok"), leave=True, setup=_H2),
    _case("to h2: trailers", _get(), Got(b"0\r\n"), leave=True, setup=_H2, backend=(
        Until("end", 1), head(1, b"200") + data(1, b"ok") + trailers(1, (b"x-t", b"1")))),
    _case("to h2: reset before the response", _get(), Got(b"85"), leave=True, setup=_H2,
          backend=(Until("end", 1), rst(1, 2))),
    _case("to h2: reset in the response", _get(), Got(b"abc"), Say("got"), setup=_H2, backend=(
        Until("end", 1), head(1, b"200") + data(1, b"abc"), Heed("got"), rst(1, 2))),
    _case("to h2: the backend leaves in the response", _get(), Got(b"abc"), Say("got"), setup=_H2, backend=(
        Until("end", 1), head(1, b"200") + data(1, b"abc"), Heed("got"), Close())),
    _case("to h2: GOAWAY below the stream", _get(), Got(b"100"), leave=True, setup=_H2,
          backend=(Until("end", 1), goaway(0))),
    _case("to h2: an answer in the request", _POST, setup=_H2, backend=(Until("data", 1, 3), ok())),
    _case("to h2: the client leaves in the request", _POST, Heed("got"), Close(), leave=True, setup=_H2,
          backend=(Until("data", 1, 3), Say("got"))),
    _case("to h2: the client leaves in the response", _get(), Got(b"abc"), Close(), leave=True, setup=_H2,
          backend=(Until("end", 1), head(1, b"200") + data(1, b"abc"))),
]  # fmt: skip

CASES = [*_TUNNELS, *_COUNTED]
