"""Responses of backends of HTTP/1.1 and of HTTP/2: what reaches the client, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.h2_arena import Case
from tests.support.h2_document import H2, Setup
from tests.support.h2_exchanges.build import asks, get, head, ok, plain, post, trailers
from tests.support.h2_frames import data, frame, headers, ping, rst
from tests.support.h2_script import Close, Deaf, Eof, Got, Heed, Paced, Reset, Say, Script, Until

_CHUNKED = b"transfer-encoding: chunked"
_LENGTH = b"content-length: 3"
_TO_H1: Mapping[str, tuple[bytes, bytes]] = {
    "a length": (get(), plain(_LENGTH, body=b"abc")),
    "chunks": (get(), plain(_CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n")),
    "chunks and trailers": (get(), plain(_CHUNKED, b"trailer: x", body=b"3\r\nabc\r\n0\r\nx: y\r\n\r\n")),
    "chunks and trailers, wanted": (
        get((b"te", b"trailers")),
        plain(_CHUNKED, b"trailer: x", body=b"3\r\nabc\r\n0\r\nx: y\r\n\r\n"),
    ),
    "fields of the connection": (
        get(),
        plain(b"connection: keep-alive, x-hop", b"keep-alive: timeout=5", b"x-hop: 1", _LENGTH, body=b"abc"),
    ),
    "capitals": (get(), plain(b"X-Y: Z", b"Set-Cookie: a=1", b"Set-Cookie: b=2", _LENGTH, body=b"abc")),
    "upgrade offered": (get(), plain(b"connection: upgrade", b"upgrade: h2c", _LENGTH, body=b"abc")),
    "100 (Continue)": (get(), b"HTTP/1.1 100 Continue\r\n\r\n" + plain(_LENGTH, body=b"abc")),
    "100 (Continue), wanted": (
        post((b"expect", b"100-continue"), body=b"abc"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + plain(_LENGTH, body=b"abc"),
    ),
    "103 (Early Hints)": (
        get(),
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + plain(_LENGTH, body=b"abc"),
    ),
    "101 unasked": (get(), plain(b"connection: upgrade", b"upgrade: x", status=b"101 Switching Protocols")),
    "204": (get(), plain(status=b"204 No Content")),
    "304": (get(), plain(b"etag: x", b"content-length: 3", status=b"304 Not Modified")),
    "HEAD": (get(method=b"HEAD"), plain(_LENGTH)),
    "HEAD, chunked": (get(method=b"HEAD"), plain(_CHUNKED)),
    "500": (get(), plain(_LENGTH, body=b"abc", status=b"500 Oh")),
    "no body": (get(), plain(b"content-length: 0")),
    "garbage": (get(), b"garbage\r\n\r\n"),
    "a bad length": (get(), plain(b"content-length: x")),
    "bad chunks": (get(), plain(_CHUNKED, body=b"3\r\nabc\r\nzz\r\n")),
    "grpc trailers": (
        post((b"content-type", b"application/grpc"), (b"te", b"trailers"), body=b"\0\0\0\0\0"),
        plain(b"content-type: application/grpc", _CHUNKED, body=b"0\r\ngrpc-status: 0\r\n\r\n"),
    ),
}
_REQUEST = Got(b"\r\n\r\n")
_TO_H1_ENDS: Mapping[str, Script] = {
    "the end delimits": (_REQUEST, plain(body=b"abc"), Close()),
    "an end before the response": (_REQUEST, Close()),
    "a reset before the response": (_REQUEST, Reset()),
    "an end in the head": (_REQUEST, b"HTTP/1.1 200 OK\r\nx: ", Close()),
    "an end in the body": (_REQUEST, plain(b"content-length: 5", body=b"abc"), Close()),
    "an end in the chunks": (_REQUEST, plain(_CHUNKED, body=b"3\r\nabc\r\n"), Close()),
    "half an end in the body": (_REQUEST, plain(b"content-length: 5", body=b"abc"), Eof()),
    "100 (Continue) and an end": (_REQUEST, b"HTTP/1.1 100 Continue\r\n\r\n", Close()),
}
_ASKED = Until("end", 1)
_GET = get()
_PUSHED = frame(5, 0x4, 1, b"\0\0\0\x02") + ok()
_TO_H2: Mapping[str, tuple[bytes, bytes]] = {
    "a body": (_GET, ok()),
    "a length": (_GET, ok(1, (b"content-length", b"2"))),
    "no body": (_GET, head(1, b"200", end=True)),
    "an empty DATA": (_GET, head(1, b"200") + data(1, end=True)),
    "many empty DATA": (_GET, head(1, b"200") + data(1) * 20 + data(1, b"x", end=True)),
    "padding": (_GET, head(1, b"200") + frame(0, 0x8 | 0x1, 1, b"\x0aabc" + b"\0" * 10)),
    "trailers": (_GET, head(1, b"200") + data(1, b"abc") + trailers(1, (b"x-t", b"1"))),
    "trailers alone": (_GET, head(1, b"200") + trailers(1, (b"x-t", b"1"))),
    "repeated fields": (
        _GET,
        ok(1, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x", b"1"), (b"x", b"2")),
    ),
    "100 (Continue)": (_GET, head(1, b"100") + ok()),
    "100 (Continue), wanted": (post((b"expect", b"100-continue"), body=b"abc"), head(1, b"100") + ok()),
    "103 (Early Hints)": (_GET, head(1, b"103", (b"link", b"</x>")) + ok()),
    "101": (_GET, head(1, b"101") + ok()),
    "1xx that ends": (_GET, head(1, b"100", end=True)),
    "204": (_GET, head(1, b"204", end=True)),
    "204 with a body": (_GET, head(1, b"204") + data(1, b"abc", end=True)),
    "304 with a length": (_GET, head(1, b"304", (b"content-length", b"3"), end=True)),
    "HEAD": (get(method=b"HEAD"), head(1, b"200", (b"content-length", b"3"), end=True)),
    "HEAD, with a body": (get(method=b"HEAD"), head(1, b"200") + data(1, b"abc", end=True)),
    "500": (_GET, head(1, b"500", end=True)),
    "no :status": (_GET, headers(1, ((b"x", b"y"),))),
    "a :status that is none": (_GET, head(1, b"abc", end=True)),
    "a :status of two digits": (_GET, head(1, b"20", end=True)),
    "a :status of four digits": (_GET, head(1, b"2000", end=True)),
    "two :status": (_GET, headers(1, ((b":status", b"200"), (b":status", b"200")))),
    "a request's pseudo-field": (_GET, headers(1, ((b":status", b"200"), (b":path", b"/")))),
    "a pseudo-field after a field": (_GET, headers(1, ((b"x", b"y"), (b":status", b"200")))),
    "capitals": (_GET, head(1, b"200", (b"X-Y", b"z"), end=True)),
    "connection": (_GET, head(1, b"200", (b"connection", b"close"), end=True)),
    "transfer-encoding": (
        _GET,
        head(1, b"200", (b"transfer-encoding", b"chunked")) + data(1, b"a", end=True),
    ),
    "CR LF in a value": (_GET, head(1, b"200", (b"x", b"a\r\nb: c"), end=True)),
    "a shorter body": (_GET, head(1, b"200", (b"content-length", b"5")) + data(1, b"abc", end=True)),
    "a longer body": (_GET, head(1, b"200", (b"content-length", b"2")) + data(1, b"abc", end=True)),
    "two field blocks": (_GET, head(1, b"200") + head(1, b"200", end=True)),
    "trailers that do not end": (
        _GET,
        head(1, b"200") + data(1, b"a") + headers(1, ((b"x", b"y"),), end=False),
    ),
    "a pseudo-field in trailers": (_GET, head(1, b"200") + data(1, b"a") + trailers(1, (b":status", b"200"))),
    "DATA before HEADERS": (_GET, data(1, b"abc", end=True)),
    "DATA on a stream that is not there": (_GET, data(3, b"abc", end=True) + ok()),
    "HEADERS on a stream that is not there": (_GET, head(3, b"200", end=True) + ok()),
    "a stream of the server": (_GET, head(2, b"200", end=True) + ok()),
    "frames of an unknown kind": (_GET, frame(0xEE, 0, 1, b"abc") + ok()),
    "ORIGIN and ALTSVC": (_GET, frame(0xC, 0, 0, b"") + frame(0xA, 0, 0, b"\0\x01hx") + ok()),
    "trailers-only of gRPC": (
        post((b"content-type", b"application/grpc"), (b"te", b"trailers"), body=b"\0\0\0\0\0"),
        head(1, b"200", (b"content-type", b"application/grpc"), (b"grpc-status", b"5"), end=True),
    ),
    "reset NO_ERROR after the response": (_GET, ok() + rst(1, 0)),
    "reset before the response": (_GET, rst(1, 2)),
    "reset CANCEL before the response": (_GET, rst(1, 8)),
    "reset REFUSED_STREAM before the response": (_GET, rst(1, 7)),
    "reset in the body": (_GET, head(1, b"200") + data(1, b"abc") + rst(1, 2)),
    "reset NO_ERROR in the body": (_GET, head(1, b"200") + data(1, b"abc") + rst(1, 0)),
}
_EARLY = head(1, b"413", (b"content-length", b"0"), end=True)
_SLOW = post((b"content-length", b"10")) + data(1, b"abc")

CASES = [
    *(
        Case(f"from h1: {name}", asks(sent), backend=((_REQUEST, answer),))
        for name, (sent, answer) in _TO_H1.items()
    ),
    *(Case(f"from h1: {name}", asks(_GET), backend=(script,)) for name, script in _TO_H1_ENDS.items()),
    *(
        Case(f"from h2: {name}", asks(sent), backend=((_ASKED, answer),), setup=H2)
        for name, (sent, answer) in _TO_H2.items()
    ),
    *(
        Case(f"from h2: {name}, only the stream is reset", asks(sent), backend=((_ASKED, answer),), setup=Setup(
            "h2", upstream_http2={"override_stream_error_on_invalid_http_message": True}))
        for name, (sent, answer) in _TO_H2.items()
        if name in ("capitals", "no :status", "a shorter body", "connection")
    ),
    Case("from h2: an end before the response", asks(_GET), backend=((_ASKED, Close()),), setup=H2),
    Case("from h2: an end in the body", asks(_GET), setup=H2,
         backend=((_ASKED, head(1, b"200") + data(1, b"abc"), Close()),)),
    Case("from h2: HTTP/1.1 where HTTP/2 is meant", asks(_GET), setup=H2,
         backend=((_ASKED, plain(_LENGTH, body=b"abc")),)),
    # Whether it may push depends on whether it has acknowledged SETTINGS.
    Case("from h2: PUSH_PROMISE", asks(_GET), setup=H2, backend=((Deaf(), _ASKED, _PUSHED),)),
    Case("from h2: PUSH_PROMISE, which it has agreed not to send", asks(_GET), setup=H2,
         backend=((_ASKED, ping(), Until("ping-ack"), _PUSHED),)),
    Case("early: h1 answers before the request ends", (_SLOW, Until("end", 1)),
         backend=((Got(b"abc"), plain(b"content-length: 0", status=b"413 X")),)),
    Case("early: h1 answers and closes", (_SLOW, Until("end", 1)),
         backend=((Got(b"abc"), plain(b"content-length: 0", b"connection: close", status=b"413 X"), Close()),)),
    Case("early: h2 answers before the request ends", (_SLOW, Until("end", 1)), setup=H2,
         backend=((Until("data", 1, 3), _EARLY),)),
    Case("early: h2 answers and resets NO_ERROR", (_SLOW, Until("end", 1)), setup=H2,
         backend=((Until("data", 1, 3), _EARLY + rst(1, 0)),)),
    Case("early: the head, then the rest of both", (_SLOW, Until("head", 1), data(1, b"defghij", end=True),
         Until("end", 1)), setup=H2,
         backend=((Until("data", 1, 3), head(1, b"200"), Until("end", 1), data(1, b"x", end=True)),)),
    Case("early: a direct response before the request ends", (post(path=b"/direct") + data(1, b"abc"),
         Until("end", 1))),
    Case("two requests, answered in the other order", (get() + get(stream=3), Until("end", 1), Until("end", 3)),
         setup=H2, backend=((Until("end", 3), ok(3, body=b"three") + ok(1, body=b"one")),)),
    Case("a response after a response", (get(), Until("end", 1), get(stream=3), Until("end", 3)), setup=H2),
    Case("two requests to h1 at a time", (get() + get(stream=3), Until("end", 1), Until("end", 3))),
    Case("1 MB from h1", asks(_GET), backend=((_REQUEST, plain(b"content-length: 1000000", body=b"x" * 1_000_000)),)),
    Case("1 MB from h2", asks(_GET), setup=H2, backend=((_ASKED, head(1, b"200"), Paced(1, b"x" * 1_000_000)),)),
    Case("1 MB to h1", (post(), Paced(1, b"x" * 1_000_000), Until("end", 1))),
    Case("1 MB to h2", (post(), Paced(1, b"x" * 1_000_000), Until("end", 1)), setup=H2,
         backend_hello=None),
    Case("the client resets before the response", (get(), Heed("asked"), rst(1)), setup=H2,
         backend=((Until("end", 1), Say("asked"), Until("rst", 1)),)),
    Case("fields too large from h2", asks(_GET), setup=Setup("h2", upstream_common={
        "max_response_headers_kb": 1}), backend=((_ASKED, head(1, b"200", (b"x", b"y" * 2000), end=True)),)),
    Case("too many fields from h2", asks(_GET), setup=Setup("h2", upstream_common={"max_headers_count": 5}),
         backend=((_ASKED, head(1, b"200", *((b"x", b"y"),) * 6, end=True)),)),
]  # fmt: skip
