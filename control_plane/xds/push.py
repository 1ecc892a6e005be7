"""Pushes (skeleton)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_plane.store.base import Store
from control_plane.xds.mesh import Mesh
from control_plane.xds.status import StatusBoard


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Seconds throughout."""

    debounce: float = 0.010
    debounce_max: float = 0.100
    leave_grace: float = 10.0
    orphan_grace: float = 60.0


class Pusher:
    def __init__(
        self, store: Store, mesh: Mesh[Any], board: StatusBoard, *, options: PushOptions | None = None
    ) -> None: ...

    async def start(self) -> None:
        """Load the view and follow the store. Raises what the store or ``mesh.load`` raises."""

    def refresh(self) -> None:
        """Translate every node again: what ``mesh`` reads besides the store (settings, trust bundle) has changed."""

    async def stop(self) -> None: ...
