"""Telling HTTP from other protocols by the first bytes; what Envoy finds is in test_proxy_inspectors_envoy_diff."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.accept.http_inspector import MAX_BYTES, PREFACE, HttpInspector

FOUND = [
    (b"GET / HTTP/1.1\r\n", "http/1.1"),
    (b"GET / HTTP/1.1\nHost: a", "http/1.1"),
    (b"get / HTTP/1.1\r\n", "http/1.1"),
    (b"FOO  http://a/ HTTP/1.1\r\n", "http/1.1"),
    (b"OPTIONS * HTTP/1.1\r\n", "http/1.1"),
    (b"CONNECT a:443 HTTP/1.1\r\n", "http/1.1"),
    (b"GET / HTTP/1.0\r\n", "http/1.0"),
    (b"GET /\r\n", "http/1.0"),
    (b"GET / HTTP/2.0\r\n", "http/1.0"),
    (PREFACE, "h2c"),
    (PREFACE + b"\x00", "h2c"),
    (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "http/1.0"),
    (b"hello\r\n", ""),
    (b"SELECT 1;\n", ""),
    (b"A B C\r\n", ""),
    (b"GET / HTTX/1.1\r\n", ""),
    (b"GET / HTTP/1.1x\r\n", ""),
    (b"\r\nGET / HTTP/1.1\r\n", ""),
    (b"G@T / HTTP/1.1\r\n", ""),
    (b"\x00\x01", ""),
    (b" ", ""),
    (b"GET /" + b"a" * MAX_BYTES, ""),
]


@pytest.mark.parametrize(("data", "found"), FOUND)
def test_what_is_found(data: bytes, found: str) -> None:
    assert HttpInspector().look(bytearray(data)) == found


@pytest.mark.parametrize("data", [b"GET", b"GET / HTTP/1.1\r", b"PRI * HTTP/2.0\r\n", b"SSH", b"P"])
def test_what_may_still_become_http(data: bytes) -> None:
    assert HttpInspector().look(bytearray(data)) is None


@given(st.sampled_from(FOUND[:-1]), st.integers(1, 40))
def test_any_split_finds_the_same(case: tuple[bytes, str], step: int) -> None:
    data, expected = case
    inspector = HttpInspector()
    early = bytearray()
    found = None
    for at in range(0, len(data), step):
        early += data[at : at + step]
        found = inspector.look(early)
        if found is not None:
            break
    assert found == expected
