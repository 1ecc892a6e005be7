"""What a push needs of the registry and of translate, as one small protocol, and the real thing behind it.

The protocol lets tests stand in for both. This module must not know streams, nor the store's ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from control_plane.registry.view import View
from control_plane.store.base import Event, Key, Snapshot
from control_plane.translate.builder import Builder
from control_plane.translate.node import Node
from control_plane.translate.resources import Condition, Resources
from control_plane.translate.settings import MeshSettings


class Mesh(Protocol):
    """Registry and translate, joined. A view is opaque to the caller. Methods raise only for a defect."""

    def load(self, snapshot: Snapshot) -> Any:
        """The view of a snapshot."""
        ...

    def apply(self, view: Any, events: Sequence[Event]) -> Any:
        """The view after ``events``."""
        ...

    def translate(self, view: Any, node: Node) -> Resources:
        """One node's resources."""
        ...

    def conditions(self, view: Any) -> Mapping[Key, tuple[Condition, ...]]:
        """What can be said of objects without any node."""
        ...


class RegistryMesh:
    """The real one. ``trust_bundle``: PEM roots, given to sidecars as the secret ``ROOTCA``."""

    def __init__(self, settings: MeshSettings, trust_bundle: bytes | None = None) -> None:
        self._settings = settings
        self._builder = Builder(settings)
        self.trust_bundle = trust_bundle
        """May be assigned; :meth:`control_plane.xds.push.Pusher.refresh` then takes it to the sidecars."""

    def load(self, snapshot: Snapshot) -> View:
        return View(mesh_domain=self._settings.mesh_domain).at(snapshot)

    def apply(self, view: View, events: Sequence[Event]) -> View:
        return view.after(events)

    def translate(self, view: View, node: Node) -> Resources:
        return self._builder.translate(view, node, self.trust_bundle)

    def conditions(self, view: View) -> Mapping[Key, tuple[Condition, ...]]:
        return self._builder.conditions(view)
