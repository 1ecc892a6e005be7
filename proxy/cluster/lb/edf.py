"""Earliest deadline first: picks in proportion to weight, evenly interleaved, in O(log n)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Edf(Generic[T]):
    """A weighted schedule. ``weight(item)`` (> 0) is asked again each time the item was picked, so it may change.

    ``random`` gives the starting point, lest all proxies begin with the same item.
    """

    __slots__ = ("_heap", "_order", "_weight")

    def __init__(
        self, items: Sequence[T], weight: Callable[[T], float], random: Callable[[], float] | None = None
    ) -> None:
        self._weight = weight
        self._heap: list[tuple[float, int, T]] = [(1.0 / weight(i), n, i) for n, i in enumerate(items)]
        self._order = len(items)
        heapq.heapify(self._heap)
        if random is not None:
            for _ in range(int(random() * len(items))):
                self.pick()

    def pick(self) -> T:
        """The next item. There must be at least one."""
        heap = self._heap
        deadline, _, item = heap[0]
        # The order breaks ties: what waited longer goes first.
        self._order = order = self._order + 1
        heapq.heapreplace(heap, (deadline + 1.0 / self._weight(item), order, item))
        return item
