"""When a certificate is renewed, and how long to wait after a failure. Pure: times and random numbers come in.

It must not read a clock, sleep or draw random numbers. All times are seconds; all random numbers lie in [0,
1).
"""

from __future__ import annotations

JITTER = 0.1
"""Half the width of the window around the half-life, as a share of the validity: 45 % … 55 %."""

RETRY_BASE = 1.0
RETRY_CAP = 60.0


def renew_at(not_before: float, not_after: float, random: float) -> float:
    """Half of the validity, spread so that sidecars started together do not renew together."""
    lifetime = not_after - not_before
    return not_before + lifetime * (0.5 + JITTER * (random - 0.5))


def retry_delay(
    failures: int,
    random: float,
    *,
    remaining: float | None = None,
    base: float = RETRY_BASE,
    cap: float = RETRY_CAP,
) -> float:
    """Seconds to wait after the ``failures``-th failure in a row (1 = the first).

    Exponential from ``base`` to ``cap``, of which a random half is taken away. ``remaining`` is what is
    left of the certificate's life: near its end the attempts come closer together, so that several of them
    fit.
    """
    exponent = min(max(failures, 1) - 1, 30)
    delay = min(base * 2.0**exponent, cap)
    if remaining is not None and remaining > 0:
        delay = min(delay, max(remaining / 10, base))
    return delay * (0.5 + random / 2)
