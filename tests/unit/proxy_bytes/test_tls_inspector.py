"""Reading a ClientHello: what OpenSSL sends, in any pieces, and what no client sends."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tls.inspector import MAX_BYTES, RAW, Inspection, InspectionError, Inspector


def client_hello(name: str | None = None, *protocols: str) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def inspect(data: bytes) -> Inspection | None:
    return Inspector().look(bytearray(data))


HELLO = client_hello("Svc.Example", "tulle", "http/1.1")
READ = Inspection("tls", "svc.example", ("tulle", "http/1.1"))


def in_records(hello: bytes, size: int) -> bytes:
    body = hello[5:]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def test_what_openssl_sends() -> None:
    assert inspect(HELLO) == READ
    assert inspect(client_hello()) == Inspection("tls")
    assert inspect(client_hello("10.0.0.1")) == Inspection("tls")
    assert inspect(HELLO + b"more") == READ


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"\x00", b"\x15\x03\x01", b"\x16\x02", b"\x16GET"])
def test_anything_else_is_raw(data: bytes) -> None:
    assert inspect(data) is RAW


@given(st.integers(1, 600))
def test_records_of_any_size(size: int) -> None:
    assert inspect(in_records(HELLO, size)) == READ


@given(st.integers(1, 300), st.integers(1, 70))
def test_it_needs_the_whole_hello_and_nothing_else(size: int, step: int) -> None:
    data = in_records(HELLO, size)
    inspector = Inspector()
    early = bytearray()
    for at in range(0, len(data) - step, step):
        early += data[at : at + step]
        assert inspector.look(early) is None
    early += data[len(early) :]
    assert inspector.look(early) == READ
    assert bytes(early) == data
    assert Inspector().look(bytearray()) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x04\x01\x01\x00\x00",
        b"\x16\x03\x01\x00\x01\x01\x17\x03\x03\x00\x01a",
        b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03",
        HELLO[:43] + b"\xff" + HELLO[44:],
    ],
)
def test_broken_hellos_are_refused(data: bytes) -> None:
    with pytest.raises(InspectionError):
        inspect(data)
    inspector = Inspector()
    with pytest.raises(InspectionError):
        for size in range(1, len(data) + 1):
            inspector.look(bytearray(data[:size]))


def test_its_size_is_limited() -> None:
    huge = b"\x01\x00\x3f\xff" + b"a" * 0x3FFF
    with pytest.raises(InspectionError) as caught:
        inspect(in_records(b"....." + huge, 1)[: MAX_BYTES + 10])
    assert caught.value.too_large
    with pytest.raises(InspectionError, match="larger than 300 bytes"):
        Inspector(300).look(bytearray(HELLO))


@given(st.binary(max_size=200))
def test_junk_never_raises_anything_else(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", HELLO[:60]):
        try:
            inspect(start + data)
        except InspectionError:
            pass
