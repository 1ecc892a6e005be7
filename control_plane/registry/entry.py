"""A stored object, parsed. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_plane.store.base import Key


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One parsed object; ``model`` is its kind's. Compares by identity: a changed object is another entry."""

    key: Key
    model: Any
    revision: int
    created: int

    @property
    def age(self) -> tuple[int, str, str]:
        """Sorts older objects first, then by namespace and name, as Gateway API and Istio settle conflicts."""
        return (self.created, self.key.namespace, self.key.name)
