"""``proxy.grpc.message``: what is gRPC, and how texts and messages are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.grpc.message import frame, is_grpc_request, is_grpc_response, percent_encode
from proxy.http1.head import Head, scan_request, scan_response


def request(content_type: bytes | None, line: bytes = b"POST /s/m HTTP/1.1") -> Head:
    field = b"" if content_type is None else b"content-type: " + content_type + b"\r\n"
    found = scan_request(line + b"\r\nhost: h\r\n" + field + b"\r\n")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, False),
        (b"", False),
        (b"application/grpc", True),
        (b"application/grpc+", True),
        (b"application/grpc+proto", True),
        (b"application/grpc+foo", True),
        (b"application/grpc-", False),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpc;charset=utf-8", False),
        (b"application/grpcx", False),
        (b"Application/grpc", False),
        (b"application/json", False),
        (b"application/text", False),
    ],
)
def test_content_type_decides(content_type: bytes | None, expected: bool) -> None:
    assert is_grpc_request(request(content_type)) is expected


def test_response_that_is_only_a_head_needs_a_status_and_any_other_the_type() -> None:
    def response(fields: bytes, code: int = 200) -> Head:
        found = scan_response(b"HTTP/1.1 %d X\r\n%b\r\n" % (code, fields))
        assert found is not None
        return found

    assert is_grpc_response(response(b"grpc-status: 0\r\n"), done=True)
    assert is_grpc_response(response(b"grpc-status: 0\r\n", 503), done=True)
    assert not is_grpc_response(response(b"content-type: application/grpc\r\n"), done=True)
    assert is_grpc_response(response(b"content-type: application/grpc+x\r\n"), done=False)
    assert not is_grpc_response(response(b"content-type: application/grpc\r\n", 503), done=False)
    assert not is_grpc_response(response(b"content-type: application/grpc-web\r\n"), done=False)
    assert not is_grpc_response(response(b"grpc-status: 0\r\n"), done=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", b""),
        (b"too large", b"too large"),
        (b"_-ok-_", b"_-ok-_"),
        ("\u2764\ufe0f\U0001f338".encode(), b"%E2%9D%A4%EF%B8%8F%F0%9F%8C%B8"),
        (b"100%", b"100%25"),
        (b"~}", b"%7E}"),
        (b"\x7f\n\r\t\0", b"%7F%0A%0D%09%00"),
        (b"a\xff", b"a%FF"),
    ],
)
def test_percent_encoding(text: bytes, expected: bytes) -> None:
    assert percent_encode(text) == expected


@given(st.binary(max_size=40))
def test_percent_encoding_can_be_undone_and_is_a_field_value(text: bytes) -> None:
    from urllib.parse import unquote_to_bytes

    encoded = percent_encode(text)
    assert unquote_to_bytes(encoded) == text
    assert all(0x20 <= byte < 0x7E for byte in encoded)


def test_a_frame_tells_its_length() -> None:
    assert frame(b"") == b"\0\0\0\0\0"
    assert frame(b"ab" * 200) == b"\0\0\0\x01\x90" + b"ab" * 200
