"""Reading PROXY headers, and the ones that this proxy writes; damaged ones are compared with Envoy's verdict in
test_proxy_inspectors_envoy_diff."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.accept.proxy_protocol import NONE, ProxyHeader, ProxyProtocolError, ProxyProtocolReader
from proxy.model.connection import Address
from proxy.upstream.proxy_protocol import LOCAL, V2_SIGNATURE, version_1, version_2

A = ("1.2.3.4", 80)
B = ("10.0.0.1", 443)
SIX = ("2001:db8::1", 1)
ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4).filter(lambda ip: not ip.is_multicast), st.integers(0, 65535)),
    st.tuples(st.ip_addresses(v=6).filter(lambda ip: not ip.is_multicast), st.integers(0, 65535)),
).map(lambda pair: (str(pair[0]), pair[1]))


def read(data: bytes, *, optional: bool = False) -> ProxyHeader | None:
    return ProxyProtocolReader(optional=optional).look(bytearray(data))


@pytest.mark.parametrize(
    ("made", "version"),
    [(version_1(A, B), 1), (version_2(A, B), 2), (version_1(SIX, SIX), 1), (version_2(SIX, SIX), 2)],
)
def test_what_it_writes_it_reads(made: bytes, version: int) -> None:
    source, destination = (SIX, SIX) if SIX[0].encode() in made or b"\x20\x01" in made else (A, B)
    assert read(made + b"rest") == ProxyHeader(version, len(made), source, destination)


def test_addresses_of_two_families() -> None:
    assert version_1(A, SIX) == b"PROXY UNKNOWN\r\n"
    found = read(version_2(A, SIX))
    assert found is not None
    assert found.source == ("::ffff:1.2.3.4", 80)


def test_headers_without_addresses() -> None:
    assert read(LOCAL + b"x") == ProxyHeader(2, 16)
    assert read(b"PROXY UNKNOWN ffff:f...f:ffff\r\nx") == ProxyHeader(1, 31)
    assert read(b"GET /", optional=True) is NONE
    assert read(b"PROXZ", optional=True) is NONE
    assert read(b"PROX", optional=True) is None


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (b"GET /", 0),
        (b"proxy TCP4", 0),
        (b"PROXY UDP4 1.2.3.4 10.0.0.1 80 443\r\n", 1),
        (b"PROXY TCP4 1.2.3.4 10.0.0.1 80\r\n", 1),
        (b"PROXY TCP4 1.2.3.4 10.0.0.1 80 65536\r\n", 1),
        (b"PROXY TCP4 1.2.3.4 10.0.0.1 +80 443\r\n", 1),
        (b"PROXY TCP4 ::1 10.0.0.1 80 443\r\n", 1),
        (b"PROXY TCP4 1.2.3.4 10.0.0.1 80 \xb2\r\n", 1),
        (b"PROXY TCP6 fe80::1%lo ::1 80 443\r\n", 1),
        (b"PROXY TCP4 224.0.0.1 10.0.0.1 80 443\r\n", 1),
        (b"PROXY TCP4 0.0.0.0 10.0.0.1 80 443\r\n", 1),
        (b"PROXY TCP6 ff02::1 ::1 80 443\r\n", 1),
        (b"PROXY UNKNOWN " + b"x" * 94, 1),
        (V2_SIGNATURE + b"\x31\x11\x00\x0c", 2),
        (V2_SIGNATURE + b"\x22\x11\x00\x0c", 2),
        (V2_SIGNATURE + b"\x21\x00\x00\x00", 2),
        (V2_SIGNATURE + b"\x21\x31\x00\xd8", 2),
        (V2_SIGNATURE + b"\x21\x11\x00\x0b", 2),
        (version_2(A, B).replace(b"\x00\x0c", b"\x00\x0e", 1) + b"\xe0\x00", 2),
        (version_2(A, B).replace(b"\x00\x0c", b"\x00\x10", 1) + b"\xe0\x00\x02x", 2),
    ],
)
def test_damaged_headers_are_refused(data: bytes, version: int) -> None:
    with pytest.raises(ProxyProtocolError) as caught:
        read(data)
    assert caught.value.version == version
    # Only a connection without any header may go on where headers are optional.
    if version:
        with pytest.raises(ProxyProtocolError):
            read(data, optional=True)


@given(ADDRESSES, ADDRESSES, st.integers(0, 300), st.integers(1, 40), st.booleans())
def test_any_split_reads_the_same(
    source: Address, destination: Address, tlv: int, step: int, two: bool
) -> None:
    made = (version_2 if two else version_1)(source, destination)
    if two:
        size = int.from_bytes(made[14:16], "big") + 3 + tlv
        made = made[:14] + size.to_bytes(2, "big") + made[16:] + b"\xe0" + tlv.to_bytes(2, "big") + b"x" * tlv
    reader = ProxyProtocolReader(optional=False)
    early = bytearray()
    data = made + b"rest"
    at = 0
    found = None
    failure = None
    while found is None and failure is None and at < len(data):
        early += data[at : at + step]
        at += step
        try:
            found = reader.look(early)
        except ProxyProtocolError as error:
            failure = str(error)
    try:
        expected = read(data)
    except ProxyProtocolError as error:
        assert failure == str(error)
    else:
        assert found == expected
        assert found is not None
        assert found.size == len(made)


@given(st.binary(max_size=300), st.booleans())
def test_junk_raises_nothing_else(data: bytes, optional: bool) -> None:
    for start in (b"", b"PROXY TCP4 ", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11"):
        try:
            read(start + data, optional=optional)
        except ProxyProtocolError:
            pass
