"""The two head scanners are one: what the compiled one reads, the other reads the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.http1 import fields, pure
from proxy.http1.errors import ProtocolError
from proxy.model.listener import SlashesAction
from proxy.route.path import compile_normalize
from proxy.stream.authority import resolve

fast: Any = pure
if importlib.util.find_spec("proxy.http1._scan") is not None:
    from proxy.http1 import _scan

    fast = _scan

Scan = Callable[..., Any]


def outcome(scan: Scan, data: bytes, **options: int) -> object:
    """All that a caller can see of a scan."""
    try:
        found = scan(data, **options)
    except ProtocolError as error:
        return type(error), str(error), error.details, error.status
    if found is None:
        return None
    names = (
        b"host",
        b"x-request-id",
        b"connection",
        b"a",
        b"x-envoy-a",
        b"content-length",
        b"set-cookie",
        b"",
    )
    before = [(found.get(name), found.values(name)) for name in names]
    seen = (
        *(found.method, found.target, found.status, found.minor, found.flags, found.present, found.length),
        *(found.end, found.fields_at, found.host, found.raw, found.repeated, found.names),
    )
    after = [(found.get(name), found.values(name)) for name in names]
    assert before == after
    return seen, before


def both(data: bytes, **options: int) -> None:
    for quick, slow in (
        (fast.scan_request, pure.scan_request),
        (fast.scan_response, pure.scan_response),
    ):
        assert outcome(quick, data, **options) == outcome(slow, data, **options)


NAMES = st.sampled_from(
    [*fields.KNOWN, b"a", b"A", b"x-envoy-a", b"X-Tulle-b", b"x-envoy", b"set-cookie", b"accept", b"x" * 40]
).flatmap(lambda name: st.sampled_from([name, name.title(), name.upper()]))
VALUES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"close",
            b"Keep-Alive",
            b"upgrade",
            b"close, a",
            b"chunked",
            b"Chunked",
            b"gzip",
            b"0",
            b"12",
            b"012",
        ]
    ),
    st.sampled_from(
        [b"1" * 18, b"1" * 19, b"+1", b"h:80", b"a b", b"\xe9", b"\x00", b"a\tb", b"\x7f", b"100-continue"]
    ),
    st.binary(max_size=6),
)
SEPARATORS = st.sampled_from([b":", b": ", b":  ", b":\t", b" :", b"", b": \r\n "])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b" \r\n", b"\t\r\n", b"\r", b"\r\r\n", b"\r\n\r\n"])
FIRST = st.sampled_from(
    [b"GET / HTTP/1.1\r\n"] * 6
    + [b"HTTP/1.1 200 OK\r\n"] * 6
    + [
        b"HTTP/1.1 204 \r\n",
        b"HTTP/1.1 204\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 099 x\r\n",
        b"HTTP/1.1 1000 x\r\n",
    ]
    + [b"HTTP/1.1  200 OK\r\n", b"HTTP/2.0 200 OK\r\n", b"HTTP/1.1 200 O\x00K\r\n", b"HTTP/1.1 20x OK\r\n"]
    + [
        b"\r\nGET / HTTP/1.1\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"GET / HTTP/1.2\r\n",
        b"GET / HTTP/1.1 \r\n",
    ]
    + [
        b"G\xe9T / HTTP/1.1\r\n",
        b"GET /\xe9 HTTP/1.1\r\n",
        b"M-SEARCH * HTTP/1.1\r\n",
        b"GET /\x7f HTTP/1.1\r\n",
        b"",
    ]
)
TARGETS = st.one_of(
    st.text("/a.%2e?#;[~_\\x", max_size=8).map(str.encode),
    st.sampled_from([b"*", b"http://h/", b"/a/b.c/?d=/../e"]),
).map(lambda target: target if target[:1] in (b"*", b"h") else b"/" + target)
METHODS = st.sampled_from([*fields.COMMON_METHODS, b"CONNECT", b"QUERY", b"get", b"GETS", b"G"])
HOSTS = st.sampled_from([b"h", b"", b"h:80", b"[::1]:80", b"a b", b"a/b", b"\xe9", b"u@h", b"h,i"])


@settings(max_examples=400)
@given(METHODS, TARGETS, HOSTS)
def test_what_is_plain_is_plain_to_both(method: bytes, target: bytes, host: bytes) -> None:
    both(b"%b %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (method, target, host))


@settings(max_examples=400)
@given(TARGETS, st.booleans(), st.booleans(), st.sampled_from(get_args(SlashesAction)))
def test_what_is_plain_needs_no_normalisation(
    target: bytes, normalize_path: bool, merge_slashes: bool, escaped_slashes: SlashesAction
) -> None:
    found = pure.scan_request(b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % target)
    assert found is not None
    if found.flags & fields.PLAIN:
        normalize = compile_normalize(
            normalize_path=normalize_path, merge_slashes=merge_slashes, escaped_slashes=escaped_slashes
        )
        assert resolve(found) == normalize(target) == target


LINES = st.tuples(NAMES, SEPARATORS, VALUES, ENDS).map(b"".join)
BLOCKS = st.tuples(
    FIRST, st.lists(LINES, max_size=6).map(b"".join), st.sampled_from([b"\r\n", b"\r\nbody", b"", b"\n"])
).map(b"".join)


@settings(max_examples=600)
@given(BLOCKS)
@example(b"GET / HTTP/1.1\r\nhost: a\r\nHOST: b\r\n\r\n")
def test_every_block_is_read_alike(data: bytes) -> None:
    both(data)


@settings(max_examples=150)
@given(BLOCKS)
def test_every_beginning_is_read_alike(data: bytes) -> None:
    for end in range(0, len(data), 3):
        both(data[:end])


@given(BLOCKS, st.integers(1, 200), st.integers(0, 6))
def test_limits_are_the_same(data: bytes, max_bytes: int, max_fields: int) -> None:
    both(data, max_bytes=max_bytes, max_fields=max_fields)


@given(st.binary(max_size=20), BLOCKS)
def test_a_head_in_the_middle(before: bytes, data: bytes) -> None:
    for scan_fast, scan_slow in (
        (fast.scan_request, pure.scan_request),
        (fast.scan_response, pure.scan_response),
    ):
        assert outcome(lambda d, s=scan_fast: s(d, len(before)), before + data) == outcome(
            lambda d, s=scan_slow: s(d, len(before)), before + data
        )


@settings(max_examples=400)
@given(
    st.lists(st.tuples(NAMES, st.sampled_from([b"1", b"v w"])), max_size=10),
    st.integers(0, 2 * fields.HAS_LENGTH - 1),
    st.sampled_from([b"", b"z: 1\r\n"]),
    st.sampled_from([None, b"PUT /x HTTP/1.1\r\n"]),
    st.frozensets(st.sampled_from([b"a", b"accept", b"host", b"x-envoy-a"])),
)
def test_what_is_sent_on_is_the_same(
    found: list[tuple[bytes, bytes]], strip: int, extra: bytes, first: bytes | None, also: frozenset[bytes]
) -> None:
    framing = {b"content-length", b"transfer-encoding", b"connection", b"host"}
    lines = [(name, value) for name, value in found if name.lower() not in framing]
    lines.append((b"Host", b"h"))
    data = b"GET / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n"
    quick, slow = fast.scan_request(data), pure.scan_request(data)
    assert slow is not None
    kept = [
        b"%b: %b\r\n" % line
        for line in lines
        if line[0].lower() not in also and not bit_of(line[0].lower()) & strip
    ]
    expected = b"".join([first or b"GET / HTTP/1.1\r\n", *kept, extra, b"\r\n"])
    assert quick.emit(first, strip, extra, also) == slow.emit(first, strip, extra, also) == expected


def bit_of(name: bytes) -> int:
    known = fields.KNOWN.get(name)
    if known is not None:
        return known
    return fields.HAS_INTERNAL if name.startswith(fields.INTERNAL_PREFIXES) else 0


@pytest.mark.parametrize("scan", [fast.scan_request, pure.scan_request])
def test_the_host_can_be_replaced(scan: Scan) -> None:
    found = scan(b"GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n")
    found.set_host(b"b")
    assert (found.host, found.get(b"host"), found.names, found.values(b"host")) == (
        b"b",
        b"b",
        {b"host": b"b"},
        (b"b",),
    )
    found = scan(b"GET http://b/ HTTP/1.1\r\n\r\n")
    assert found.host is None
    found.set_host(b"b")
    assert (found.host, found.get(b"host")) == (b"b", b"b")


@pytest.mark.parametrize(
    "name", sorted(fields.KNOWN.keys() - {b"content-length", b"transfer-encoding", b"connection"})
)
def test_plain_heads_are_not_left_to_the_slow_one(name: bytes) -> None:
    for found in (
        fast.scan_request(b"GET /a HTTP/1.1\r\n%b: 1\r\nx-tulle-a: b\r\nconnection: close\r\n\r\n" % name),
        fast.scan_response(b"HTTP/1.1 200 OK\r\n%b: 1\r\ntransfer-encoding: chunked\r\n\r\n" % name.upper()),
    ):
        assert type(found).__module__ == fast.scan_request.__module__


@pytest.mark.parametrize(("pure_python", "compiled"), [("", fast is not pure), ("1", False)])
def test_the_compiled_one_is_used_where_it_is_built(pure_python: str, compiled: bool) -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from proxy.http1 import head; print(head.ACCELERATED, head.scan_request.__module__)",
        ],
        env={"TULLE_PURE_PYTHON": pure_python, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == [str(compiled), "proxy.http1._scan" if compiled else "proxy.http1.pure"]
