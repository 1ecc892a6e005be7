"""When to ask again: pure arithmetic on TTLs; randomness is passed in."""

from __future__ import annotations


def refresh_delay(ttl: float, min_ttl: float, max_ttl: float, jitter: float) -> float:
    """Seconds until the next query of a record with ``ttl`` seconds to live.

    The TTL is bounded to ``[min_ttl, max_ttl]`` so that neither 0 nor 2**31 does harm (RFC 2181 section 8), and
    the query goes out 0 to 10 % early (``jitter`` in [0, 1)) so that sidecars started together spread out.
    """
    bounded = min(max(ttl, min_ttl), max_ttl)
    return bounded * (1.0 - 0.1 * jitter)


def retry_delay(failures: int, base: float, ceiling: float, jitter: float) -> float:
    """Seconds until the next try after ``failures`` (>= 1) failed ones: exponential, capped, half of it random."""
    full = min(ceiling, base * 2.0 ** min(failures - 1, 16))
    return full * (0.5 + 0.5 * jitter)
