"""Cutting fields out of a head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1 import fields as f
from proxy.http1.errors import ProtocolError
from proxy.http1.head import Head, scan_request
from proxy.http1.splice import Strip, forget_nominated, nominated, strip_bits, strip_for


def head(*fields: bytes) -> Head:
    found = scan_request(b"\r\n".join((b"GET /a HTTP/1.1", *fields, b"", b"")))
    assert found is not None
    return found


def test_all_lines_in_any_case_go_and_nothing_else() -> None:
    it = head(b"Foo: 1", b"host: a", b"FOO: 2", b"foo-bar: 3", b"x: foo: 4", b"foo:")
    assert (
        Strip((b"foo", b"other")).cut(it.raw) == b"GET /a HTTP/1.1\r\nhost: a\r\nfoo-bar: 3\r\nx: foo: 4\r\n"
    )


def test_names_are_taken_literally() -> None:
    assert Strip((b"a.b",)).cut(head(b"axb: 1", b"a.b: 2").raw) == b"GET /a HTTP/1.1\r\naxb: 1\r\n"
    assert Strip(()).cut(head(b"a: 1").raw) == b"GET /a HTTP/1.1\r\na: 1\r\n"
    assert strip_for(frozenset()).cut(b"\r\na: 1\r\n") == b"\r\na: 1\r\n"


def test_internal_fields_go() -> None:
    it = head(b"X-Envoy-Retry-On: 5xx", b"x-tulle-peer: a", b"x-env: 1", b"y: x-envoy-z: 1", b"x-envoy-: 2")
    assert strip_bits(f.HAS_INTERNAL).cut(it.raw) == b"GET /a HTTP/1.1\r\nx-env: 1\r\ny: x-envoy-z: 1\r\n"


def test_a_client_cannot_nominate_what_others_need() -> None:
    it = head(
        b"connection: close, Foo, authorization, x-forwarded-client-cert, host, transfer-encoding, cookie"
    )
    assert nominated(it) == {b"foo", b"close"}
    assert nominated(head(b"connection: close")) == frozenset()


NAMES = st.sampled_from([b"a", b"A", b"ab", b"a-b", b"b", b"x-a"])


@given(st.lists(st.tuples(NAMES, st.sampled_from([b"", b"a", b"a: b"])), max_size=8), st.sets(NAMES))
def test_it_is_the_same_as_filtering_lines(fields: list[tuple[bytes, bytes]], strip: set[bytes]) -> None:
    names = frozenset(name.lower() for name in strip)
    it = head(*(b"%b: %b" % field for field in fields))
    lines = it.raw.split(b"\r\n")
    expected = [lines[0], *(line for line in lines[1:] if line.split(b":")[0].lower() not in names)]
    assert Strip(names).cut(it.raw) == b"\r\n".join(expected)


@pytest.mark.parametrize("value", [b"a", b"\xe9"])
def test_values_pass_byte_for_byte(value: bytes) -> None:
    assert (
        Strip((b"z",)).cut(head(b"z: 1", b"y:   " + value).raw)
        == b"GET /a HTTP/1.1\r\ny:   " + value + b"\r\n"
    )


@pytest.mark.parametrize(
    ("connection", "left"),
    [
        (b"x-a", {b"x-b"}),
        (b"X-A, x-b", set()),
        (b"close, x-a", {b"x-b"}),
        (b"authorization, x-a", {b"x-b"}),
        (b"upgrade, x-a", {b"x-b"}),
        (b"connection, x-a", {b"x-b"}),
        (b"a, b, c, d, e, f, g, h, i", {b"x-a", b"x-b"}),
    ],
)
def test_what_connection_nominates_is_not_seen_any_more(connection: bytes, left: set[bytes]) -> None:
    it = head(
        b"host: a", b"x-a: 1", b"x-b: 2", b"authorization: t", b"upgrade: u", b"connection: " + connection
    )
    forget_nominated(it)
    assert {name for name in (b"x-a", b"x-b") if it.get(name) is not None} == left
    assert it.get(b"authorization") == b"t" and it.get(b"upgrade") == b"u" and it.host == b"a"
    # What is not seen is not passed on, and the other way round.
    sent = it.emit(None, 0, b"", nominated(it))
    assert {name for name in (b"x-a", b"x-b") if name + b":" in sent} == left


@pytest.mark.parametrize(
    "connection", [b":path", b"x-forwarded-for", b"close, X-Forwarded-Proto", b"a, b, c, d, e, f, g, h, i, j"]
)
def test_connection_nominates_what_it_must_not(connection: bytes) -> None:
    with pytest.raises(ProtocolError, match="nominates"):
        forget_nominated(head(b"host: a", b"connection: " + connection))
