"""What goes over one connection: keeping it, closing it, pipelining, HTTP/1.0, paths under options, upgrades."""

from __future__ import annotations

from tests.support.exchanges.build import get, message, ok, post, says
from tests.support.raw_exchange import OK, Answer, Case

_HOST = b"host: h"
_UPGRADE = (b"connection: upgrade", b"upgrade: websocket")
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


def _old(*fields: bytes, method: bytes = b"GET") -> bytes:
    return message(method + b" / HTTP/1.0", _HOST, *fields)


PIPELINE = (
    Case("two requests at once", get(target=b"/1") + get(target=b"/2"), finals=2),
    Case("ten requests at once", b"".join(get(target=b"/%d" % n) for n in range(10)), finals=10,
         answers=tuple(Answer(ok(b"content-length: 1", body=b"%d" % n)) for n in range(10))),
    Case("two requests one after the other", (get(target=b"/1"), get(target=b"/2")), finals=2, wait_for=(b"", b"ok")),
    Case("a POST and a GET at once", post(b"content-length: 3", body=b"abc") + get(), finals=2),
    Case("a local reply between", get(target=b"/1") + get(target=b"/direct") + get(target=b"/2"), finals=3),
    Case("a bad request after a good one", get() + get(b"x : y"), finals=2),
    Case("a good request after a bad one", get(b"x : y") + get(target=b"/never")),
    Case("close, then another request", get(b"connection: close") + get(target=b"/never")),
    Case("the second says close", get() + get(b"connection: close"), finals=2),
    Case("the backend says close to the first", get(target=b"/1") + get(target=b"/2"),
         says(ok(b"content-length: 2", b"connection: close", body=b"ok")), finals=2),
    Case("a response until close to the first", get(target=b"/1") + get(target=b"/2"), says(ok(body=b"all"), "close"),
         finals=2),
    Case("HEAD and GET", message(b"HEAD / HTTP/1.1", _HOST) + get(), says(ok(b"content-length: 9")), finals=2,
         heads=frozenset((0,))),
    Case("garbage after a request", get() + b"\x00garbage\r\n\r\n", finals=2),
    Case("half a request after a request", (get(), b"GET / HT"), wait_for=(b"", b"ok"), end="eof"),
    Case("request split in the line", (b"GE", b"T / HT", b"TP/1.1\r\nho", b"st: h\r\n\r\n")),
    Case("request split in CRLF", (b"GET / HTTP/1.1\r", b"\nhost: h\r", b"\n\r", b"\n")),
    Case("bad request split", (b"GET / HTTP/1.1\r\nhost", b" : h\r\n", b"\r\n")),
)  # fmt: skip
KEEPING = (
    Case("keep-alive", get(b"connection: keep-alive")),
    Case("close", get(b"connection: close")),
    Case("close and keep-alive", get(b"connection: close, keep-alive")),
    Case("close in capitals", get(b"connection: CLOSE")),
    Case("close to a local reply", message(b"GET /direct HTTP/1.1", _HOST, b"connection: close")),
    Case("a local reply", get(target=b"/direct")),
    Case("nothing but a FIN after a request", get(), says(b""), end="eof", backend_saw=b"host: h"),
    Case("one request to a connection", get() + get(target=b"/2"), config="once"),
    Case(
        "one request to a backend's connection", get() + get(target=b"/2"), config="once-upstream", finals=2
    ),
)
OLD = (
    Case("HTTP/1.0 refused", _old()),
    Case("HTTP/1.0", _old(), config="http10"),
    Case("HTTP/1.0 keep-alive", _old(b"connection: keep-alive"), config="http10"),
    Case("HTTP/1.0 Keep-Alive", _old(b"Connection: Keep-Alive", b"Keep-Alive: 5"), config="http10"),
    Case("HTTP/1.0 close", _old(b"connection: close"), config="http10"),
    Case("HTTP/1.0 pipelined", _old(b"connection: keep-alive") + _old(b"connection: keep-alive"), finals=2,
         config="http10"),
    Case("HTTP/1.0 and chunks", _old(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n")),
         config="http10"),
    Case("HTTP/1.0 keep-alive and chunks", _old(b"connection: keep-alive"),
         says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n")), config="http10"),
    Case("HTTP/1.0 and until close", _old(), says(ok(body=b"abc"), "close"), config="http10"),
    Case("HTTP/1.0 and trailers", _old(), says(ok(b"transfer-encoding: chunked", body=b"0\r\nx: y\r\n\r\n")),
         config="http10"),
    Case("HTTP/1.0 POST without a length", _old(method=b"POST"), config="http10"),
    Case("HTTP/1.0 local reply", message(b"GET /direct HTTP/1.0", _HOST), config="http10"),
    Case("HTTP/1.0 local reply keep-alive", message(b"GET /direct HTTP/1.0", _HOST, b"connection: keep-alive"),
         config="http10"),
    Case("HTTP/1.0 absolute-form", message(b"GET http://other/ HTTP/1.0", _HOST), config="http10"),
    Case("HTTP/1.0 upgrade", _old(*_UPGRADE), config="http10"),
    Case("HTTP/1.1 with 1.0 allowed", get(), config="http10"),
    Case("HTTP/1.0 connection upgrade nominated", _old(b"connection: x-hop", b"x-hop: 1"), config="http10"),
)  # fmt: skip
PATHS = tuple(
    Case(f"{config}: {target!r}", get(target=target), config=config)
    for config in ("plain", "normalize", "unescape", "reject", "redirect")
    for target in (
        b"//admin", b"/%2fadmin", b"/\\admin", b"/x/%2e%2e/admin", b"/admin?q=/../x", b"/admin;x", b"/x/..;/admin",
        b"/a%2Fb?c%2Fd",
        b"/a%5cb", b"/../..", b"/a/./b/../c", b"/%7Eadmin", b"/a%00b", b"/a%zz", b"/a b".replace(b" ", b"%20"),
        b"/a#b", b"///",
    )
    if not (config == "plain" and target in (b"//", b"/.."))
)  # fmt: skip
UPGRADES = (
    Case("upgrade refused", get(*_UPGRADE)),
    Case("upgrade allowed and refused by the backend", get(*_UPGRADE), config="upgrade"),
    Case("upgrade to something else", get(b"connection: upgrade", b"upgrade: other"), config="upgrade"),
    Case("upgrade without connection", get(b"upgrade: websocket"), config="upgrade"),
    Case("connection upgrade without upgrade", get(b"connection: upgrade"), config="upgrade"),
    Case("upgrade h2c", get(b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: x"),
         config="upgrade"),
    Case("upgrade with a body", post(*_UPGRADE, b"content-length: 3", body=b"abc"), says(OK, at="head"),
         config="upgrade"),
    Case("upgrade, and the backend closes", get(*_UPGRADE), says(b"", "close"), config="upgrade"),
    Case("a tunnel that the backend ends", (get(*_UPGRADE), b"ping"), says(_SWITCH + b"hello", "keep"), end="eof",
         config="upgrade", wait_for=(b"", b"hello"), backend_saw=b"ping"),
    Case("early bytes before 101", get(*_UPGRADE) + b"early", says(OK), config="upgrade"),
)  # fmt: skip

CASES = PIPELINE + KEEPING + OLD + PATHS + UPGRADES
