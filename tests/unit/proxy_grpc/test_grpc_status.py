"""``proxy.grpc.status``: the values are those of Envoy's ``test/common/grpc``."""

from __future__ import annotations

import pytest

from proxy.grpc import status
from proxy.http1.head import Head, scan_response


def head(fields: bytes, code: int = 200) -> Head:
    found = scan_response(b"HTTP/1.1 %d OK\r\n%b\r\n" % (code, fields))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("http", "grpc"),
    [
        (400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14),
        (200, 2), (301, 2), (405, 2), (408, 2), (413, 2), (426, 2), (500, 2), (501, 2), (0, 2),
    ],
)  # fmt: skip
def test_from_http(http: int, grpc: int) -> None:
    assert status.from_http(http) == grpc


@pytest.mark.parametrize(
    ("grpc", "http"),
    [
        (0, 200), (1, 499), (2, 500), (3, 400), (4, 504), (5, 404), (6, 409), (7, 403), (8, 429), (9, 400), (10, 409),
        (11, 400), (12, 501), (13, 500), (14, 503), (15, 500), (16, 401), (17, 500), (-1, 500), (1 << 40, 500),
    ],
)  # fmt: skip
def test_to_http(grpc: int, http: int) -> None:
    assert status.to_http(grpc) == http


def test_every_code_has_both_names() -> None:
    assert len(status.SNAKE) == len(status.CAMEL) == status.MAXIMUM_KNOWN + 1
    for snake, camel in zip(status.SNAKE, status.CAMEL, strict=True):
        assert snake.replace("_", "").replace("CANCELLED", "CANCELED") == camel.upper()


@pytest.mark.parametrize(
    ("value", "known", "any_code"),
    [
        (None, None, None),
        (b"", None, None),
        (b"0", 0, 0),
        (b"14", 14, 14),
        (b"16", 16, 16),
        (b"17", -1, 17),
        (b"1024", -1, 1024),
        (b"18446744073709551615", -1, (1 << 64) - 1),
        (b"18446744073709551616", -1, -1),
        (b"9" * 5000, -1, -1),
        (b"007", 7, 7),
        (b"+3", 3, 3),
        (b" 3\t", 3, 3),
        (b"-1", -1, -1),
        (b"-0", -1, -1),
        (b"foo", -1, -1),
        (b"1,2", -1, -1),
        (b"1_0", -1, -1),
        ("\u0661".encode(), -1, -1),
    ],
)
def test_parse(value: bytes | None, known: int | None, any_code: int | None) -> None:
    assert status.parse(value) == known
    assert status.parse(value, user_defined=True) == any_code


@pytest.mark.parametrize(
    ("trailers", "fields", "code", "expected"),
    [
        ([(b"grpc-status", b"5")], b"grpc-status: 7\r\n", 503, 5),
        ([(b"grpc-status", b"x")], b"grpc-status: 7\r\n", 200, -1),
        ([(b"grpc-status", b"")], b"grpc-status: 7\r\n", 200, 7),
        ([(b"other", b"5")], b"grpc-status: 7\r\n", 200, 7),
        (None, b"grpc-status: 7\r\n", 200, 7),
        ([], b"", 403, 7),
        (None, b"", 200, 2),
        (None, None, 503, 14),
        (None, None, 0, None),
    ],
)
def test_of_a_response_the_trailers_come_first(
    trailers: list[tuple[bytes, bytes]] | None, fields: bytes | None, code: int, expected: int | None
) -> None:
    response = None if fields is None else head(fields)
    assert status.of_response(trailers, response, code) == expected
