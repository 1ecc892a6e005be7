"""The pure decisions of ``proxy.upstream``: when to connect, when to try again."""

from __future__ import annotations

import pytest

from proxy.http1.head import Head, scan_response
from proxy.model.route import RetryPolicy
from proxy.upstream.pool import wants_connection
from proxy.upstream.retry import RetryState


@pytest.mark.parametrize(
    ("waiting", "connecting", "open_connections", "room", "expected"),
    [
        (1, 0, 0, True, True),
        (1, 1, 0, True, False),
        (2, 1, 3, True, True),
        (0, 0, 0, True, False),
        (1, 0, 1, False, False),
        (1, 0, 0, False, True),
        (2, 1, 0, False, False),
    ],
)
def test_when_to_connect(
    waiting: int, connecting: int, open_connections: int, room: bool, expected: bool
) -> None:
    assert (
        wants_connection(waiting=waiting, connecting=connecting, open_connections=open_connections, room=room)
        is expected
    )


def state(*conditions: str, retries: int = 3, codes: tuple[int, ...] = (), chance: float = 0.5) -> RetryState:
    return RetryState(RetryPolicy(conditions, retries, None, codes), lambda: chance)


@pytest.mark.parametrize(
    ("condition", "reason", "expected"),
    [
        ("connect-failure", "remote_connection_failure", True),
        ("connect-failure", "connection_timeout", True),
        ("connect-failure", "connection_termination", False),
        ("reset", "connection_termination", True),
        ("reset", "protocol_error", True),
        ("reset", "overflow", False),
        ("5xx", "connection_termination", True),
        ("gateway-error", "local_connection_failure", True),
        ("refused-stream", "connection_termination", False),
        ("refused-stream", "remote_reset", False),
        ("refused-stream", "local_refused_stream_reset", False),
        ("refused-stream", "remote_refused_stream_reset", True),
        ("connect-failure", "remote_refused_stream_reset", False),
        ("reset", "remote_refused_stream_reset", True),
        ("reset-before-request", "remote_connection_failure", False),
        ("reset-before-request", "remote_refused_stream_reset", False),
        ("retriable-status-codes", "remote_connection_failure", False),
        ("unavailable", "remote_reset", False),
        ("retriable-4xx", "connection_termination", False),
    ],
)
def test_which_resets_once_something_was_sent(condition: str, reason: str, expected: bool) -> None:
    assert state(condition).after_reset(reason, started=True) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("remote_connection_failure", True),
        ("connection_termination", True),
        ("remote_refused_stream_reset", True),
        ("local_reset", True),
        ("overflow", False),
    ],
)
def test_resets_before_anything_was_sent_have_a_condition(reason: str, expected: bool) -> None:
    assert state("reset-before-request").after_reset(reason, started=False) is expected
    assert not state("refused-stream").after_reset("local_reset", started=False)


@pytest.mark.parametrize(
    ("condition", "started", "expected"),
    [
        ("5xx", True, True),
        ("gateway-error", True, True),
        ("reset", True, True),
        ("reset-before-request", False, True),
        ("reset-before-request", True, False),
        ("connect-failure", False, False),
        ("deadline-exceeded", True, False),
    ],
)
def test_which_tries_that_took_too_long(condition: str, started: bool, expected: bool) -> None:
    assert state(condition).after_timeout(started=started) is expected


def response(status: int, fields: bytes = b"") -> Head:
    head = scan_response(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, fields))
    assert head is not None
    return head


@pytest.mark.parametrize(
    ("condition", "statuses"),
    [
        ("5xx", {500, 501, 502, 503, 504, 599}),
        ("gateway-error", {502, 503, 504}),
        ("retriable-4xx", {409}),
        ("retriable-status-codes", {418}),
        ("connect-failure", set()),
    ],
)
def test_which_statuses(condition: str, statuses: set[int]) -> None:
    it = state(condition, codes=(418,))
    assert {status for status in range(200, 700) if it.after_response(response(status))} >= statuses
    assert not it.after_response(response(200)) and not it.after_response(response(404))
    if condition != "5xx":
        assert {status for status in range(200, 700) if it.after_response(response(status))} == statuses
    else:
        assert not it.after_response(response(600))


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("cancelled", 1),
        ("deadline-exceeded", 4),
        ("resource-exhausted", 8),
        ("internal", 13),
        ("unavailable", 14),
    ],
)
def test_which_grpc_statuses_of_a_head(condition: str, status: int) -> None:
    it = state(condition)
    retried = {n for n in range(20) if it.after_response(response(200, b"grpc-status: %d\r\n" % n))}
    assert retried == {status}
    # As in Envoy, whatever the content type and the HTTP status are, and whether a body follows.
    assert it.after_response(response(404, b"grpc-status: %d\r\n" % status))
    assert not it.after_response(response(503))
    assert not it.after_response(response(200, b"grpc-status: x\r\n"))


def test_conditions_of_both_kinds_are_a_union() -> None:
    it = state("gateway-error", "unavailable", "cancelled")
    assert it.after_response(response(503))
    assert it.after_response(response(200, b"grpc-status: 14\r\n"))
    assert it.after_response(response(200, b"grpc-status: 1\r\n"))
    assert not it.after_response(response(200, b"grpc-status: 13\r\n"))


def test_what_another_proxy_has_limited_is_tried_again_only_if_asked_for() -> None:
    limited = response(503, b"x-envoy-ratelimited: true\r\ngrpc-status: 14\r\n")
    assert not state("5xx", "gateway-error", "unavailable", "reset").after_response(limited)
    assert state("envoy-ratelimited").after_response(limited)
    assert state("envoy-ratelimited").after_response(response(200, b"x-envoy-ratelimited: true\r\n"))
    assert not state("envoy-ratelimited").after_response(response(429))


def test_backoff_grows_to_its_limit_and_retries_end() -> None:
    it = state("5xx", retries=6, chance=1.0)
    assert [it.take() for _ in range(7)] == pytest.approx(
        [0.025, 0.075, 0.175, 0.25, 0.25, 0.25, None], nan_ok=False
    )
    assert state("5xx", chance=0.0).take() == 0.0
    assert state("5xx", retries=0).take() is None
