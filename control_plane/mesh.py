"""Registry and translate joined, as the push loop sees them (``control_plane.xds.mesh``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.registry.view import View
from control_plane.store.base import Event, Snapshot
from control_plane.translate.builder import Builder
from control_plane.translate.node import parse_xds_node
from control_plane.translate.settings import MeshSettings
from control_plane.xds.mesh import Condition, Translated


class TranslatedMesh:
    """Implements ``Mesh[View]``. ``trust_bundle``: PEM of the roots, given out as the secret ``ROOTCA``."""

    def __init__(self, settings: MeshSettings, trust_bundle: bytes) -> None:
        self._settings = settings
        self._builder = Builder(settings)
        self.trust_bundle = trust_bundle

    def load(self, snapshot: Snapshot) -> View:
        """The view of a snapshot."""
        return View(mesh_domain=self._settings.mesh_domain).at(snapshot)

    def apply(self, view: View, events: Sequence[Event]) -> View:
        """The view after ``events``."""
        return view.after(events)

    def translate(self, view: View, node: Any) -> Translated:
        """Raises ``ValueError`` (``NodeError``) naming the metadata field at fault."""
        made = self._builder.translate(view, parse_xds_node(node), self.trust_bundle)
        return Translated(
            {url: tuple(named.values()) for url, named in made.by_type.items()},
            {resource: tuple(keys) for resource, keys in made.origins.items()},
            {
                key: tuple(Condition(c.type, c.status, c.reason, c.message, c.parent) for c in conditions)
                for key, conditions in made.conditions.items()
            },
        )
