"""``proxy.stream.timeouts``: the cases of Envoy's connection manager tests on ``grpc_timeout_header_max``."""

from __future__ import annotations

import pytest

from proxy.http1.head import scan_request
from proxy.model.route import StreamDuration
from proxy.model.stats import RouteStats
from proxy.runtime.entry import RouteEntry
from proxy.stream.timeouts import AT_ONCE, LEFT_OUT, response_timeout, stream_limit

PLAIN = StreamDuration()


@pytest.mark.parametrize(
    ("rules", "of_route", "of_manager", "asked", "seconds", "told"),
    [
        # No word of durations in the route: the manager's counts, and the field passes as it is.
        (None, None, 0.0, b"1S", 0.0, None),
        (None, None, 5.0, b"1S", 5.0, None),
        # The field is not read, but overwritten with what counts.
        (PLAIN, 2.0, 0.0, b"1S", 2.0, b"2000m"),
        (PLAIN, None, 5.0, b"1S", 5.0, b"5000m"),
        (PLAIN, 2.0, 5.0, None, 2.0, b"2000m"),
        (PLAIN, 0.0, 0.0, b"1S", 0.0, None),
        (PLAIN, 0.0, 5.0, b"1S", 0.0, LEFT_OUT),
        (PLAIN, None, 0.0, b"1S", 0.0, None),
        # The field is read.
        (StreamDuration(None, 3.0), 20.0, 5.0, b"1S", 1.0, b"1000m"),
        (StreamDuration(None, 3.0), 20.0, 5.0, b"10S", 3.0, b"3000m"),
        (StreamDuration(None, 0.0), 20.0, 5.0, b"10S", 10.0, b"10000m"),
        (StreamDuration(None, 0.0), None, 0.0, b"99999999H", 359999996400.0, b"99999999H"),
        (StreamDuration(None, 3.0), 20.0, 5.0, None, 20.0, b"20000m"),
        (StreamDuration(None, 3.0), 20.0, 5.0, b"100000000S", 20.0, b"20000m"),
        (StreamDuration(None, 3.0), None, 5.0, b"junk", 5.0, b"5000m"),
        (StreamDuration(None, 0.0), 20.0, 0.0, b"0m", AT_ONCE, b"0m"),
        (StreamDuration(None, 0.0), 20.0, 0.0, b"1n", 0.001, b"1m"),
        # The offset comes after the maximum.
        (StreamDuration(None, 3.0, 0.25), 20.0, 0.0, b"10S", 2.75, b"2750m"),
        (StreamDuration(None, 0.0, 0.25), 20.0, 0.0, b"1S", 0.75, b"750m"),
        (StreamDuration(None, 0.0, 0.25), 20.0, 0.0, b"250m", AT_ONCE, b"0m"),
        (StreamDuration(None, 0.0, 0.25), 20.0, 0.0, b"1m", AT_ONCE, b"0m"),
        (StreamDuration(None, 0.0, 0.25), 20.0, 0.0, None, 20.0, b"20000m"),
        (StreamDuration(None, None, 0.25), 20.0, 0.0, b"1S", 20.0, b"20000m"),
    ],
)
def test_what_limits_a_stream(
    rules: StreamDuration | None,
    of_route: float | None,
    of_manager: float,
    asked: bytes | None,
    seconds: float,
    told: bytes | None,
) -> None:
    field = b"" if asked is None else b"grpc-timeout: " + asked + b"\r\n"
    head = scan_request(b"POST /s/m HTTP/1.1\r\nhost: h\r\n" + field + b"\r\n")
    assert head is not None
    route = RouteEntry("r", "v", RouteStats(), max_stream_duration=of_route, stream_duration=rules)
    assert stream_limit(route, head, of_manager, grpc=True) == (seconds, told)
    # It holds for everybody who sends the field, but is written for gRPC alone.
    assert stream_limit(route, head, of_manager, grpc=False) == (seconds, None)


@pytest.mark.parametrize(
    ("longest", "offset", "value", "expected"),
    [
        (0.0, 0.0, b"2S", 2.0),
        (0.0, 0.0, None, 0.0),
        (3.0, 0.0, None, 3.0),
        (3.0, 0.0, b"10S", 3.0),
        (3.0, 0.5, b"2S", 1.5),
        (3.0, 0.5, b"500m", 0.5),
        (3.0, 0.0, b"junk", 3.0),
    ],
)
def test_the_deprecated_timeout_of_grpc(
    longest: float, offset: float, value: bytes | None, expected: float
) -> None:
    route = RouteEntry("r", "v", RouteStats(), max_grpc_timeout=longest, grpc_timeout_offset=offset)
    field = b"" if value is None else b"grpc-timeout: " + value + b"\r\n"
    head = scan_request(b"POST /s/m HTTP/1.1\r\nhost: h\r\n" + field + b"\r\n")
    assert head is not None
    assert response_timeout(route, head) == expected
