"""Requests' field blocks: what is refused, and how the rest reaches a backend of HTTP/1.1 and of HTTP/2."""

from __future__ import annotations

from tests.support.h2_arena import Case
from tests.support.h2_document import H1, H2, Setup
from tests.support.h2_exchanges.build import Field, asks, fields, get, post, trailers
from tests.support.h2_frames import data, headers

_BOTH = {"h1": H1, "h2": H2}
_WEBSOCKET = {"upgrade_configs": [{"upgrade_type": "websocket"}]}

_FINE: dict[str, bytes] = {
    "one field": get((b"x", b"y")),
    "a repeated field": get((b"x", b"1"), (b"x", b"2")),
    "an empty value": get((b"x", b"")),
    "a value with high bytes": get((b"x", b"\xc3\xa9\xff")),
    "blanks around a value": get((b"x", b" y ")),
    "a tab in a value": get((b"x", b"a\tb")),
    "cookie crumbs": get((b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"cookie", b"c=3")),
    "cookie crumbs apart": get((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")),
    "one cookie": get((b"cookie", b"a=1; b=2")),
    "host and no :authority": get((b"host", b"i"), authority=None),
    "neither host nor :authority": get(authority=None),
    "host as :authority": get((b"host", b"h")),
    "host unlike :authority": get((b"host", b"i")),
    "host twice": get((b"host", b"h"), (b"host", b"i")),
    "an empty :authority": get(authority=b""),
    "an :authority with a port": get(authority=b"h:8080"),
    "an :authority in capitals": get(authority=b"H.Example"),
    "an :authority with user information": get(authority=b"u:p@h"),
    "an :authority with a slash": get(authority=b"h/x"),
    "an :authority with a blank": get(authority=b"h i"),
    "an IPv6 :authority": get(authority=b"[::1]:80"),
    "te: trailers": get((b"te", b"trailers")),
    "te: gzip": get((b"te", b"gzip")),
    "te: trailers, gzip": get((b"te", b"trailers, gzip")),
    "te twice": get((b"te", b"trailers"), (b"te", b"trailers")),
    "TE of other case": get((b"te", b"Trailers")),
    "scheme https": get(scheme=b"https"),
    "scheme ftp": get(scheme=b"ftp"),
    "scheme in capitals": get(scheme=b"HTTP"),
    "an empty scheme": get(scheme=b""),
    "a scheme that is none": get(scheme=b"ht tp"),
    "no scheme": get(scheme=None),
    "no path": get(path=None),
    "an empty path": get(path=b""),
    "a path without a slash": get(path=b"x"),
    "a path with a query": get(path=b"/a?b=c&d"),
    "a path with a fragment": get(path=b"/a#b"),
    "a path of *": get(path=b"*"),
    "OPTIONS *": get(method=b"OPTIONS", path=b"*"),
    "an absolute path": get(path=b"http://other/x"),
    "a path with a blank": get(path=b"/a b"),
    "a path with a tab": get(path=b"/a\tb"),
    "a path with high bytes": get(path=b"/\xc3\xa9"),
    "a path with dots": get(path=b"/a/../b"),
    "a path with a backslash": get(path=b"/a\\b"),
    "a path of two slashes": get(path=b"//x"),
    "a long path": get(path=b"/" + b"x" * 8000),
    "method of one's own": get(method=b"PURGE"),
    "method in small letters": get(method=b"get"),
    "an empty method": get(method=b""),
    "a method with a blank": get(method=b"GE T"),
    "no method": get(method=None),
    "HEAD": get(method=b"HEAD"),
    "DELETE": get(method=b"DELETE"),
    "TRACE": get(method=b"TRACE"),
    "PATCH with a body": post(method=b"PATCH", body=b"abc"),
    "expect": post((b"expect", b"100-continue"), body=b"abc"),
    "a content-length": post((b"content-length", b"3"), body=b"abc"),
    "no content-length": post(body=b"abc"),
    "an empty body": post(body=b""),
    "content-length: 0": headers(1, fields((b"content-length", b"0"), method=b"POST")),
    "POST without a body": headers(1, fields(method=b"POST")),
    "GET with a body": post(method=b"GET", body=b"abc"),
    "GET with a content-length": post((b"content-length", b"3"), method=b"GET", body=b"abc"),
    "proxy-authorization": get((b"proxy-authorization", b"x")),
    "x-forwarded-for": get((b"x-forwarded-for", b"1.2.3.4")),
    "x-forwarded-proto": get((b"x-forwarded-proto", b"https")),
    "x-envoy-retry-on": get((b"x-envoy-retry-on", b"5xx")),
    "via": get((b"via", b"2 x")),
    "x-request-id": get((b"x-request-id", b"abc")),
    "grpc": post((b"content-type", b"application/grpc"), (b"te", b"trailers"), body=b"\0\0\0\0\0"),
    "priority field": get((b"priority", b"u=1, i")),
    "trailers": post() + data(1, b"abc") + trailers(1, (b"x-t", b"1"), (b"x-u", b"2")),
    "trailers after nothing": post() + trailers(1, (b"x-t", b"1")),
    "trailers with a length": post((b"content-length", b"3")) + data(1, b"abc") + trailers(1, (b"x-t", b"1")),
    "trailers that no trailer may be": post()
    + data(1, b"a")
    + trailers(1, (b"content-length", b"1"), (b"host", b"i")),
    "underscores": get((b"x_y", b"1")),
    "a field block in CONTINUATION": headers(1, fields((b"x", b"y" * 100)), split=10),
    "a name of digits and signs": get((b"0-!#$%&'*+.^`|~", b"1")),
}
_REFUSED: dict[str, bytes] = {
    "capitals in a name": get((b"X-Y", b"1")),
    "an empty name": get((b"", b"1")),
    "a blank in a name": get((b"x y", b"1")),
    "a colon in a name": get((b"x:y", b"1")),
    "a control byte in a name": get((b"x\x01", b"1")),
    "a high byte in a name": get((b"x\xe9", b"1")),
    "CR LF in a value": get((b"x", b"a\r\nb: c")),
    "LF in a value": get((b"x", b"a\nb")),
    "CR in a value": get((b"x", b"a\rb")),
    "NUL in a value": get((b"x", b"a\0b")),
    "a control byte in a value": get((b"x", b"a\x01b")),
    "DEL in a value": get((b"x", b"a\x7fb")),
    "CR LF in :path": get(path=b"/ HTTP/1.1\r\nx: y\r\n\r\nGET /"),
    "CR LF in :authority": get(authority=b"h\r\nx: y"),
    "CR LF in :method": get(method=b"GET / HTTP/1.1\r\nhost: i\r\n\r\nGET"),
    "NUL in :path": get(path=b"/\0"),
    "connection": get((b"connection", b"close")),
    "connection: upgrade": get((b"connection", b"upgrade"), (b"upgrade", b"websocket")),
    "keep-alive": get((b"keep-alive", b"timeout=5")),
    "proxy-connection": get((b"proxy-connection", b"close")),
    "transfer-encoding": post((b"transfer-encoding", b"chunked"), body=b"0\r\n\r\n"),
    "transfer-encoding: identity": get((b"transfer-encoding", b"identity")),
    "upgrade": get((b"upgrade", b"h2c")),
    "http2-settings": get((b"http2-settings", b"AAMAAABk")),
    "two methods": headers(1, (*fields(), (b":method", b"GET"))),
    "two paths": headers(1, ((b":path", b"/x"), *fields())),
    "two schemes": headers(1, ((b":scheme", b"http"), *fields())),
    "two authorities": headers(1, ((b":authority", b"i"), *fields())),
    "an unknown pseudo-field": headers(1, ((b":x", b"y"), *fields())),
    ":status in a request": headers(1, ((b":status", b"200"), *fields())),
    "a pseudo-field after a field": headers(1, ((b"x", b"y"), *fields())),
    ":protocol, nothing allowed": headers(1, ((b":protocol", b"websocket"), *fields(method=b"CONNECT"))),
    ":protocol on GET": headers(1, ((b":protocol", b"websocket"), *fields())),
    "an empty field block": headers(1, ()),
    "a shorter body": post((b"content-length", b"5"), body=b"abc"),
    "a longer body": post((b"content-length", b"2"), body=b"abc"),
    "a body where none is announced": post((b"content-length", b"0"), body=b"abc"),
    "a length and no body": headers(1, fields((b"content-length", b"3"), method=b"POST")),
    "a shorter body and trailers": post((b"content-length", b"5"))
    + data(1, b"abc")
    + trailers(1, (b"x", b"y")),
    "two lengths alike": post((b"content-length", b"3"), (b"content-length", b"3"), body=b"abc"),
    "two lengths": post((b"content-length", b"3"), (b"content-length", b"4"), body=b"abc"),
    "a length that is none": post((b"content-length", b"x"), body=b"abc"),
    "a length with a sign": post((b"content-length", b"+3"), body=b"abc"),
    "a list of lengths": post((b"content-length", b"3, 3"), body=b"abc"),
    "a length too large": post((b"content-length", b"99999999999999999999"), body=b"abc"),
    "a pseudo-field in trailers": post() + data(1, b"a") + trailers(1, (b":path", b"/")),
    "capitals in trailers": post() + data(1, b"a") + trailers(1, (b"X", b"y")),
    "connection in trailers": post() + data(1, b"a") + trailers(1, (b"connection", b"close")),
    "CR LF in trailers": post() + data(1, b"a") + trailers(1, (b"x", b"a\r\nb")),
    "field blocks after the body that do not end": post()
    + data(1, b"a")
    + headers(1, ((b"x", b"y"),), end=False),
}


def _limit(count: int, size: int) -> bytes:
    return get(*((b"x%d" % number, b"y" * size) for number in range(count)))


_FEW: dict[str, object] = {
    "max_request_headers_kb": 2,
    "common_http_protocol_options": {"max_headers_count": 10},
}
_CONNECT: Field = (b":protocol", b"websocket")

CASES = [
    *(
        Case(f"{name} to {kind}", asks(sent), setup=setup)
        for name, sent in _FINE.items()
        for kind, setup in _BOTH.items()
    ),
    *(Case(name, asks(sent), setup=H2) for name, sent in _REFUSED.items()),
    *(
        Case(f"{name}, only the stream is reset", asks(sent), setup=Setup("h2", http2={
            "override_stream_error_on_invalid_http_message": True}))
        for name, sent in _REFUSED.items()
        if name in ("capitals in a name", "connection", "two paths", "a shorter body", "CR LF in a value", "no path")
    ),
    Case("too many fields", asks(_limit(11, 1)), setup=Setup(manager=_FEW)),
    Case("as many fields as may be", asks(_limit(6, 1)), setup=Setup(manager=_FEW)),
    Case("fields too large", asks(_limit(4, 600)), setup=Setup(manager=_FEW)),
    Case("one field too large", asks(_limit(1, 70_000))),
    Case("underscores refused", asks(get((b"x_y", b"1"))), setup=Setup("h2", manager={
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}})),
    Case("underscores dropped", asks(get((b"x_y", b"1"))), setup=Setup("h2", manager={
        "common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}})),
    Case("a path made canonical", asks(get(path=b"/a/../b//c%2e")), setup=Setup("h2", manager={
        "normalize_path": True, "merge_slashes": True})),
    Case("a direct response", asks(get(path=b"/direct"))),
    Case("a direct response to HEAD", asks(get(path=b"/direct", method=b"HEAD"))),
    Case("no route", asks(get(path=b"/x")), setup=Setup(match={"prefix": "/y"})),
    Case("no route, a body", asks(post(path=b"/x", body=b"abc")), setup=Setup(match={"prefix": "/y"})),
    Case("CONNECT, no route", asks(headers(1, ((b":method", b"CONNECT"), (b":authority", b"h:80"))))),
    Case("CONNECT with a path", asks(headers(1, fields(method=b"CONNECT"))), setup=H2),
    Case("CONNECT without :authority", asks(headers(1, ((b":method", b"CONNECT"),))), setup=H2),
]  # fmt: skip
