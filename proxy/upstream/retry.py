"""Whether a failed attempt is made again, and when (``config.route.v3.RetryPolicy``). Pure: data and injected chance.

Breakers, hosts and the replay buffer are the exchange's business. The rules are those of Envoy's ``RetryStateImpl``
(``wouldRetryFromHeaders``, ``wouldRetryFromReset``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.grpc import status as grpc_status
from proxy.model.exchange import Head
from proxy.model.route import RetryPolicy

CONNECT_FAILURES = frozenset(("remote_connection_failure", "local_connection_failure", "connection_timeout"))
"""Reset reasons before which nothing of the request was sent."""

HTTP_CONDITIONS: Final = frozenset(
    (
        "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
        "retriable-status-codes", "envoy-ratelimited",
    )
)  # fmt: skip
"""What ``x-envoy-retry-on`` may name."""
GRPC_CONDITIONS: Final = frozenset(
    ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
)
"""What ``x-envoy-retry-grpc-on`` may name. A policy's ``retry_on`` may name both kinds."""

_GATEWAY_ERRORS = frozenset((502, 503, 504))
_ANY_RESET = frozenset(("5xx", "gateway-error", "reset"))
_GRPC_STATUSES: Final = {
    "cancelled": grpc_status.CANCELLED,
    "deadline-exceeded": grpc_status.DEADLINE_EXCEEDED,
    "internal": grpc_status.INTERNAL,
    "resource-exhausted": grpc_status.RESOURCE_EXHAUSTED,
    "unavailable": grpc_status.UNAVAILABLE,
}


class RetryState:
    """The retries of one request. ``left`` counts those that may still be made."""

    __slots__ = ("_conditions", "_policy", "_random", "_statuses", "_tried", "left")

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        """``random`` gives floats in [0, 1)."""
        self._policy = policy
        self._conditions = conditions = frozenset(policy.retry_on)
        self._statuses = (
            frozenset()
            if conditions.isdisjoint(GRPC_CONDITIONS)
            else frozenset(_GRPC_STATUSES[name] for name in conditions & GRPC_CONDITIONS)
        )
        self._random = random
        self._tried = 0
        self.left = policy.num_retries

    def after_reset(self, reason: str, *, started: bool) -> bool:
        """Whether the policy covers a reset before the response. ``reason`` is Envoy's, with underscores.

        ``started``: something of the request was sent, in this attempt or one before it.
        """
        conditions = self._conditions
        if reason == "overflow":
            return False
        if reason in CONNECT_FAILURES and "connect-failure" in conditions:
            return True
        if not started and "reset-before-request" in conditions:
            return True
        if not conditions.isdisjoint(_ANY_RESET):
            return True
        return reason == "remote_refused_stream_reset" and "refused-stream" in conditions

    def after_timeout(self, *, started: bool) -> bool:
        """Whether the policy covers an attempt that took longer than ``per_try_timeout``."""
        return self.after_reset("local_reset", started=started)

    def after_response(self, head: Head) -> bool:
        """Whether the policy covers a response with this head.

        A ``grpc-status`` counts if it is in the head; trailers come too late, for the response is on its way then.
        """
        conditions = self._conditions
        status = head.status
        if head.get(b"x-envoy-ratelimited") is not None:
            # It was another proxy that refused, to be spared.
            return "envoy-ratelimited" in conditions
        if 500 <= status < 600:
            if "5xx" in conditions:
                return True
            if status in _GATEWAY_ERRORS and "gateway-error" in conditions:
                return True
        elif status == 409 and "retriable-4xx" in conditions:
            return True
        if "retriable-status-codes" in conditions and status in self._policy.retriable_status_codes:
            return True
        return bool(self._statuses) and grpc_status.of_head(head) in self._statuses

    def take(self) -> float | None:
        """Use up one retry and give the seconds to wait before it; ``None`` if none is left.

        Envoy's backoff: a random part of ``base_interval`` times 2 to the n-th minus 1, at most ``max_interval``.
        """
        if self.left <= 0:
            return None
        self.left -= 1
        self._tried += 1
        ceiling = min(
            self._policy.base_interval * ((1 << min(self._tried, 30)) - 1), self._policy.max_interval
        )
        return self._random() * ceiling
