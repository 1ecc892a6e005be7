"""The judge of rapid resets (CVE-2023-44487), by the rule of Envoy's connection manager.

A request that was over before any response to it began, within the minimal lifetime, was reset prematurely. Once as
many streams have closed as the limit says, or so many were reset that no number of good ones could make up for it,
the connection is to end if half of them were: Envoy counts ``downstream_rq_too_many_premature_resets``. It reads no
clock: lifetimes are handed in.
"""

from __future__ import annotations

from proxy.http2.limits import FloodLimits


class PrematureResets:
    """Closed streams of one downstream connection. Those that we ended for our own reasons are not told to it."""

    __slots__ = ("_least", "_limit", "closed", "premature")

    def __init__(self, limits: FloodLimits) -> None:
        self._limit = limits.premature_reset_total_stream_count
        self._least = limits.premature_reset_min_stream_lifetime_seconds
        self.closed = 0
        self.premature = 0

    def stream_closed(self, lifetime: float, *, responded: bool) -> bool:
        """A stream is over after ``lifetime`` seconds, with the response's status known or not: whether the
        connection is to end."""
        self.closed += 1
        # Envoy compares whole seconds: with a minimum of 1, what took less than 2.
        if not responded and int(lifetime) <= self._least:
            self.premature += 1
        elif not self.premature:
            return False
        return self.premature * 2 >= max(self.closed, self._limit)
