"""Effective weights: what a weight of zero means."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.cluster.host import Host

# RFC 2782: a record of weight 0 has "a very small chance of being selected" beside others; here, 1/100 of weight 1.
_SCALE = 100


def effective_weights(hosts: Sequence[Host]) -> list[int] | None:
    """A weight > 0 for each host, or ``None`` when all weigh the same."""
    weights = [h.weight for h in hosts]
    if len(set(weights)) <= 1:
        return None
    return [w * _SCALE or 1 for w in weights] if 0 in weights else weights
