"""The pure decisions of ``proxy.upstream``: when to connect, when to try again."""

from __future__ import annotations

import pytest

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
        ("retriable-status-codes", "remote_connection_failure", False),
    ],
)
def test_which_resets(condition: str, reason: str, expected: bool) -> None:
    assert state(condition).after_reset(reason) is expected


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
    assert {status for status in range(200, 600) if it.after_response(status)} >= statuses
    assert not it.after_response(200) and not it.after_response(404)
    if condition != "5xx":
        assert {status for status in range(200, 600) if it.after_response(status)} == statuses


def test_backoff_grows_to_its_limit_and_retries_end() -> None:
    it = state("5xx", retries=6, chance=1.0)
    assert [it.take() for _ in range(7)] == pytest.approx(
        [0.025, 0.075, 0.175, 0.25, 0.25, 0.25, None], nan_ok=False
    )
    assert state("5xx", chance=0.0).take() == 0.0
    assert state("5xx", retries=0).take() is None
