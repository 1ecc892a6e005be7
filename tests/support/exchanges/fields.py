"""Header fields: their syntax, those that are about one connection, hosts."""

from __future__ import annotations

from tests.support.exchanges.build import GET, get, message, ok, says, short
from tests.support.raw_exchange import Case

_HOST = b"host: h"

SYNTAX = tuple(
    Case(f"field {short(line)}", get(line))
    for line in (
        b"x: y", b"x:y", b"x:  y  ", b"x:\ty\t", b"x: ", b"x:", b"X-Upper: Y", b"x : y", b"x\t: y", b" x: y",
        b"\tx: y",
        b": y", b":", b"x", b"x y: z", b"x=y", b":method: POST", b":path: /evil", b":authority: evil",
        b"x\x00: y", b"x: \x00", b"x: a\x00b", b"x: a\x01b", b"x: a\x08b", b"x: a\tb", b"x: a\x0bb", b"x: a\x0cb",
        b"x: a\x1bb", b"x: a\x7fb", b"x: a\x80b", b"x: a\xffb", b"x: \xc3\xa9", b"x\x01: y", b"x\x7f: y", b"x\x80: y",
        b"x\xc3\xa9: y", b"x(: y", b"x): y", b"x,: y", b"x/: y", b"x;: y", b"x<: y", b"x=: y", b"x?: y", b"x@: y",
        b"x[: y",
        b"x\\: y", b"x]: y", b"x{: y", b"x}: y", b"x\": y", b"x#: y", b"x!$%&'*+-.^_`|~: y", b"x_y: z", b"_: y",
        b"x-y_z: a",
        b"x: \"quoted\"", b"x: a:b", b"x:: y", b"1: y", b"x\xa0: y", b"x: y\xa0", b"\xa0x: y", b"x\x0b: y",
        b"x\x0c: y",
        b"content-type: text/plain", b"x-envoy-foo: y", b"x-forwarded-for: 1.2.3.4", b"x-request-id: abc",
        b"x-forwarded-proto: https", b"x-forwarded-proto: ftp", b"x-forwarded-host: evil", b"forwarded: for=1.2.3.4",
        b"te: trailers", b"te: gzip", b"te: trailers, gzip", b"te: gzip;q=0.5, trailers", b"te:", b"via: 1.1 x",
        b"server: x", b"date: x",
        b"cookie: a=b; c=d", b"authorization: Basic x", b"max-forwards: 0", b"accept-encoding: gzip",
        b"user-agent: x", b"referer: x", b"origin: x", b"early-data: 1", b"range: bytes=0-1", b"if-none-match: x",
        b"http2-settings: AAMAAABkAAQAAP__", b"proxy-authorization: x", b"proxy-authenticate: x",
    )
)  # fmt: skip
FOLDED = (
    Case("folded with a space", get(b"x: y", b" z")),
    Case("folded with a tab", get(b"x: y", b"\tz")),
    Case("folded first line", message(GET, b" x: y", _HOST)),
    Case("folded blank line", get(b"x: y", b" ")),
    Case("folded content-length", get(b"content-length:", b" 3") + b"abc"),
    Case("folded transfer-encoding", get(b"transfer-encoding:", b" chunked") + b"0\r\n\r\n"),
    Case("folded host", message(GET, b"host: h", b" evil")),
    Case("folded and LF", b"GET / HTTP/1.1\r\nhost: h\r\nx: y\n z\r\n\r\n"),
)
REPEATED = tuple(
    Case(f"repeated {first!r} {second!r}", get(first, second))
    for first, second in (
        (b"x: a", b"x: b"), (b"x: a", b"X: b"), (b"cookie: a=b", b"cookie: c=d"), (b"host: h", b"host: i"),
        (b"user-agent: a", b"user-agent: b"), (b"x-request-id: a", b"x-request-id: b"), (b"x: a", b"x:"),
        (b"x-forwarded-for: 1.1.1.1", b"x-forwarded-for: 2.2.2.2"), (b"te: trailers", b"te: gzip"),
        (b"x-forwarded-proto: http", b"x-forwarded-proto: https"), (b"authorization: a", b"authorization: b"),
        (b"expect: 100-continue", b"expect: 100-continue"), (b"connection: close", b"connection: keep-alive"),
        (b"via: 1.1 a", b"via: 1.1 b"), (b"content-type: a/b", b"content-type: c/d"), (b"upgrade: a", b"upgrade: b"),
    )
)  # fmt: skip
HOP_BY_HOP = tuple(
    Case(f"connection {short(line)}", get(line, b"x-hop: 1", b"x-other: 2", b"cookie: a=b", b"x-request-id: i"))
    for line in (
        b"connection: keep-alive", b"connection: close", b"connection: Close", b"connection: x-hop",
        b"connection: X-Hop", b"connection: connection, x-hop", b"connection: te\r\nte: trailers",
        b"connection: te, x-hop\r\nte: gzip, trailers", b"connection: TE\r\nte: gzip",
        b"connection: x-hop, x-other", b"connection: close, x-hop", b"connection: x-missing", b"connection: cookie",
        b"connection: host", b"connection: x-request-id", b"connection: x-forwarded-for", b"connection: te",
        b"connection: content-length", b"connection: transfer-encoding", b"connection:", b"connection: ,",
        b"connection: ,close,",
        b"connection: a b", b"connection: \"close\"", b"connection: keep-alive, close", b"connection: :path",
        b"connection: x-forwarded-client-cert", b"connection: authorization", b"connection: x-forwarded-proto",
        b"keep-alive: timeout=5", b"proxy-connection: keep-alive", b"proxy-connection: close", b"trailer: x",
        b"connection: upgrade", b"upgrade: h2c", b"connection: " + b"a, " * 30 + b"b", b"connection: te, close",
        b"connection: a, b, c, d, e, f, g, h, i", b"connection: a, b, c, d, e, f, g, h, i, j",
        b"connection: a, b, c, d, e, f, g, h, i, j, k",
        b"connection: a,,,,,,,,,,,,", b"connection: x-forwarded-host", b"connection: X-Forwarded-For",
        b"connection: forwarded",
        b"connection: te, te", b"connection: keep-alive, a, b, c, d, e, f, g, h, i, j",
    )
)  # fmt: skip
HOSTS = (
    Case("no host", message(GET)),
    Case("no host in HTTP/1.0", message(b"GET / HTTP/1.0"), config="http10"),
    Case("no host but absolute-form", message(b"GET http://other/ HTTP/1.1")),
    Case("host differs from absolute-form", message(b"GET http://other/ HTTP/1.1", _HOST)),
    Case("empty host and absolute-form", message(b"GET http://other/ HTTP/1.1", b"host:")),
    Case("absolute-form with port", message(b"GET http://other:81/ HTTP/1.1", _HOST)),
    Case("host twice the same", message(GET, _HOST, _HOST)),
    Case("host twice", message(GET, _HOST, b"host: evil")),
    Case("host twice with absolute-form", message(b"GET http://other/ HTTP/1.1", _HOST, b"host: evil")),
    Case("host three times", message(GET, _HOST, b"Host: evil", b"HOST: h")),
    *(
        Case(f"host {short(value)}", message(GET, b"host: " + value))
        for value in (
            b"", b"h:80", b"h:", b"h:x", b"h:99999", b"H", b"h.", b"h,i", b"h i", b"h/i", b"h?i", b"h#i", b"h\\i",
            b"u@h",
            b"u:p@h", b"[::1]", b"[::1]:80", b"[::1", b"::1", b"[fe80::1%25eth0]", b"[fe80::1%eth0]", b"h%20i",
            b"%68",
            b"h\xc3\xa9", b"h\x80", b"h\ti", b"<h>", b"\"h\"", b"h^", b"h`", b"h{}", b"h|i", b"_h", b"-h", b"h..i",
            b".h",
            b"a" * 300, b"1.2.3.4", b"h;i", b"h=i", b"h&i", b"h'i", b"(h)", b"*", b"h!", b"$h", b"~h", b"h+i",
            b"h:80:80",
            b"http://h",
        )
    ),
)  # fmt: skip
LIMITS = (
    Case("as many fields as fit", get(*(b"x%d: y" % n for n in range(8))), config="limits"),
    Case("one field too many", get(*(b"x%d: y" % n for n in range(11))), config="limits"),
    Case("exactly the fields allowed", get(*(b"x%d: y" % n for n in range(9))), config="limits"),
    Case("one more than the fields allowed", get(*(b"x%d: y" % n for n in range(10))), config="limits"),
    Case("far too many fields", get(*(b"x%d: y" % n for n in range(60))), config="limits"),
    Case("a value that fits", get(b"x: " + b"a" * 1900), config="limits"),
    Case("a value that does not fit", get(b"x: " + b"a" * 2100), config="limits"),
    Case("a huge value", get(b"x: " + b"a" * 70000), config="limits"),
    Case("a huge name", get(b"x" * 2100 + b": a"), config="limits"),
    Case("a huge target", get(target=b"/" + b"a" * 2100), config="limits"),
    Case("a huge method", message(b"A" * 2100 + b" / HTTP/1.1", _HOST), config="limits"),
    Case("a huge version", message(b"GET / HTTP/" + b"1" * 2100, _HOST), config="limits"),
    Case("default: 100 fields", get(*(b"x%d: y" % n for n in range(99)))),
    Case("default: 101 fields", get(*(b"x%d: y" % n for n in range(100)))),
    Case("default: 58 KB", get(*(b"x%d: %b" % (n, b"a" * 1000) for n in range(58)))),
    Case("default: 64 KB", get(*(b"x%d: %b" % (n, b"a" * 1000) for n in range(64)))),
    Case("an unended head too large", b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"a" * 4000, config="limits"),
    Case("an unended line too large", b"A" * 4000, config="limits"),
    Case("a huge chunk extension", get(b"transfer-encoding: chunked") + b"1;" + b"a" * 20000 + b"\r\na\r\n0\r\n\r\n"),
)  # fmt: skip
EDGE = (
    Case(
        "edge: request id and address", get(b"x-request-id: mine", b"x-forwarded-for: 1.2.3.4"), config="edge"
    ),
    Case("edge: proto", get(b"x-forwarded-proto: https"), config="edge"),
    Case("edge: plain", get(), config="edge"),
    Case("edge: bad request", get(b"x : y"), config="edge"),
    Case("edge: envoy headers", get(b"x-envoy-retry-on: 5xx", b"x-envoy-internal: true"), config="edge"),
)
RESPONSE = tuple(
    Case(f"response field {short(line)}", get(), says(ok(b"content-length: 2", line, body=b"ok")))
    for line in (
        b"x: y", b"x:y", b"x:  y  ", b"X-Up: a", b"x: ", b"x:", b"x : y", b" x: y", b"\tx: y", b": y", b"x",
        b"x y: z",
        b"x: a\x00b", b"x: a\x01b", b"x: a\x7fb", b"x: a\x80b", b"x(: y", b"x\x00: y", b"x\xe9: y",
        b"connection: close",
        b"connection: keep-alive", b"connection: x-hop", b"keep-alive: timeout=5", b"proxy-connection: close",
        b"upgrade: h2c", b"te: x", b"server: backend", b"date: Thu, 01 Jan 1970 00:00:00 GMT", b"via: 1.1 x",
        b"x-envoy-upstream-service-time: 7", b"x-envoy-foo: y", b"x-request-id: theirs", b"trailer: x",
        b"alt-svc: h2",
        b"set-cookie: a=b", b"set-cookie: a=b\r\nset-cookie: c=d", b"x: a\r\nx: b", b"x: a\r\n b", b"x: a\nb: c",
        b"x: a\rb",
        b"x-envoy-overloaded: true", b"x-envoy-immediate-health-check-fail: true", b"proxy-authenticate: x",
        b":status: 500",
        b"connection: close, x-hop\r\nx-hop: 1", b"location: /x", b"www-authenticate: x", b"x: " + b"a" * 9000,
    )
)  # fmt: skip

CASES = SYNTAX + FOLDED + REPEATED + HOP_BY_HOP + HOSTS + LIMITS + EDGE + RESPONSE
