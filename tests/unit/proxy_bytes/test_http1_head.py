"""The head scanner: what is accepted, what is refused and why, and that splitting changes nothing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http1 import fields as h
from proxy.http1 import pure
from proxy.http1.errors import ProtocolError
from proxy.http1.head import MAX_FIELDS, MAX_HEAD_BYTES, scan_request, scan_response

Scan = Callable[..., Any]

# Both scanners, if the fast one was built.
SCANNERS: list[Any] = [pure]
if importlib.util.find_spec("proxy.http1._scan") is not None:
    SCANNERS.append(importlib.import_module("proxy.http1._scan"))


def request(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, *fields, b"", b""))


def test_a_request_is_read() -> None:
    data = b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-A:  1 \r\nx-a: 2\r\n\r\nabc"
    head = scan_request(data)
    assert head is not None
    assert (head.method, head.target, head.minor, head.length, head.host) == (b"POST", b"/a?b", 1, 3, b"x")
    assert data[head.end :] == b"abc"
    assert head.get(b"x-a") == b"1, 2"
    assert head.values(b"x-a") == (b"1", b"2")
    assert head.raw == b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-A:  1\r\nx-a: 2\r\n"
    assert head.raw[head.fields_at :].startswith(b"Host:")


def test_received_lines_do_not_count_for_what_was_replaced() -> None:
    head = scan_request(request(b"host: aaa", b"x-a: 1", b"x-a: 2", b"x-forwarded-client-cert: By=me"))
    assert head is not None
    head.set_host(b"bbb")
    head.names[b"x-forwarded-client-cert"] = b"By=us"
    head.names[b"x-a"] = b"1; 2"
    assert head.values(b"host") == (b"bbb",)
    assert head.values(b"x-forwarded-client-cert") == (b"By=us",)
    assert head.values(b"x-a") == (b"1; 2",)


def test_cookies_are_joined_as_cookies_are() -> None:
    head = scan_request(request(b"host: a", b"cookie: a=1", b"cookie: b=2"))
    assert head is not None and head.get(b"cookie") == b"a=1; b=2"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (b"close", h.CLOSE),
        (b"Close", h.CLOSE),
        (b"keep-alive", h.KEEP_ALIVE),
        (b"keep-alive, close", h.CLOSE | h.KEEP_ALIVE),
        (b"x-foo", h.NOMINATED),
        (b"upgrade", 0),
        (b"upgrade,x, close", h.NOMINATED | h.CLOSE),
        (b"", 0),
    ],
)
def test_connection_options(value: bytes, flags: int) -> None:
    head = scan_request(request(b"host: a", b"connection: " + value))
    assert head is not None and head.flags & ~h.PLAIN == flags


def test_upgrade_needs_both_fields() -> None:
    head = scan_request(request(b"host: a", b"connection: Upgrade", b"upgrade: websocket"))
    assert head is not None and head.flags == h.UPGRADE | h.PLAIN
    head = scan_request(request(b"host: a", b"upgrade: websocket"))
    assert head is not None and head.flags == h.PLAIN


@pytest.mark.parametrize("name", [b"x-envoy-retry-on", b"X-Envoy-Foo", b"x-tulle-peer"])
def test_internal_fields_are_seen(name: bytes) -> None:
    head = scan_request(request(b"host: a", name + b": 1"))
    assert head is not None and head.flags & h.INTERNAL


REFUSED = [
    # framing (RFC 9112 section 6.3)
    (
        request(b"host: a", b"content-length: 3", b"transfer-encoding: chunked"),
        400,
        "content_length_and_chunked",
    ),
    (request(b"host: a", b"content-length: 3", b"content-length: 3"), 400, "codec_error"),
    (request(b"host: a", b"content-length: 3, 3"), 400, "codec_error"),
    (request(b"host: a", b"content-length: +3"), 400, "codec_error"),
    (request(b"host: a", b"content-length: -3"), 400, "codec_error"),
    (request(b"host: a", b"content-length: 0x3"), 400, "codec_error"),
    (request(b"host: a", b"content-length:"), 400, "codec_error"),
    (request(b"host: a", b"content-length: " + b"9" * 19), 400, "codec_error"),
    (request(b"host: a", b"content-length: \xb2"), 400, "codec_error"),
    (
        request(b"host: a", b"transfer-encoding: chunked", b"transfer-encoding: chunked"),
        501,
        "transfer_encoding",
    ),
    (request(b"host: a", b"transfer-encoding: gzip"), 501, "invalid_transfer_encoding"),
    (request(b"host: a", b"transfer-encoding: gzip, chunked"), 501, "invalid_transfer_encoding"),
    (request(b"host: a", b"transfer-encoding: chunked, identity"), 501, "invalid_transfer_encoding"),
    (request(b"host: a", b"transfer-encoding: xchunked"), 501, "invalid_transfer_encoding"),
    (request(b"host: a", b"transfer-encoding: \x0bchunked"), 400, "invalid_characters"),
    (request(b"host: a", b"transfer-encoding: chunked", line=b"POST / HTTP/1.0"), 400, "transfer_encoding"),
    (request(b"host: a", b"host: b"), 400, "codec_error"),
    # field syntax
    (request(b"host : a"), 400, "codec_error"),
    (request(b"host\t: a"), 400, "codec_error"),
    (request(b" host: a"), 400, "codec_error"),
    (request(b"host: a", b"x: 1", b" folded"), 400, "codec_error"),
    (request(b"host: a", b"\tfolded"), 400, "codec_error"),
    (request(b"host: a", b"no colon"), 400, "codec_error"),
    (request(b"host: a", b": empty name"), 400, "codec_error"),
    (request(b"host: a", b"x#\x00: 1"), 400, "invalid_characters"),
    (request(b"host: a", b"x: a\x00b"), 400, "invalid_characters"),
    (request(b"host: a", b"x: a\x7fb"), 400, "invalid_characters"),
    (request(b"host: a", b"x: a\x1bb"), 400, "invalid_characters"),
    (request(b"host: a", b"x\xe9: b"), 400, "codec_error"),
    (request(b"host: a", b"x(y): b"), 400, "codec_error"),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400, "codec_error"),
    (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, "codec_error"),
    (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "codec_error"),
    (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "codec_error"),
    # request line
    (request(line=b"GET / HTTP/2.0"), 426, "low_version"),
    (request(line=b"GET / HTTP/1.2"), 426, "low_version"),
    (request(line=b"GET / http/1.1"), 400, "codec_error"),
    (request(line=b"GET /"), 426, "low_version"),
    (request(line=b"GET  / HTTP/1.1"), 400, "codec_error"),
    (request(line=b"GET / HTTP/1.1 "), 400, "codec_error"),
    (request(line=b"GET /a b HTTP/1.1"), 400, "codec_error"),
    (request(line=b"GET /\x80 HTTP/1.1"), 400, "codec_error"),
    (request(line=b"G(T / HTTP/1.1"), 400, "codec_error"),
    (request(line=b" GET / HTTP/1.1"), 400, "codec_error"),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "codec_error"),
    (b"\x16\x03\x01\x02\x00\x01", 400, "codec_error"),
    # limits
    (request(b"x: " + b"a" * MAX_HEAD_BYTES), 431, "headers_too_large"),
    (request(line=b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1"), 431, "headers_too_large"),
    (request(*(b"x%d: 1" % n for n in range(MAX_FIELDS + 1))), 431, "too_many_headers"),
]


@pytest.mark.parametrize("scanner", SCANNERS)
@pytest.mark.parametrize(("data", "status", "details"), REFUSED)
def test_what_is_ambiguous_or_broken_is_refused(data: bytes, status: int, details: str, scanner: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        scanner.scan_request(data)
    assert caught.value.status == status
    assert details in caught.value.details


@pytest.mark.parametrize("scanner", SCANNERS)
@pytest.mark.parametrize(("data", "status", "details"), REFUSED)
def test_it_is_refused_byte_by_byte_too(data: bytes, status: int, details: str, scanner: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        for end in range(1, len(data) + 1):
            assert scanner.scan_request(data[:end], seen=end - 1) is None
    assert caught.value.status == status
    assert details in caught.value.details


def verdict(scan: Scan, data: bytes, ends: list[int]) -> object:
    """What comes of ``data`` if it arrives up to each of ``ends`` in turn."""
    seen = 0
    for end in ends:
        try:
            head = scan(data[:end], seen=seen)
        except ProtocolError as error:
            return error.status, error.details
        if head is not None:
            return head.raw, head.names, head.flags, head.present, head.length, head.end
        seen = end
    return None


PARTS = st.sampled_from(
    (
        b"GET ", b"GE", b"T ", b"PRI ", b"/", b"/x ", b"* ", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200", b"\r\n", b"\r\n", b"\r\n", b"\r", b"\n", b"host: a", b"x: y", b"x : y", b" z", b"x", b": ",
        b"\x00",
        b"\x7f", b"\xe9", b"content-length: 3", b"content-length: x", b"transfer-encoding: chunked",
        b"transfer-encoding: gzip", b"connection: close", b"\r\n\r\n", b"\r\n\r\n",
    )
)  # fmt: skip


@settings(max_examples=400)
@given(
    start=st.sampled_from((b"", b"GET / HTTP/1.1\r\nhost: a\r\n", b"HTTP/1.1 200 OK\r\n")),
    parts=st.lists(PARTS, max_size=10),
    cuts=st.lists(st.integers(1, 150), max_size=12),
)
def test_any_split_gives_the_same_verdict(start: bytes, parts: list[bytes], cuts: list[int]) -> None:
    """Whether it is a head, and if not, why: that does not depend on how the bytes come."""
    data = start + b"".join(parts) + b"\r\n\r\n"
    pieces = [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    for scanner in SCANNERS:
        for scan in (scanner.scan_request, scanner.scan_response):
            assert verdict(scan, data, pieces) == verdict(scan, data, [len(data)])


def test_limits_are_reached_exactly() -> None:
    assert scan_request(request(b"h: a", b"b: c"), max_fields=2) is not None
    with pytest.raises(ProtocolError):
        scan_request(request(b"h: a", b"b: c"), max_fields=1)
    data = request(b"host: a")
    assert scan_request(data, max_bytes=len(data)) is not None
    with pytest.raises(ProtocolError):
        scan_request(data, max_bytes=len(data) - 1)
    with pytest.raises(ProtocolError):
        scan_request(data[:-1], max_bytes=len(data) - 2)


def test_one_empty_line_before_a_request_is_passed_over() -> None:
    data = b"\r\n" + request(b"host: a")
    head = scan_request(data)
    assert head is not None and head.end == len(data) and head.raw.startswith(b"GET")
    for end in range(1, len(data)):
        assert scan_request(data[:end], seen=end - 1) is None
    assert scan_request(data, seen=len(data) - 1) is not None


TOKENS = st.text("abcXYZ019-_.!", min_size=1, max_size=12).map(str.encode)
VALUES = st.text("abc ,;=\t\"'/\u00e9", max_size=20).map(lambda text: text.encode("latin-1"))


@given(
    fields=st.lists(st.tuples(TOKENS, VALUES), max_size=8),
    body=st.binary(max_size=20),
    cuts=st.lists(st.integers(1, 300), max_size=12),
)
def test_any_split_gives_the_same_head(
    fields: list[tuple[bytes, bytes]], body: bytes, cuts: list[int]
) -> None:
    data = request(b"host: a", *(b"x-%b: %b" % field for field in fields)) + body
    whole = scan_request(data)
    assert whole is not None
    seen = 0
    for end in [*sorted(cut for cut in cuts if cut < whole.end), len(data)]:
        found = scan_request(data[:end], seen=seen)
        seen = end
    assert found is not None
    assert (found.names, found.raw, found.end, found.flags) == (
        whole.names,
        whole.raw,
        whole.end,
        whole.flags,
    )


@given(st.binary(max_size=80))
def test_junk_never_raises_anything_else(data: bytes) -> None:
    for scan in (scan_request, scan_response):
        for tail in (b"", b"\r\n\r\n"):
            try:
                scan(data + tail)
            except ProtocolError as error:
                assert error.status in (400, 426, 431, 501)


def test_a_response_is_read() -> None:
    head = scan_response(b"HTTP/1.1 204 \r\nServer: x\r\n\r\n")
    assert head is not None and (head.status, head.minor, head.length, head.get(b"server")) == (
        204,
        1,
        -1,
        b"x",
    )
    head = scan_response(b"HTTP/1.0 200\r\n\r\n")
    assert head is not None and (head.status, head.minor) == (200, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"HTTP/1.1 2000 X\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\nserver: a\n\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
    ],
)
def test_broken_responses_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        scan_response(data)
    with pytest.raises(ProtocolError):
        for end in range(1, len(data) + 1):
            assert scan_response(data[:end], seen=end - 1) is None
