"""``proxy.cluster.outcome``: what Envoy's router counts for a host and tells its outlier detection."""

from __future__ import annotations

import pytest

from proxy.cluster.outcome import End, reset_result, response_code, result_code, succeeded
from proxy.http1.head import Head, scan_response

Trailers = list[tuple[bytes, bytes]] | None
ENDS: tuple[End, ...] = ("whole", "cut_off", "abandoned")


def head(status: int, grpc: int | None = None) -> Head:
    field = b"" if grpc is None else b"grpc-status: %d\r\n" % grpc
    found = scan_response(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, field))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("status", "expected"), [(200, True), (302, True), (404, True), (499, True), (500, False), (503, False)]
)
def test_plain_requests_go_by_the_status_of_the_head(status: int, expected: bool) -> None:
    for end in ENDS:
        assert succeeded(head(status), grpc=False, trailers=None, empty=False, end=end) is expected


@pytest.mark.parametrize(
    ("response", "trailers", "empty", "expected"),
    [
        (head(200, 0), None, True, True),
        (head(200, 5), None, True, True),
        (head(200, 1), None, True, True),
        (head(200, 4), None, True, False),
        (head(200, 14), None, True, False),
        (head(200, 12), None, True, False),
        (head(200, 99), None, True, False),
        (head(200), None, True, False),
        (head(404), None, True, False),
        # A body must be followed by trailers, whatever the head says.
        (head(200, 0), None, False, False),
        (head(200), [(b"grpc-status", b"0")], False, True),
        (head(200), [(b"grpc-status", b"7")], False, True),
        (head(200), [(b"grpc-status", b"13")], False, False),
        (head(200), [(b"grpc-status", b"junk")], False, False),
        (head(200), [(b"other", b"0")], False, False),
        (head(200, 0), [], False, False),
        (head(503), [(b"grpc-status", b"0")], False, False),
    ],
)
def test_calls_go_by_their_own_status(
    response: Head, trailers: Trailers, empty: bool, expected: bool
) -> None:
    assert succeeded(response, grpc=True, trailers=trailers, empty=empty, end="whole") is expected


def test_a_call_that_was_cut_off_is_an_error_unless_the_client_left() -> None:
    for empty in (False, True):
        for end, expected in zip(ENDS[1:], (False, None), strict=True):
            found = succeeded(head(200), grpc=True, trailers=None, empty=empty, end=end)
            assert found is expected


@pytest.mark.parametrize(
    ("response", "plain", "grpc"),
    [
        (head(200), 200, 200),
        (head(503), 503, 503),
        (head(200, 0), 200, 200),
        (head(200, 14), 200, 503),
        (head(200, 8), 200, 429),
        (head(500, 0), 500, 200),
        (head(200, 99), 200, 500),
    ],
)
def test_outlier_detection_is_told_the_status_in_the_head(response: Head, plain: int, grpc: int) -> None:
    assert response_code(response, grpc=False) == plain
    assert response_code(response, grpc=True) == grpc


def test_failures_on_the_way_have_codes_of_their_own() -> None:
    assert reset_result("overflow") is None
    for reason in ("remote_connection_failure", "remote_refused_stream_reset", "protocol_error"):
        assert reset_result(reason) == "connect_failed"
    assert result_code("connect_failed") == 503
    assert result_code("timeout") == 504
    assert result_code("connect_success") is None
