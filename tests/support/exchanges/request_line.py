"""Request lines: methods, targets, versions, what separates them, what stands before them."""

from __future__ import annotations

from tests.support.exchanges.build import get, message, short
from tests.support.raw_exchange import Case

_HOST = b"host: h"

METHODS = tuple(
    Case(f"method {short(method)}", message(method + b" / HTTP/1.1", _HOST))
    for method in (
        b"GET", b"DELETE", b"OPTIONS", b"PATCH", b"PUT", b"POST", b"TRACE", b"PROPFIND", b"get", b"Get", b"X",
        b"M-SEARCH", b"BASELINE-CONTROL", b"!#$%&'*+-.^_`|~", b"G(T", b"G,T", b"G\x00T", b"G\xe9T", b"G@T",
        b"\"GET\"",
        b"", b"PRI", b"A" * 64, b"QUERY", b"LOCK", b"REPORT", b"UNKNOWN", b"GET:", b"G/T",
        b"ACL", b"BIND", b"CHECKOUT", b"COPY", b"LINK", b"MERGE", b"MKACTIVITY", b"MKCALENDAR", b"MKCOL", b"MOVE",
        b"MSEARCH", b"NOTIFY",
        b"PROPPATCH", b"PURGE", b"REBIND", b"SEARCH", b"SOURCE", b"SUBSCRIBE", b"UNBIND", b"UNLINK", b"UNLOCK",
        b"UNSUBSCRIBE",
        b"HEADER", b"GETS", b"GE", b"UPDATE", b"VERSION-CONTROL", b"ORDERPATCH", b"ACLS",
    )
)  # fmt: skip
TARGETS = tuple(
    Case(f"target {short(target)}", message(b"GET " + target + b" HTTP/1.1", _HOST))
    for target in (
        b"/", b"/a/b?c=d", b"//", b"/%", b"/%00", b"/%zz", b"/a%20b", b"/?", b"/?a?b", b"/#f", b"/a?b#c", b"*", b"a",
        b"a/b", b"h", b"h:80", b"?a", b"#", b"/\"", b"/<>", b"/\\", b"/^`{|}", b"/\x7f", b"/\x00", b"/\x01",
        b"/\xc3\xa9", b"/a\tb", b"/" + b"a" * 8000, b"http://h/", b"http://h", b"http://other/a?b", b"https://h/",
        b"HTTP://h/", b"ftp://h/", b"ws://h/", b"http:/h/", b"http:///", b"http://", b"http://?a", b"http://h?a=b",
        b"http://h#f", b"http://h/#f", b"http://user@h/", b"http://user:pw@h/", b"http://h:80/", b"http://h:/",
        b"http://h:x/", b"http://h:99999/", b"http://[::1]/", b"http://[::1]:80/", b"http://[::1/", b"http://h h/",
        b"http://h\\evil/", b"http://h/../x", b"http://H.Example./", b"http://%68/", b"//h/x", b"/http://h/", b"h/x",
        b"://h/", b"1http://h/", b"http+x://h/", b"/;a=b", b"/..", b"/a/../b", b"/./a", b"/a//b", b"/%2e%2e/a",
        b"/a%2fb", b"/a%5cb", b"/a\\b", b"/a%23b", b"/a%3fb",
    )
)  # fmt: skip
VERSIONS = tuple(
    Case(f"version {short(version)}", message(b"GET / " + version, _HOST))
    for version in (
        b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/1", b"HTTP/11",
        b"HTTP/1.10",
        b"HTTP/01.1", b"HTTP/1.1x", b"http/1.1", b"Http/1.1", b"HTTP /1.1", b"HTTP/ 1.1", b"HTTP/1,1", b"HTTP/a.b",
        b"HTP/1.1", b"ICE/1.1", b"RTSP/1.0", b"HTTP/9.9", b"HTTP/+1.1", b"HTTP/1.\xb2", b"",
    )
)  # fmt: skip
OLD_VERSIONS = tuple(
    Case(
        f"version {short(version)} with HTTP/1.0 allowed",
        message(b"GET / " + version, _HOST),
        config="http10",
    )
    for version in (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"")
)
CUSTOM = tuple(
    Case(
        f"method {short(method)} where any is allowed",
        message(method + b" / HTTP/1.1", _HOST),
        config="methods",
    )
    for method in (
        b"GET",
        b"get",
        b"X",
        b"M-SEARCH",
        b"!#$%&'*+-.^_`|~",
        b"G(T",
        b"G,T",
        b"PRI",
        b"A" * 64,
        b"",
    )
)
SEPARATORS = tuple(
    Case(f"request line {short(line)}", message(line, _HOST))
    for line in (
        b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET\t/\tHTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1",
        b" GET / HTTP/1.1", b"\tGET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/1.1\t", b"GET / a HTTP/1.1",
        b"GET /",
        b"GET", b"GET / ", b"GET\x0b/ HTTP/1.1", b"GET\x0c/ HTTP/1.1", b"GET\x00/ HTTP/1.1", b"GET\xa0/ HTTP/1.1",
        b"GET / HTTP/1.1\r", b"GET\r/ HTTP/1.1", b"GET /\r HTTP/1.1", b"GET / HTTP/1.1\x00", b"\x00GET / HTTP/1.1",
        b"\xef\xbb\xbfGET / HTTP/1.1", b"GET / HTTP/1.1 HTTP/1.1",
    )
)  # fmt: skip
LINE_ENDS = (
    Case("head with LF only", b"GET / HTTP/1.1\nhost: h\n\n"),
    Case("request line ends in LF", b"GET / HTTP/1.1\nhost: h\r\n\r\n"),
    Case("request line ends in CR", b"GET / HTTP/1.1\rhost: h\r\n\r\n"),
    Case("field ends in LF", b"GET / HTTP/1.1\r\nhost: h\nx: y\r\n\r\n"),
    Case("head ends in CRLF LF", b"GET / HTTP/1.1\r\nhost: h\r\n\n"),
    Case("head ends in LF CRLF", b"GET / HTTP/1.1\r\nhost: h\n\r\n"),
    Case(
        "head ends in LF CRLF with a smuggled one", b"GET / HTTP/1.1\r\nhost: h\n\r\n" + get(target=b"/two")
    ),
    Case("field ends in CR CR LF", b"GET / HTTP/1.1\r\nhost: h\r\r\n\r\n"),
    Case("CR in a value", b"GET / HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n"),
    Case("CR at the start of a value", b"GET / HTTP/1.1\r\nhost: h\r\nx: \ry\r\n\r\n"),
    Case("LF CR ends lines", b"GET / HTTP/1.1\n\rhost: h\n\r\n\r"),
    Case("one empty line first", b"\r\n" + get()),
    Case("two empty lines first", b"\r\n\r\n" + get()),
    Case("many empty lines first", b"\r\n" * 20 + get()),
    Case("LF first", b"\n" + get()),
    Case("two LF first", b"\n\n" + get()),
    Case("CR first", b"\r" + get()),
    Case("CR CR LF first", b"\r\r\n" + get()),
    Case("space first", b" \r\n" + get()),
    Case("empty line between requests", (get() + b"\r\n" + get(target=b"/two")), finals=2),
    Case("two empty lines between requests", (get() + b"\r\n\r\n" + get(target=b"/two")), finals=2),
    Case("LF between requests", (get() + b"\n" + get(target=b"/two")), finals=2),
    Case("only an empty line, then the end", b"\r\n", end="eof"),
    Case("nothing at all", b"", end="eof"),
    Case("half a method", b"GE", end="eof"),
    Case("half a request line", b"GET / HTT", end="eof"),
    Case("half a head", b"GET / HTTP/1.1\r\nhost: h\r\n", end="eof"),
    Case("a head without its last LF", b"GET / HTTP/1.1\r\nhost: h\r\n\r", end="eof"),
    Case("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(32) + b"\r\n\r\n"),
    Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Case("a response as a request", b"HTTP/1.1 200 OK\r\n\r\n"),
    Case("HTTP/0.9", b"GET /\r\n"),
    Case("binary", bytes(range(128, 256)) + b"\r\n\r\n"),
    Case("PROXY line", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get()),
)
OPTIONS = (
    Case("OPTIONS *", message(b"OPTIONS * HTTP/1.1", _HOST)),
    Case("OPTIONS * without host", message(b"OPTIONS * HTTP/1.1")),
    Case("OPTIONS absolute", message(b"OPTIONS http://h HTTP/1.1", _HOST)),
    Case("CONNECT authority", message(b"CONNECT h:80 HTTP/1.1", _HOST)),
    Case("CONNECT authority alone", message(b"CONNECT h HTTP/1.1", _HOST)),
    Case("CONNECT path", message(b"CONNECT / HTTP/1.1", _HOST)),
    Case("CONNECT absolute", message(b"CONNECT http://h/ HTTP/1.1", _HOST)),
    Case("CONNECT without host", message(b"CONNECT h:80 HTTP/1.1")),
    Case("CONNECT with a body", message(b"CONNECT h:80 HTTP/1.1", _HOST, b"content-length: 3", body=b"abc")),
    Case("CONNECT chunked", message(b"CONNECT h:80 HTTP/1.1", _HOST, b"transfer-encoding: chunked")),
    Case("CONNECT and bytes", message(b"CONNECT h:80 HTTP/1.1", _HOST, body=b"early bytes")),
    Case("CONNECT bad port", message(b"CONNECT h:port HTTP/1.1", _HOST)),
    Case("CONNECT userinfo", message(b"CONNECT u@h:80 HTTP/1.1", _HOST)),
    Case("TRACE with a body", message(b"TRACE / HTTP/1.1", _HOST, b"content-length: 3", body=b"abc")),
    Case("GET with a body", message(b"GET / HTTP/1.1", _HOST, b"content-length: 3", body=b"abc")),
)

CASES = METHODS + CUSTOM + TARGETS + VERSIONS + OLD_VERSIONS + SEPARATORS + LINE_ENDS + OPTIONS
