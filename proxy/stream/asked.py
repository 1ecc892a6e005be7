"""What an internal request may ask of the router: other timeouts and retries than its route has.

Only requests that ``proxy.stream.arrival`` took for internal come here; everybody else's ``x-envoy-*`` is gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from proxy.http1.head import Head
from proxy.model.route import RetryPolicy
from proxy.runtime.entry import RouteEntry
from proxy.upstream.retry import GRPC_CONDITIONS, HTTP_CONDITIONS

TIMEOUT: Final = b"x-envoy-upstream-rq-timeout-ms"
PER_TRY_TIMEOUT: Final = b"x-envoy-upstream-rq-per-try-timeout-ms"
RETRY_ON: Final = b"x-envoy-retry-on"
RETRY_GRPC_ON: Final = b"x-envoy-retry-grpc-on"
MAX_RETRIES: Final = b"x-envoy-max-retries"
STATUS_CODES: Final = b"x-envoy-retriable-status-codes"
CONSUMED: Final = frozenset(
    (
        TIMEOUT, PER_TRY_TIMEOUT, RETRY_ON, MAX_RETRIES, STATUS_CODES, RETRY_GRPC_ON,
        b"x-envoy-expected-rq-timeout-ms", b"x-envoy-hedge-on-per-try-timeout", b"x-envoy-retriable-header-names",
        b"x-envoy-upstream-alt-stat-name", b"x-envoy-upstream-rq-timeout-alt-response",
    )
)  # fmt: skip
"""Fields that are for this router and go no further."""
_NO_RETRIES: Final = RetryPolicy(())


def as_asked(route: RouteEntry, head: Head) -> RouteEntry:
    """The route with what the request asks for. As in Envoy, what is no number and no condition is ignored.

    Each of the two fields of conditions has its own; what they name is added to what the route has.
    """
    timeout = _seconds(head.get(TIMEOUT))
    per_try = _seconds(head.get(PER_TRY_TIMEOUT))
    retry_on = [word for word in _words(head.get(RETRY_ON)) if word in HTTP_CONDITIONS]
    retry_on += [word for word in _words(head.get(RETRY_GRPC_ON)) if word in GRPC_CONDITIONS]
    max_retries = _number(head.get(MAX_RETRIES))
    codes = tuple(
        code for word in _words(head.get(STATUS_CODES)) if (code := _number(word.encode())) is not None
    )
    if timeout is not None:
        route = replace(route, timeout=timeout)
    policy = route.retry or _NO_RETRIES
    conditions = policy.retry_on + tuple(word for word in retry_on if word not in policy.retry_on)
    if per_try is not None:
        policy = replace(policy, per_try_timeout=per_try)
    if conditions:
        policy = replace(
            policy,
            retry_on=conditions,
            num_retries=policy.num_retries if max_retries is None else max_retries,
            retriable_status_codes=policy.retriable_status_codes + codes,
        )
    if policy != (route.retry or _NO_RETRIES):
        route = replace(route, retry=policy)
    return route


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) <= 10 else None


def _seconds(value: bytes | None) -> float | None:
    number = _number(value)
    return None if number is None else number / 1000


def _words(value: bytes | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(word.strip() for word in value.decode("latin-1").split(",") if word.strip())
