"""Keeps what was built, for as long as it is built from the same things.

One entry per key: asked for with equal inputs it gives the same object, with others it builds anew. Whoever builds
must depend on nothing but the key and the inputs. This module must not know what it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Cache:
    """Results by key. ``built`` counts how often something had to be built."""

    __slots__ = ("_older", "_recent", "built")

    def __init__(self) -> None:
        self._recent: dict[Hashable, tuple[tuple[Any, ...], Any]] = {}
        self._older: dict[Hashable, tuple[tuple[Any, ...], Any]] = {}
        self.built = 0

    def get(self, key: Hashable, inputs: tuple[Any, ...], build: Callable[[], T]) -> T:
        """What ``build`` gave for ``key`` when the inputs were equal to these."""
        entry = self._recent.get(key) or self._older.get(key)
        if entry is None or entry[0] != inputs:
            self.built += 1
            entry = (inputs, build())
        self._recent[key] = entry
        found: T = entry[1]
        return found

    def turn(self) -> None:
        """A new view: forget what was not asked for since the call before this one."""
        self._older, self._recent = self._recent, {}
