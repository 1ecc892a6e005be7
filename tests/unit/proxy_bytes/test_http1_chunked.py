"""Chunked framing: canonical output, strictness, limits, and that splitting changes nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.chunked import LAST_CHUNK, MAX_LINE, ChunkedBody, chunk
from proxy.http1.errors import ProtocolError


def feed(body: ChunkedBody, *pieces: bytes) -> bytes:
    return b"".join(body.feed(piece)[0] for piece in pieces)


def test_a_body_passes_as_it_is() -> None:
    data = b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"
    body = ChunkedBody()
    out, end = body.feed(data + b"GET /")
    assert (out, end, body.done, body.payload) == (data, len(data), True, 15)


def test_it_may_begin_inside_a_read() -> None:
    body = ChunkedBody()
    assert body.feed(b"head1\r\na\r\n0\r\n\r\nnext", 4) == (b"1\r\na\r\n0\r\n\r\n", 15)


def test_extensions_are_dropped_and_framing_is_canonical() -> None:
    body = ChunkedBody()
    assert feed(body, b'5;a=b;c="d"\r\nhello\r\n0 ; x\r\n\r\n') == b"5\r\nhello\r\n0\r\n\r\n"
    assert body.done


def test_trailers_pass_but_for_those_that_decide_something() -> None:
    body = ChunkedBody()
    data = b"0\r\nETag: 1\r\nX-Forwarded-Client-Cert: By=a\r\nContent-Length: 9\r\nx-envoy-foo: 1\r\nB: 2\r\n\r\n"
    assert feed(body, data) == b"0\r\nETag: 1\r\nB: 2\r\n\r\n"


def test_decoding_leaves_the_payload() -> None:
    body = ChunkedBody(decode=True)
    assert feed(body, b"5;x\r\nhel", b"lo\r\n1\r", b"\n!\r\n0\r\nT: 1\r\n\r\n") == b"hello!"
    assert body.done and body.payload == 6


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1_0\r\n",
        b"1\n",
        b"11111111111111111\r\n",
        b"ffffffffffffffff\r\n",
        b"1;a\nb\r\n",
        b"1;a\rb\r\n",
        b"1;\x00\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1\r\na\rb",
        b"1\r\naGET / HTTP/1.1\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nx : 1\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nx: 1\n\r\n",
        b"0\r\nx: \x00\r\n\r\n",
        b"0\r\n\n",
    ],
)
def test_what_is_broken_is_refused_however_it_comes(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ChunkedBody().feed(data)
    body = ChunkedBody()
    with pytest.raises(ProtocolError):
        for at in range(len(data)):
            body.feed(data[at : at + 1])


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"1;" + b"a" * MAX_LINE + b"\r\n", 400),
        (b"0\r\nx: " + b"a" * MAX_LINE + b"\r\n\r\n", 431),
        (b"0\r\n" + b"content-length: 1\r\n" * (MAX_LINE // 19 + 1) + b"\r\n", 431),
    ],
)
def test_limits(data: bytes, status: int, split: bool) -> None:
    body = ChunkedBody()
    with pytest.raises(ProtocolError) as caught:
        for at in range(0, len(data), 1 if split else len(data)):
            body.feed(data[at : at + (1 if split else len(data))])
    assert caught.value.status == status


BODIES = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a=b", b" ;c"])), max_size=6
)


@given(
    chunks=BODIES,
    trailers=st.sampled_from([b"", b"a: b\r\n", b"Host: x\r\nq: r\r\n"]),
    cuts=st.lists(st.integers(0, 400), max_size=20),
    decode=st.booleans(),
)
def test_any_split_gives_the_same_bytes(
    chunks: list[tuple[bytes, bytes]], trailers: bytes, cuts: list[int], decode: bool
) -> None:
    payload = b"".join(data for data, _ in chunks)
    wire = (
        b"".join(b"%x%b\r\n%b\r\n" % (len(data), ext, data) for data, ext in chunks)
        + b"0\r\n"
        + trailers
        + b"\r\n"
    )
    whole = ChunkedBody(decode=decode)
    expected, end = whole.feed(wire)
    assert end == len(wire) and whole.done and whole.payload == len(payload)
    if decode:
        assert expected == payload
    parts = ChunkedBody(decode=decode)
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    got = b"".join(parts.feed(wire[a:b])[0] for a, b in itertools.pairwise(edges) if b > a)
    assert (got, parts.done, parts.payload) == (expected, True, len(payload))


def test_chunk_makes_what_the_tracker_reads() -> None:
    body = ChunkedBody(decode=True)
    assert feed(body, chunk(b"x" * 300) + LAST_CHUNK) == b"x" * 300
    assert body.done
