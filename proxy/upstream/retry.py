"""Whether a failed attempt is made again, and when (``config.route.v3.RetryPolicy``). Pure: data and injected chance.

Breakers, hosts and the replay buffer are the exchange's business.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.model.route import RetryPolicy

CONNECT_FAILURES = frozenset(("remote_connection_failure", "local_connection_failure", "connection_timeout"))
"""Reset reasons before which nothing of the request was sent."""

_GATEWAY_ERRORS = frozenset((502, 503, 504))


class RetryState:
    """The retries of one request. ``left`` counts those that may still be made."""

    __slots__ = ("_conditions", "_policy", "_random", "_tried", "left")

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        """``random`` gives floats in [0, 1)."""
        self._policy = policy
        self._conditions = frozenset(policy.retry_on)
        self._random = random
        self._tried = 0
        self.left = policy.num_retries

    def after_reset(self, reason: str) -> bool:
        """Whether the policy covers a reset before the response. ``reason`` is Envoy's, with underscores."""
        conditions = self._conditions
        if reason == "overflow":
            return False
        if reason in CONNECT_FAILURES:
            return bool(
                conditions & {"connect-failure", "5xx", "gateway-error", "reset", "reset-before-request"}
            )
        return bool(conditions & {"5xx", "gateway-error", "reset"})

    def after_timeout(self) -> bool:
        """Whether the policy covers an attempt that took longer than ``per_try_timeout``."""
        return bool(self._conditions & {"5xx", "gateway-error", "reset"})

    def after_response(self, status: int) -> bool:
        """Whether the policy covers a response with this status."""
        conditions = self._conditions
        if status >= 500:
            if "5xx" in conditions:
                return True
            if status in _GATEWAY_ERRORS and "gateway-error" in conditions:
                return True
        elif status == 409 and "retriable-4xx" in conditions:
            return True
        return "retriable-status-codes" in conditions and status in self._policy.retriable_status_codes

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
