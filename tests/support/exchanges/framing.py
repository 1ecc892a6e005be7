"""How request bodies are delimited: Content-Length, Transfer-Encoding, chunks, and what contradicts itself."""

from __future__ import annotations

from tests.support.exchanges.build import chunked, get, message, ok, post, says, short
from tests.support.raw_exchange import Case

_HOST = b"host: h"
_SMUGGLED = get(target=b"/smuggled")

LENGTHS = tuple(
    Case(f"content-length {value!r}", post(b"content-length: " + value, body=b"abc"))
    for value in (
        b"3", b"03", b"0003", b"+3", b"-3", b"3.0", b"0x3", b"3 ", b"\t3", b"3, 3", b"3,3", b"3, 4", b"3;x", b"3 3",
        b"", b"x",
        b"\xb2", b"3\x00", b"1e1", b"99999999999999999999", b"18446744073709551616", b"18446744073709551619", b"_3",
        b"3_0",
        b"\"3\"", b"-0", b"3,", b",3", b"0b11",
    )
)  # fmt: skip
CONFLICTS = (
    Case("content-length twice the same", post(b"content-length: 3", b"content-length: 3", body=b"abc")),
    Case("content-length twice", post(b"content-length: 3", b"content-length: 4", body=b"abcd")),
    Case("content-length twice, first is 0", post(b"content-length: 0", b"content-length: 3", body=b"abc")),
    Case("content-length and chunked", post(b"content-length: 3", b"transfer-encoding: chunked", body=b"0\r\n\r\n")),
    Case("chunked and content-length", post(b"transfer-encoding: chunked", b"content-length: 3", body=b"0\r\n\r\n")),
    Case("content-length 0 and chunked", post(b"content-length: 0", b"transfer-encoding: chunked",
         body=b"0\r\n\r\n" + _SMUGGLED)),
    Case("bad content-length and chunked", post(b"content-length: x", b"transfer-encoding: chunked",
         body=b"0\r\n\r\n")),
    Case("content-length and identity", post(b"content-length: 3", b"transfer-encoding: identity", body=b"abc")),
    Case("content-length and gzip", post(b"content-length: 3", b"transfer-encoding: gzip", body=b"abc")),
    Case("chunked twice", post(b"transfer-encoding: chunked", b"transfer-encoding: chunked", body=b"0\r\n\r\n")),
    Case("chunked and identity lines", post(b"transfer-encoding: chunked", b"transfer-encoding: identity",
         body=b"0\r\n\r\n")),
    Case("identity and chunked lines", post(b"transfer-encoding: identity", b"transfer-encoding: chunked",
         body=b"0\r\n\r\n")),
    Case("content-length with a name in capitals", post(b"CONTENT-LENGTH: 3", body=b"abc")),
    Case("content-length and a folded one", post(b"content-length: 3", b" 4", body=b"abc")),
    Case("content-length with underscore", post(b"content_length: 3")),
    Case("transfer-encoding with underscore", post(b"transfer_encoding: chunked")),
    Case("content-length nominated away", post(b"connection: content-length", b"content-length: 3", body=b"abc")),
    Case("chunked nominated away", post(b"connection: transfer-encoding", b"transfer-encoding: chunked",
         body=b"0\r\n\r\n")),
    Case("HTTP/1.0 content-length", message(b"POST / HTTP/1.0", _HOST, b"content-length: 3", body=b"abc"),
         config="http10"),
    Case("HTTP/1.0 chunked", message(b"POST / HTTP/1.0", _HOST, b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
         config="http10"),
    Case("HTTP/1.0 chunked and content-length", message(b"POST / HTTP/1.0", _HOST, b"transfer-encoding: chunked",
         b"content-length: 3", body=b"0\r\n\r\n"), config="http10"),
    Case("HTTP/1.0 identity", message(b"POST / HTTP/1.0", _HOST, b"transfer-encoding: identity"), config="http10"),
    Case("HTTP/1.0 chunked refused version", message(b"POST / HTTP/1.0", _HOST, b"transfer-encoding: chunked",
         body=b"0\r\n\r\n")),
    Case("GET chunked", get(b"transfer-encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"),
    Case("GET content-length 0", get(b"content-length: 0")),
    Case("HEAD request with a body", message(b"HEAD / HTTP/1.1", _HOST, b"content-length: 3", body=b"abc"),
         heads=frozenset((0,))),
    Case("DELETE with a body", message(b"DELETE / HTTP/1.1", _HOST, b"content-length: 3", body=b"abc")),
    Case("POST without a body", post()),
    Case("more than content-length", post(b"content-length: 3", body=b"abcGARBAGE\r\n\r\n"), finals=2),
    Case("content-length hides a request", post(b"content-length: %d" % len(_SMUGGLED), body=_SMUGGLED)),
    Case("content-length shorter than the body is a request", post(b"content-length: 3", body=b"abc" + _SMUGGLED),
         finals=2),
)  # fmt: skip
ENCODINGS = tuple(
    Case(f"transfer-encoding {value!r}", post(b"transfer-encoding: " + value, body=b"3\r\nabc\r\n0\r\n\r\n"))
    for value in (
        b"chunked", b"Chunked", b"CHUNKED", b" chunked ", b"\tchunked", b"chunked,", b",chunked", b"chunked;",
        b"chunked;q=1",
        b"xchunked", b"chunkedx", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity",
        b"identity, chunked", b"chunked, identity", b"", b"\"chunked\"", b"chunked\x00", b"\x0bchunked",
        b"chunked\x0b",
        b"chunk", b"ch\xc3\xbcnked", b"deflate", b"compress", b"trailers", b"chunked chunked", b"'chunked'", b"cow",
    )
) + tuple(
    Case(f"transfer-encoding line {line!r}", post(line, body=b"3\r\nabc\r\n0\r\n\r\n"))
    for line in (
        b"transfer-encoding:chunked", b"Transfer-Encoding: chunked", b"transfer-encoding : chunked",
        b" transfer-encoding: chunked",
        b"transfer-encoding\t: chunked", b"x: y\r\n\ttransfer-encoding: chunked", b"transfer-encoding\x00: chunked",
        b"transfer-encoding:\x00chunked", b"x: y\ntransfer-encoding: chunked", b"x: y\rtransfer-encoding: chunked",
        b"\xa0transfer-encoding: chunked", b"transfer\xadencoding: chunked",
    )
)  # fmt: skip
CHUNKS = tuple(
    Case(f"chunks {short(body)}", chunked(body))
    for body in (
        b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n",
        b"A\r\n0123456789\r\n0\r\n\r\n", b"0a\r\n0123456789\r\n0\r\n\r\n", b"000000000003\r\nabc\r\n0\r\n\r\n",
        b"0" * 15 + b"3\r\nabc\r\n0\r\n\r\n", b"0" * 30 + b"3\r\nabc\r\n0\r\n\r\n", b"00\r\n\r\n", b"000\r\n\r\n",
        b"3;x=y\r\nabc\r\n0\r\n\r\n", b"3;x\r\nabc\r\n0;y=z\r\n\r\n", b"3 ;x\r\nabc\r\n0\r\n\r\n",
        b"3; x=\"a b\"\r\nabc\r\n0\r\n\r\n",
        b"3;\r\nabc\r\n0\r\n\r\n", b"3;;\r\nabc\r\n0\r\n\r\n", b"3;x=\x00\r\nabc\r\n0\r\n\r\n",
        b"3;x=\x7f\r\nabc\r\n0\r\n\r\n",
        b"3;x=\x80\r\nabc\r\n0\r\n\r\n", b"3;x\ny\r\nabc\r\n0\r\n\r\n", b"3;x\ry\r\nabc\r\n0\r\n\r\n",
        b"3;x=\x1b\r\nabc\r\n0\r\n\r\n",
        b"3;a\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n", b"3\t\r\nabc\r\n0\r\n\r\n", b" 3\r\nabc\r\n0\r\n\r\n", b"\t3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"g\r\nabc\r\n0\r\n\r\n", b"\r\nabc\r\n0\r\n\r\n",
        b"3x\r\nabc\r\n0\r\n\r\n",
        b"3_0\r\nabc\r\n0\r\n\r\n", b"3,\r\nabc\r\n0\r\n\r\n", b"\xb3\r\nabc\r\n0\r\n\r\n",
        b"3\x00\r\nabc\r\n0\r\n\r\n", b"3.0\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabc\r\n0\n\r\n", b"3\r\nabc\r\n0\r\n\n",
        b"3\nabc\n0\n\n", b"3\r\nabc\r0\r\n\r\n",
        b"3\rabc\r\n0\r\n\r\n", b"3\r\r\nabc\r\n0\r\n\r\n", b"3\n\rabc\r\n0\r\n\r\n", b"3\r\nabcX\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"3\r\nabcXX0\r\n\r\n", b"3\r\nabc\r\n\r\n0\r\n\r\n",
        b"3\r\nabc\r\n 0\r\n\r\n",
        b"10000000000000000\r\nabc\r\n0\r\n\r\n", b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFFFFFFFF\r\nabc",
    )
)  # fmt: skip
TRAILERS = tuple(
    Case(f"trailers {short(lines)}", chunked(b"3\r\nabc\r\n0\r\n" + lines + b"\r\n"))
    for lines in (
        b"x: y\r\n", b"x:y\r\n", b"x: y\r\nx: z\r\n", b"x : y\r\n", b" x: y\r\n", b": y\r\n", b"x\r\n",
        b"x: a\x00b\r\n", b"x: y\r\n z\r\n",
        b"x: y\n", b"x: a\rb\r\n", b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"host: evil\r\n",
        b"x-forwarded-client-cert: evil\r\n", b"authorization: x\r\n", b"connection: close\r\n", b"x\x80: y\r\n",
        b"x(: y\r\n",
        b"x: a\x7f\r\n", b"x: " + b"a" * 7000 + b"\r\n", b"x: y\r\n" * 99,
        b"x: y\r\n" * 120,
        b":path: /evil\r\n", b"GET /smuggled HTTP/1.1\r\n", b"x-envoy-retry-on: 5xx\r\n",
    )
)  # fmt: skip
AFTER = (
    Case("chunked, then another request", chunked(b"3\r\nabc\r\n0\r\n\r\n") + get(target=b"/two"), finals=2),
    Case("chunked with trailers, then another request", chunked(b"0\r\nx: y\r\n\r\n") + get(target=b"/two"),
         finals=2),
    Case("a damaged terminator, then a request", chunked(b"0\r\nX" + get(target=b"/two"))),
    Case("bytes between chunks", chunked(b"3\r\nabc\r\nJUNK3\r\nabc\r\n0\r\n\r\n")),
    Case("a chunked body in pieces", (chunked(b"3\r\nab"), b"c\r", b"\n0", b"\r\n\r\n")),
    Case("a body in pieces", (post(b"content-length: 6", body=b"a"), b"bc", b"def")),
    Case("a bad chunk after a good one", (chunked(b"3\r\nabc\r\n"), b"zz\r\n"), backend_saw=b"abc\r\n"),
    # In two pieces: what does not arrive in one read is refused after its head was passed on, or before.
    Case("a huge trailer", (chunked(b"3\r\nabc\r\n"), b"0\r\nx: " + b"a" * 70000 + b"\r\n\r\n"),
         backend_saw=b"abc\r\n"),
    Case("trailers beyond the limit", chunked(b"0\r\n" + b"x: aaaaaaaaaaaaaaaaaaaaa\r\n" * 99 + b"\r\n"),
         config="limits"),
    Case("extension beyond the limit", chunked(b"1;" + b"a" * 3000 + b"\r\na\r\n0\r\n\r\n"), config="limits"),
    Case("a body cut off", post(b"content-length: 10", body=b"abc"), end="eof", backend_saw=b"abc"),
    Case("chunks cut off", chunked(b"3\r\nabc\r\n"), end="eof", backend_saw=b"abc"),
    Case("a chunk cut off", chunked(b"5\r\nabc"), end="eof", backend_saw=b"abc"),
    Case("a terminator cut off", chunked(b"3\r\nabc\r\n0\r\n"), end="eof", backend_saw=b"abc"),
    Case("trailers cut off", chunked(b"3\r\nabc\r\n0\r\nx: y\r\n"), end="eof", backend_saw=b"abc"),
    Case("a large body", post(b"content-length: 300000", body=b"a" * 300000)),
    Case("a large chunk", chunked(b"493e0\r\n" + b"a" * 300000 + b"\r\n0\r\n\r\n")),
    Case("many small chunks", chunked(b"1\r\na\r\n" * 3000 + b"0\r\n\r\n")),
    Case("announced trailers", chunked(b"0\r\nx: y\r\n\r\n", b"trailer: x", b"te: trailers")),
    Case("a large body to a local reply", message(b"POST /direct HTTP/1.1", _HOST, b"content-length: 5",
         body=b"abcde")),
    Case("chunks to a local reply", message(b"POST /direct HTTP/1.1", _HOST, b"transfer-encoding: chunked",
         body=b"0\r\n\r\n")),
    Case("bad chunks to a local reply", message(b"POST /direct HTTP/1.1", _HOST, b"transfer-encoding: chunked",
         body=b"z\r\n\r\n")),
    Case("an unended chunk-size line", chunked(b"1" * 5000)),
    Case("an unended extension", chunked(b"1;" + b"a" * 70000), end="eof"),
    Case("an unended extension within limits", chunked(b"1;" + b"a" * 7000), end="eof", backend_saw=b"\r\n\r\n"),
    Case("a chunk of 2**64 - 1", chunked(b"FFFFFFFFFFFFFFFF\r\nabc"), end="eof"),
    Case("a chunk of 2**63", chunked(b"8000000000000000\r\nabc"), end="eof"),
)  # fmt: skip
EXPECT = (
    Case("100-continue", (post(b"expect: 100-continue", b"content-length: 3"), b"abc"), wait_for=(b"",
         b"100 Continue")),
    Case("100-continue with the body at once", post(b"expect: 100-continue", b"content-length: 3", body=b"abc")),
    Case("100-continue chunked", (post(b"expect: 100-continue", b"transfer-encoding: chunked"),
         b"3\r\nabc\r\n0\r\n\r\n"),
         wait_for=(b"", b"100 Continue")),
    Case("100-Continue in capitals", (post(b"expect: 100-Continue", b"content-length: 3"), b"abc"), wait_for=(b"",
         b"100 ")),
    Case("100-continue without a body", get(b"expect: 100-continue")),
    Case("100-continue, content-length 0", post(b"expect: 100-continue", b"content-length: 0")),
    Case("100-continue from the backend too", (post(b"expect: 100-continue", b"content-length: 3"), b"abc"),
         says(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"content-length: 0")), wait_for=(b"", b"100 Continue")),
    Case("100-continue to a local reply", message(b"POST /direct HTTP/1.1", _HOST, b"expect: 100-continue",
         b"content-length: 3")),
    Case("100-continue in HTTP/1.0", message(b"POST / HTTP/1.0", _HOST, b"expect: 100-continue", b"content-length: 3",
         body=b"abc"),
         config="http10"),
    Case("an unknown expectation", post(b"expect: 200-ok", b"content-length: 3", body=b"abc")),
    Case("two expectations", post(b"expect: 100-continue, x", b"content-length: 3", body=b"abc")),
    Case("an empty expectation", post(b"expect:", b"content-length: 3", body=b"abc")),
)  # fmt: skip

CASES = LENGTHS + CONFLICTS + ENCODINGS + CHUNKS + TRAILERS + AFTER + EXPECT
