"""Malformed messages (RFC 9113 sections 8.1.1, 8.2 and 8.3): both engines refuse the same, as errors of the stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http2.codec import ENGINES, Options, Role, malformed
from proxy.http2.events import StreamClosed
from tests.unit.http2.pairs import OK, REQUEST, Raw, frame, frames

Fields = tuple[tuple[bytes, bytes], ...]

METHOD, SCHEME, AUTHORITY, PATH = REQUEST
CONNECT: Fields = ((b":method", b"CONNECT"), (b":authority", b"a:1"))
WEBSOCKET: Fields = ((b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, AUTHORITY, PATH)
REFUSED = [("StreamClosed", 1, 1, None)]

GOOD_REQUESTS: dict[str, Fields] = {
    "plain": REQUEST,
    "host only": (METHOD, SCHEME, PATH, (b"host", b"a")),
    "host beside authority": (*REQUEST, (b"host", b"b")),
    "te trailers": (*REQUEST, (b"te", b"trailers")),
    "te in capitals": (*REQUEST, (b"te", b"Trailers")),
    "options *": ((b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")),
    "other scheme": (METHOD, (b":scheme", b"x-y"), AUTHORITY, (b":path", b"anything")),
    "connect": CONNECT,
    "extended connect": WEBSOCKET,
    "empty value": (*REQUEST, (b"x", b"")),
    "obs-text": (*REQUEST, (b"x", b"\xff\x80")),
    "tab inside": (*REQUEST, (b"x", b"a\tb")),
    "cookies": (*REQUEST, (b"cookie", b"a=1"), (b"cookie", b"b=2")),
    "content-length 0": (*REQUEST, (b"content-length", b"0")),
    "fragment in the path": (METHOD, SCHEME, AUTHORITY, (b":path", b"/a#b")),
    "obs-text in the path": (METHOD, SCHEME, AUTHORITY, (b":path", b"/\xff")),
    "empty priority": (*REQUEST, (b"priority", b"")),
    "bad priority": (*REQUEST, (b"priority", b"u=9")),
}

BAD_REQUESTS: dict[str, Fields] = {
    "nothing": (),
    "no method": (SCHEME, AUTHORITY, PATH),
    "no scheme": (METHOD, AUTHORITY, PATH),
    "no path": (METHOD, SCHEME, AUTHORITY),
    "no authority": (METHOD, SCHEME, PATH),
    "method twice": (METHOD, *REQUEST),
    "path twice": (*REQUEST, PATH),
    "empty path": (METHOD, SCHEME, AUTHORITY, (b":path", b"")),
    "empty method": ((b":method", b""), SCHEME, AUTHORITY, PATH),
    "empty scheme": (METHOD, (b":scheme", b""), AUTHORITY, PATH),
    "empty authority": (METHOD, SCHEME, (b":authority", b""), PATH),
    "path without slash": (METHOD, SCHEME, AUTHORITY, (b":path", b"a")),
    "* for another method": (METHOD, SCHEME, AUTHORITY, (b":path", b"*")),
    "space in the path": (METHOD, SCHEME, AUTHORITY, (b":path", b"/ a")),
    "space in the method": ((b":method", b"GE T"), SCHEME, AUTHORITY, PATH),
    "bad scheme": (METHOD, (b":scheme", b"1http"), AUTHORITY, PATH),
    "userinfo": (METHOD, SCHEME, (b":authority", b"u@a"), PATH),
    "slash in the authority": (METHOD, SCHEME, (b":authority", b"a/b"), PATH),
    "bad host": (*REQUEST, (b"host", b"a/b")),
    "empty host": (*REQUEST, (b"host", b"")),
    "host twice": (*REQUEST, (b"host", b"a"), (b"host", b"a")),
    "status": (*REQUEST, (b":status", b"200")),
    "unknown pseudo-header": (*REQUEST, (b":foo", b"x")),
    "a bare colon": (*REQUEST, (b":", b"x")),
    "pseudo-header after a field": (METHOD, SCHEME, AUTHORITY, (b"a", b"b"), PATH),
    "connect with path": (*CONNECT, PATH),
    "connect with scheme": (*CONNECT, SCHEME),
    "connect without authority": ((b":method", b"CONNECT"), (b"host", b"a")),
    "protocol without connect": (METHOD, (b":protocol", b"websocket"), SCHEME, AUTHORITY, PATH),
    "protocol without authority": (*WEBSOCKET[:2], SCHEME, PATH, (b"host", b"a")),
    "empty protocol": ((b":method", b"CONNECT"), (b":protocol", b""), SCHEME, AUTHORITY, PATH),
    "upper case": (*REQUEST, (b"Foo", b"x")),
    "empty name": (*REQUEST, (b"", b"x")),
    "space in a name": (*REQUEST, (b"a b", b"x")),
    "colon in a name": (*REQUEST, (b"a:b", b"x")),
    "NUL in a name": (*REQUEST, (b"a\0", b"x")),
    "obs-text in a name": (*REQUEST, (b"\xff", b"x")),
    "NUL": (*REQUEST, (b"x", b"a\0b")),
    "LF": (*REQUEST, (b"x", b"a\nb")),
    "CR": (*REQUEST, (b"x", b"a\rb")),
    "DEL": (*REQUEST, (b"x", b"a\x7fb")),
    "leading space": (*REQUEST, (b"x", b" a")),
    "trailing space": (*REQUEST, (b"x", b"a ")),
    "trailing tab": (*REQUEST, (b"x", b"a\t")),
    "only a space": (*REQUEST, (b"x", b" ")),
    "connection": (*REQUEST, (b"connection", b"close")),
    "keep-alive": (*REQUEST, (b"keep-alive", b"1")),
    "proxy-connection": (*REQUEST, (b"proxy-connection", b"close")),
    "transfer-encoding": (*REQUEST, (b"transfer-encoding", b"chunked")),
    "upgrade": (*REQUEST, (b"upgrade", b"h2c")),
    "te": (*REQUEST, (b"te", b"gzip")),
    "te and more": (*REQUEST, (b"te", b"trailers, gzip")),
    "content-length words": (*REQUEST, (b"content-length", b"x")),
    "content-length signed": (*REQUEST, (b"content-length", b"+1")),
    "content-length empty": (*REQUEST, (b"content-length", b"")),
    "content-length twice": (*REQUEST, (b"content-length", b"0"), (b"content-length", b"0")),
    "content-length too large": (*REQUEST, (b"content-length", b"9223372036854775808")),
    "content-length list": (*REQUEST, (b"content-length", b"0, 0")),
    "priority with LF": (*REQUEST, (b"priority", b"u=1\n")),
}  # fmt: skip

GOOD_RESPONSES: dict[str, Fields] = {
    "plain": OK,
    "204 with a length of zero": ((b":status", b"204"), (b"content-length", b"0")),
    "304 with a length": ((b":status", b"304"), (b"content-length", b"9")),
    "any status": ((b":status", b"999"),),
}

BAD_RESPONSES: dict[str, Fields] = {
    "nothing": (),
    "no status": ((b"a", b"b"),),
    "status twice": (*OK, *OK),
    "status late": ((b"a", b"b"), *OK),
    "two digits": ((b":status", b"20"),),
    "four digits": ((b":status", b"2000"),),
    "leading zero": ((b":status", b"020"),),
    "not a number": ((b":status", b"2x0"),),
    "switching protocols": ((b":status", b"101"),),
    "path": (*OK, PATH),
    "204 with a length": ((b":status", b"204"), (b"content-length", b"1")),
    "204 with two lengths": ((b":status", b"204"), (b"content-length", b"0"), (b"content-length", b"0")),
    "connection": (*OK, (b"connection", b"close")),
    "upper case": (*OK, (b"Foo", b"x")),
    "te": (*OK, (b"te", b"gzip")),
    "LF": (*OK, (b"x", b"a\nb")),
    "length missed": (*OK, (b"content-length", b"1")),
    "length twice": (*OK, (b"content-length", b"0"), (b"content-length", b"0")),
}


def server(engine: str, *, allow_connect: bool = True) -> Raw:
    return Raw(engine, Role.SERVER, Options(allow_connect=allow_connect))


def requested(engine: str, headers: Fields, *, end_stream: bool = False) -> Raw:
    raw = server(engine)
    raw.headers(1, headers, end_stream=end_stream)
    return raw


def asked(engine: str, method: bytes = b"POST") -> Raw:
    """A client that has sent a request."""
    raw = Raw(engine, Role.CLIENT)
    raw.codec.send_request(((b":method", method), *REQUEST[1:]), end_stream=True)
    raw.flush()
    raw.sent = b""
    return raw


def reset(raw: Raw) -> bool:
    """Whether RST_STREAM with PROTOCOL_ERROR is all that was sent."""
    return frames(raw.sent) == [(3, 0, 1, b"\0\0\0\1")]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_a_well_formed_request(engine: str, name: str) -> None:
    headers = GOOD_REQUESTS[name]
    assert requested(engine, headers).saw == [("RequestReceived", 1, headers, False)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_malformed_request_is_a_stream_error(engine: str, name: str) -> None:
    raw = requested(engine, BAD_REQUESTS[name])
    assert raw.saw == REFUSED and reset(raw)
    assert malformed(StreamClosed(1, 1, None))
    raw.headers(3, REQUEST)
    assert raw.saw[1:] == [("RequestReceived", 3, REQUEST, False)]


@pytest.mark.parametrize("engine", ENGINES)
def test_extended_connect_is_refused_unless_offered(engine: str) -> None:
    raw = server(engine, allow_connect=False)
    raw.headers(1, WEBSOCKET)
    assert raw.saw == REFUSED


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GOOD_RESPONSES)
def test_a_well_formed_response(engine: str, name: str) -> None:
    headers = GOOD_RESPONSES[name]
    raw = asked(engine)
    raw.headers(1, headers, end_stream=True)
    kept = headers[:1] if headers[0][1] == b"204" else headers
    assert raw.saw == [("ResponseReceived", 1, kept, True), ("StreamClosed", 1, 0, None)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_a_malformed_response_is_a_stream_error(engine: str, name: str) -> None:
    raw = asked(engine)
    raw.headers(1, BAD_RESPONSES[name], end_stream=True)
    assert raw.saw == REFUSED and reset(raw)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("body", "last"), [(b"abcd", False), (b"ab", True), (b"", True), (b"abcd", True)])
def test_content_length_is_held(engine: str, body: bytes, last: bool) -> None:
    headers = (*REQUEST, (b"content-length", b"3"))
    raw = requested(engine, headers)
    raw.receive(frame(0, last, 1, body))
    assert raw.saw == [("RequestReceived", 1, headers, False), *REFUSED] and reset(raw)


@pytest.mark.parametrize("engine", ENGINES)
def test_content_length_is_kept(engine: str) -> None:
    headers = (*REQUEST, (b"content-length", b"3"))
    raw = requested(engine, headers)
    raw.receive(frame(0, 0, 1, b"ab") + frame(0, 1, 1, b"c"))
    assert raw.saw[1:] == [("DataReceived", 1, b"ab", False), ("DataReceived", 1, b"c", True)]
    assert requested(engine, headers, end_stream=True).saw == REFUSED


@pytest.mark.parametrize("engine", ENGINES)
def test_a_response_to_head_has_no_body(engine: str) -> None:
    length = (*OK, (b"content-length", b"3"))
    raw = asked(engine, b"HEAD")
    raw.headers(1, length, end_stream=True)
    assert raw.saw == [("ResponseReceived", 1, length, True), ("StreamClosed", 1, 0, None)]
    raw = asked(engine, b"HEAD")
    raw.headers(1, length)
    raw.receive(frame(0, 1, 1, b"abc"))
    assert raw.saw == [("ResponseReceived", 1, length, False), *REFUSED]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "bad", [PATH, OK[0], (b"connection", b"x"), (b"A", b"b"), (b"a", b"b\n"), (b"content-length", b"9")]
)
def test_malformed_trailers(engine: str, bad: tuple[bytes, bytes]) -> None:
    raw = requested(engine, REQUEST)
    raw.headers(1, [bad], end_stream=True)
    assert raw.saw == [("RequestReceived", 1, REQUEST, False), *REFUSED] and reset(raw)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_came_before_a_malformed_message_in_one_read_is_seen(engine: str) -> None:
    raw = server(engine)
    block = [raw.encoder.encode(headers) for headers in (REQUEST, (METHOD,), REQUEST)]
    raw.receive(
        frame(1, 5, 1, block[0]) + frame(1, 4, 3, block[1]) + frame(0, 1, 3, b"x") + frame(1, 5, 5, block[2])
    )
    request = [("RequestReceived", stream_id, REQUEST, True) for stream_id in (1, 5)]
    assert raw.saw == [*request, ("StreamClosed", 3, 1, None)]


@pytest.mark.parametrize("engine", ENGINES)
def test_data_before_the_final_response(engine: str) -> None:
    raw = asked(engine)
    raw.headers(1, [(b":status", b"100")])
    raw.receive(frame(0, 1, 1, b"x"))
    assert raw.saw == [("InformationalResponseReceived", 1, ((b":status", b"100"),)), *REFUSED] and reset(raw)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_informational_response_that_ends_the_stream(engine: str) -> None:
    raw = asked(engine)
    raw.headers(1, [(b":status", b"100")], end_stream=True)
    assert raw.saw == REFUSED


PARTS = st.sampled_from(
    [part for fields in (GOOD_REQUESTS, BAD_REQUESTS) for headers in fields.values() for part in headers]
)


@pytest.mark.skipif(len(ENGINES) < 2, reason="ngh2 is not installed")
@settings(max_examples=200)
@given(headers=st.lists(PARTS, max_size=7), end_stream=st.booleans())
def test_engines_judge_any_request_alike(headers: list[tuple[bytes, bytes]], end_stream: bool) -> None:
    first, second = (requested(engine, tuple(headers), end_stream=end_stream).saw for engine in ENGINES)
    assert first == second


KNOWN = st.sampled_from([b"x", b"host", b"te", b"content-length", b":path", b":authority", b":status"])
FIELD = st.tuples(KNOWN | st.binary(max_size=4), st.binary(max_size=4))


@pytest.mark.skipif(len(ENGINES) < 2, reason="ngh2 is not installed")
@settings(max_examples=300)
@given(field=FIELD, prefix=st.sampled_from([REQUEST, (METHOD, SCHEME), REQUEST[:3]]))
def test_engines_judge_any_request_field_alike(field: tuple[bytes, bytes], prefix: Fields) -> None:
    first, second = (requested(engine, (*prefix, field)).saw for engine in ENGINES)
    assert first == second


@pytest.mark.skipif(len(ENGINES) < 2, reason="ngh2 is not installed")
@settings(max_examples=200)
@given(
    field=FIELD,
    prefix=st.sampled_from([(), OK, ((b":status", b"204"),)]),
    method=st.sampled_from([b"GET", b"CONNECT"]),
)
def test_engines_judge_any_response_field_alike(
    field: tuple[bytes, bytes], prefix: Fields, method: bytes
) -> None:
    saw = []
    for engine in ENGINES:
        raw = asked(engine, method)
        raw.headers(1, (*prefix, field), end_stream=True)
        saw.append(raw.saw)
    assert saw[0] == saw[1]
