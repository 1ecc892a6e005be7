"""What backends answer: heads, framing, ends, interim responses, bytes too many and too few."""

from __future__ import annotations

from tests.support.exchanges.build import chunked, get, message, ok, post, says
from tests.support.raw_exchange import OK, Answer, Case

_HEAD = message(b"HEAD / HTTP/1.1", b"host: h")
_FIRST = frozenset((0,))

STATUS_LINES = tuple(
    Case(f"status line {line!r}", get(), says(line + b"\r\ncontent-length: 2\r\n\r\nok", "end"))
    for line in (
        b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 200 Very Fine", b"HTTP/1.1 200 \xc3\xa9", b"HTTP/1.1 299 X",
        b"HTTP/1.1 404 Not Found", b"HTTP/1.1 500 Oh", b"HTTP/1.1 599 X", b"HTTP/1.1 600 X", b"HTTP/1.1 999 X", b"HTTP/1.1 000 X",
        b"HTTP/1.1 099 X", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 -20 OK", b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK", b"HTTP/2.0 200 OK",
        b"HTTP/2 200", b"http/1.1 200 OK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\x01K", b"HTTP/1.1 200 O\x7fK", b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 OK", b"HTTP/1.1", b"200 OK", b"ICY 200 OK", b"SSH-2.0-OpenSSH_9.0", b"GET / HTTP/1.1", b"", b"\r\nHTTP/1.1 200 OK",
        b" HTTP/1.1 200 OK", b"HTTP/1.1 200 OK ", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 205 Reset Content",
        b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 401 Unauthorized", b"HTTP/1.1 418 I'm a teapot", b"HTTP/1.1 503 Service Unavailable",
        b"HTTP/1.1 413 Content Too Large",
    )
)  # fmt: skip
FRAMING = (
    Case("until the connection closes", get(), says(ok(body=b"all of it"), "close"), end="read"),
    Case("until the connection closes, empty", get(), says(ok(), "close"), end="read"),
    Case("until the connection closes, half", get(), says(ok(body=b"all of it"), "end"), end="read"),
    Case("until the connection closes, reset", get(), says(ok(body=b"all of it"), "reset"), end="read"),
    Case("connection close and a length", get(), says(ok(b"connection: close", b"content-length: 2", body=b"ok"), "close")),
    Case("connection close and kept open", get(), says(ok(b"connection: close", b"content-length: 2", body=b"ok"))),
    Case("length 0", get(), says(ok(b"content-length: 0"))),
    Case("shorter than its length", get(), says(ok(b"content-length: 9", body=b"ok"), "close"), end="read"),
    Case("shorter than its length, half", get(), says(ok(b"content-length: 9", body=b"ok"), "end"), end="read"),
    Case("shorter than its length, reset", get(), says(ok(b"content-length: 9", body=b"ok"), "reset"), end="read"),
    Case("no body of its length", get(), says(ok(b"content-length: 9"), "close"), end="read"),
    Case("longer than its length", get(), says(ok(b"content-length: 2", body=b"okmore"))),
    Case("length and a smuggled response", get(), says(OK + ok(b"content-length: 4", body=b"evil"))),
    Case("chunked and a smuggled response", get(), says(ok(b"transfer-encoding: chunked", body=b"0\r\n\r\n") + ok(b"content-length: 4", body=b"evil"))),
    Case("a length twice", get(), says(ok(b"content-length: 2", b"content-length: 2", body=b"ok"), "end")),
    Case("two lengths", get(), says(ok(b"content-length: 2", b"content-length: 3", body=b"oka"), "end")),
    Case("a list of lengths", get(), says(ok(b"content-length: 2, 2", body=b"ok"), "end")),
    Case("a bad length", get(), says(ok(b"content-length: x", body=b"ok"), "end")),
    Case("a negative length", get(), says(ok(b"content-length: -1", body=b"ok"), "end")),
    Case("an empty length", get(), says(ok(b"content-length:", body=b"ok"), "end")),
    Case("a huge length", get(), says(ok(b"content-length: 99999999999999999999", body=b"ok"), "end")),
    Case("length and chunked", get(), says(ok(b"content-length: 2", b"transfer-encoding: chunked", body=b"0\r\n\r\n"), "end")),
    Case("chunked", get(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"))),
    Case("chunked, extensions", get(), says(ok(b"transfer-encoding: chunked", body=b"3;a=b\r\nabc\r\n0;c\r\n\r\n"))),
    Case("chunked, trailers", get(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\nx: y\r\n\r\n"))),
    Case("chunked, trailers asked for", get(b"te: trailers"), says(ok(b"transfer-encoding: chunked", b"trailer: x", body=b"0\r\nx: y\r\n\r\n"))),
    Case("chunked, forbidden trailers", get(), says(ok(b"transfer-encoding: chunked", body=b"0\r\ncontent-length: 5\r\n\r\n"))),
    Case("chunked, cut off", get(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n"), "close"), end="read"),
    Case("chunked, cut off in a chunk", get(), says(ok(b"transfer-encoding: chunked", body=b"5\r\nabc"), "close"), end="read"),
    Case("chunked, without a terminator's end", get(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n"), "close"), end="read"),
    Case("chunked, bad size", get(), says(ok(b"transfer-encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"))),
    Case("chunked, bad size later", get(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\nzz\r\n")), end="read"),
    Case("chunked, LF only", get(), says(ok(b"transfer-encoding: chunked", body=b"3\nabc\n0\n\n"), "end")),
    Case("chunked, terminator damaged", get(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabcXX0\r\n\r\n"), "end"), end="read"),
    Case("chunked twice from the backend", get(), says(ok(b"transfer-encoding: chunked", b"transfer-encoding: chunked", body=b"0\r\n\r\n"), "end")),
    Case("gzip, chunked", get(), says(ok(b"transfer-encoding: gzip, chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), "end")),
    Case("an unknown encoding", get(), says(ok(b"transfer-encoding: cow", body=b"abc"), "end")),
    Case("identity encoding", get(), says(ok(b"transfer-encoding: identity", body=b"abc"), "close"), end="read"),
    Case("chunked in HTTP/1.0", get(), says(ok(b"transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n", line=b"HTTP/1.0 200 OK"), "end")),
    Case("HTTP/1.0 until close", get(), says(ok(body=b"abc", line=b"HTTP/1.0 200 OK"), "close"), end="read"),
    Case("HTTP/1.0 with a length", get(), says(ok(b"content-length: 2", body=b"ok", line=b"HTTP/1.0 200 OK"))),
    Case("HTTP/1.0 keep-alive from the backend", get(), says(ok(b"content-length: 2", b"connection: keep-alive", body=b"ok", line=b"HTTP/1.0 200 OK"))),
    Case("a large body from the backend", get(), says(ok(b"content-length: 300000", body=b"a" * 300000))),
    Case("large chunks from the backend", get(), says(ok(b"transfer-encoding: chunked", body=b"493e0\r\n" + b"a" * 300000 + b"\r\n0\r\n\r\n"))),
)  # fmt: skip
BODILESS = (
    Case("HEAD with a length", _HEAD, says(ok(b"content-length: 5")), heads=_FIRST),
    Case("HEAD without a length", _HEAD, says(ok()), heads=_FIRST),
    Case("HEAD chunked", _HEAD, says(ok(b"transfer-encoding: chunked")), heads=_FIRST),
    Case("HEAD with a body", _HEAD, says(ok(b"content-length: 2", body=b"ok")), heads=_FIRST),
    Case("HEAD, then GET", _HEAD + get(), says(ok(b"content-length: 5")), heads=_FIRST, finals=2),
    Case("HEAD to a local reply", message(b"HEAD /direct HTTP/1.1", b"host: h"), heads=_FIRST),
    Case("HEAD refused", message(b"HEAD / HTTP/1.1", b"host : h"), heads=_FIRST),
    Case("HEAD in HTTP/1.0", message(b"HEAD / HTTP/1.0", b"host: h"), says(ok(b"content-length: 5")), heads=_FIRST, config="http10"),
    Case("HEAD and the backend closes", _HEAD, says(ok(b"content-length: 5"), "close"), heads=_FIRST),
    *(
        Case(f"{status} {'with ' + fields[0].decode() if fields else 'bare'}{' and a body' if body else ''}",
             get(), says(ok(*fields, body=body, line=b"HTTP/1.1 %d X" % status)))
        for status in (204, 304, 205)
        for fields, body in (
            ((), b""), ((b"content-length: 0",), b""), ((b"content-length: 2",), b""), ((b"content-length: 2",), b"ok"),
            ((b"transfer-encoding: chunked",), b""), ((b"transfer-encoding: chunked",), b"0\r\n\r\n"),
        )
        if status != 205 or (fields and (body or fields[0].endswith(b"0")))
    ),
)  # fmt: skip
INTERIM = (
    Case("100 unasked", get(), says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)),
    Case("102", get(), says(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)),
    Case("103 with links", get(), says(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK)),
    Case("199", get(), says(b"HTTP/1.1 199 X\r\n\r\n" + OK)),
    Case("two interim responses", get(), says(b"HTTP/1.1 103 A\r\n\r\n" * 2 + OK)),
    Case("a hundred interim responses", get(), says(b"HTTP/1.1 103 A\r\n\r\n" * 100 + OK)),
    Case("interim response with a length", get(), says(b"HTTP/1.1 103 A\r\ncontent-length: 2\r\n\r\n" + OK)),
    Case("interim response chunked", get(), says(b"HTTP/1.1 103 A\r\ntransfer-encoding: chunked\r\n\r\n" + OK)),
    Case("interim response malformed", get(), says(b"HTTP/1.1 103 A\r\nx : y\r\n\r\n" + OK)),
    Case("only an interim response", get(), says(b"HTTP/1.1 103 A\r\n\r\n", "close")),
    Case("101 unasked", get(), says(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "end")),
    Case("interim response to HTTP/1.0", message(b"GET / HTTP/1.0", b"host: h"), says(b"HTTP/1.1 103 A\r\n\r\n" + OK), config="http10"),
    Case("100 with a body to come", chunked(b"0\r\n\r\n"), says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)),
)  # fmt: skip
ENDS = (
    Case("the backend closes at once", get(), says(b"", "close")),
    Case("the backend resets at once", get(), says(b"", "reset")),
    Case("the backend ends its half at once", get(), says(b"", "end")),
    Case("the backend closes in the status line", get(), says(b"HTTP/1.1 2", "close")),
    Case("the backend closes in the head", get(), says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", "close")),
    Case("the backend resets in the head", get(), says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", "reset")),
    Case("the backend closes after its response", get(), says(OK, "close")),
    Case("the backend resets after its response", get(), says(OK, "end")),
    Case("the backend closes when it has the head of a POST", post(b"content-length: 5", body=b"ab"), says(b"", "close", "head")),
    Case("garbage for a head", get(), says(b"\x00\x01\x02\x03 garbage\r\n\r\n", "end")),
    Case("a head in LF", get(), says(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", "end")),
    Case("a head with a folded line", get(), says(b"HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 2\r\n\r\nok", "end")),
    Case("empty lines before the head", get(), says(b"\r\n\r\n" + OK)),
    Case("garbage after the response", get(), says(OK + b"garbage")),
    Case("an empty line after the response", get(), says(OK + b"\r\n")),
    Case("a head of 60 KB", get(), says(ok(*(b"x%d: %b" % (n, b"a" * 1000) for n in range(58)), b"content-length: 2", body=b"ok"))),
    Case("a head of 70 KB", get(), says(ok(*(b"x%d: %b" % (n, b"a" * 1000) for n in range(70)), b"content-length: 2", body=b"ok"), "end")),
    Case("a head of 101 fields", get(), says(ok(*(b"x%d: y" % n for n in range(100)), b"content-length: 2", body=b"ok"), "end")),
    Case("a head of 100 fields", get(), says(ok(*(b"x%d: y" % n for n in range(99)), b"content-length: 2", body=b"ok"))),
    Case("an unended head too large from the backend", get(), says(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 90000, "end")),
    Case("response limits: fits", get(), says(ok(*(b"x%d: y" % n for n in range(18)), b"content-length: 2", body=b"ok")), config="responses"),
    Case("response limits: exactly", get(), says(ok(*(b"x%d: y" % n for n in range(19)), b"content-length: 2", body=b"ok")), config="responses"),
    Case("response limits: one field too many", get(), says(ok(*(b"x%d: y" % n for n in range(20)), b"content-length: 2", body=b"ok"), "end"), config="responses"),
    Case("response limits: 70 KB", get(), says(ok(*(b"x%d: %b" % (n, b"a" * 7000) for n in range(10)), b"content-length: 2", body=b"ok")), config="responses"),
    Case("response limits: 100 KB", get(), says(ok(*(b"x%d: %b" % (n, b"a" * 10000) for n in range(10)), b"content-length: 2", body=b"ok"), "end"), config="responses"),
)  # fmt: skip
EARLY = (
    Case("a response before the body ends", post(b"content-length: 5", body=b"ab"), says(OK, at="head")),
    Case("a response before the chunks end", chunked(b"3\r\nabc\r\n"), says(OK, at="head")),
    Case("a refusal before the body ends", post(b"content-length: 5", body=b"ab"),
         says(ok(b"content-length: 0", b"connection: close", line=b"HTTP/1.1 413 X"), "close", "head")),
    Case("an early head, then the rest", (post(b"content-length: 5", body=b"ab"), b"cde"),
         (Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", at="head"),), wait_for=(b"", b"200 OK")),
    Case("a local reply before the body ends", message(b"POST /direct HTTP/1.1", b"host: h", b"content-length: 5", body=b"ab")),
)  # fmt: skip

CASES = STATUS_LINES + FRAMING + BODILESS + INTERIM + ENDS + EARLY
