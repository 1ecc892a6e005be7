"""Splits traffic by weight."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar

from proxy.model.config import ConfigError

T = TypeVar("T")


def compile_choice(
    shares: Sequence[tuple[int, T]], random: Callable[[], float], field: str
) -> Callable[[], T]:
    """A function that gives each item in proportion to its weight, never one of weight 0.

    A single item needs no weight. Raises ``ConfigError`` for ``field`` when there is nothing to choose from.
    """
    if not shares:
        raise ConfigError(field, "at least one cluster is needed")
    if len(shares) == 1:
        only = shares[0][1]
        return lambda: only
    shares = [share for share in shares if share[0] > 0]
    if not shares:
        raise ConfigError(field, "the sum of the weights must be greater than 0")
    items = [item for _, item in shares]
    bounds = list(accumulate(weight for weight, _ in shares))
    total = bounds[-1]
    return lambda: items[bisect_right(bounds, int(random() * total))]
