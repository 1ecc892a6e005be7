"""RANDOM: any host; with different weights, in proportion to them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from proxy.cluster.host import Host
from proxy.cluster.lb.weights import effective_weights


def random_choice(hosts: Sequence[Host], random: Callable[[], float]) -> Callable[[], Host]:
    """A function that gives one of ``hosts`` (not empty)."""
    weights = effective_weights(hosts)
    count = len(hosts)
    if weights is None:
        return lambda: hosts[int(random() * count)]
    bounds = list(accumulate(weights))
    total = bounds[-1]
    return lambda: hosts[bisect_right(bounds, int(random() * total))]
