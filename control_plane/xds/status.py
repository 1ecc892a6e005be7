"""Status (skeleton)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from control_plane.store.base import Key


class StatusBoard:
    """Implements the API's ``StatusProvider``."""

    def __init__(self, *, clock: Callable[[], float]) -> None: ...

    def conditions(self, key: Key, generation: int) -> dict[str, Any]:
        """The object's whole ``status``: ``{"conditions": [...]}``, or ``{"parents": [...]}`` for routes."""
        raise NotImplementedError
