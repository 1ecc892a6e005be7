"""Request identifiers, addresses in ``x-forwarded-for``, and what an internal request may ask of the router."""

from __future__ import annotations

import uuid

import pytest

from proxy.http1.head import scan_request
from proxy.model.route import RetryPolicy
from proxy.model.stats import RouteStats
from proxy.runtime.entry import RouteEntry
from proxy.stream.arrival import last_address, new_id
from proxy.stream.asked import as_asked


def test_new_identifiers_are_random_uuids() -> None:
    made = {new_id() for _ in range(500)}
    assert len(made) == 500
    for one in made:
        parsed = uuid.UUID(one.decode())
        assert parsed.version == 4 and parsed.variant == uuid.RFC_4122 and str(parsed).encode() == one


@pytest.mark.parametrize(
    ("value", "hops", "address"),
    [
        (b"1.2.3.4", 0, "1.2.3.4"), (b"9.9.9.9, 1.2.3.4 ", 0, "1.2.3.4"), (b"1.2.3.4,5.6.7.8", 1, "1.2.3.4"),
        (b"1.2.3.4", 1, None), (b"", 0, None), (b"a", 0, None), (b"1.2.3.4,", 0, None),
        (b"2001:DB8::1", 0, "2001:db8::1"),
        (b"fe80::1%eth0", 0, None), (b"1.2.3.4:80", 0, None), (b"\xff", 0, None), (b"1,2,3.3.3.3,4", 1, "3.3.3.3"),
    ],
)  # fmt: skip
def test_trusted_hops_are_counted_from_the_right(value: bytes, hops: int, address: str | None) -> None:
    assert last_address(value, hops) == (None if address is None else (address, 0))


ROUTE = RouteEntry("r", "v", RouteStats(), timeout=15.0)
POLICY = RetryPolicy(("5xx",), num_retries=3, per_try_timeout=2.0)


@pytest.mark.parametrize(
    ("route", "lines", "timeout", "retry"),
    [
        (ROUTE, b"", 15.0, None),
        (ROUTE, b"x-envoy-upstream-rq-timeout-ms: 250\r\n", 0.25, None),
        (ROUTE, b"x-envoy-upstream-rq-timeout-ms: 0\r\n", 0.0, None),
        (ROUTE, b"x-envoy-upstream-rq-timeout-ms: -1\r\n", 15.0, None),
        (ROUTE, b"x-envoy-upstream-rq-timeout-ms: 1s\r\n", 15.0, None),
        (ROUTE, b"x-envoy-max-retries: 7\r\n", 15.0, None),
        (ROUTE, b"x-envoy-retry-on: reset, 5xx\r\n", 15.0, RetryPolicy(("reset", "5xx"))),
        (ROUTE, b"x-envoy-retry-on: reset\r\nx-envoy-max-retries: 7\r\n", 15.0, RetryPolicy(("reset",), 7)),
        (
            ROUTE,
            b"x-envoy-retry-on: retriable-status-codes\r\nx-envoy-retriable-status-codes: 404,x,409\r\n",
            15.0,
            RetryPolicy(("retriable-status-codes",), retriable_status_codes=(404, 409)),
        ),
        (ROUTE, b"x-envoy-retry-grpc-on: unavailable\r\n", 15.0, RetryPolicy(("unavailable",))),
        (
            ROUTE,
            b"x-envoy-retry-on: 5xx,nonsense\r\nx-envoy-retry-grpc-on: internal , cancelled\r\n",
            15.0,
            RetryPolicy(("5xx", "internal", "cancelled")),
        ),
        # Each field has conditions of its own, and what is none of them is ignored.
        (ROUTE, b"x-envoy-retry-on: unavailable\r\nx-envoy-retry-grpc-on: 5xx\r\n", 15.0, None),
    ],
)
def test_internal_requests_ask(
    route: RouteEntry, lines: bytes, timeout: float, retry: RetryPolicy | None
) -> None:
    head = scan_request(b"GET / HTTP/1.1\r\nhost: a\r\n" + lines + b"\r\n")
    assert head is not None
    made = as_asked(route, head)
    assert (made.timeout, made.retry) == (timeout, retry)


def test_a_policy_of_the_route_is_added_to() -> None:
    head = scan_request(
        b"GET / HTTP/1.1\r\nhost: a\r\nx-envoy-retry-on: reset\r\nx-envoy-upstream-rq-per-try-timeout-ms: 100\r\n\r\n"
    )
    assert head is not None
    route = RouteEntry("r", "v", RouteStats(), retry=POLICY)
    assert as_asked(route, head).retry == RetryPolicy(("5xx", "reset"), num_retries=3, per_try_timeout=0.1)
