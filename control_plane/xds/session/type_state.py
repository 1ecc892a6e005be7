"""What a stream knows of one resource type: what was asked, what the client has, and what is owed to it."""

from __future__ import annotations

from collections.abc import Callable, Set

from control_plane.xds.session.actions import Response
from control_plane.xds.snapshot import EncodedResource, TypeSnapshot

UNKNOWN = ""
"""The version of a resource of which the client may have any version, or none; differs from all real ones."""

WILDCARD = "*"


class TypeState:
    """Mutable; one per type and stream."""

    __slots__ = (
        "asked",
        "blocking",
        "changed_in_flight",
        "dirty",
        "gone",
        "in_flight",
        "known",
        "must_answer",
        "named",
        "names",
        "nonce",
        "rejected",
        "type_url",
        "wildcard",
    )

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.wildcard = False
        self.names: set[str] = set()
        self.named = False
        """Whether a name was ever given, after which no names means none instead of all."""
        self.known: dict[str, str] = {}
        """Name -> version of what the client was sent, or said that it had."""
        self.asked: set[str] = set()
        """Names that must be answered, whatever is known."""
        self.must_answer = False
        """A response is owed even if there is nothing new to put into it."""
        self.dirty: set[str] = set()
        """Names that may differ from what is known."""
        self.gone: dict[str, EncodedResource | None] = {}
        """Names that the client has and the snapshot has not, with what they last were."""
        self.rejected: set[str] = set()
        """Names of a refused response. Sent again with the next change; at once would loop."""
        self.in_flight: Response | None = None
        self.nonce = ""
        self.changed_in_flight = False
        """The snapshot changed since the response in flight was made."""
        self.blocking = False
        """What is in flight is new to the client, so that what refers to it has to wait."""

    def subscribed(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def is_owed(self) -> bool:
        """Whether there may be something to send."""
        return bool(self.must_answer or self.asked or self.dirty or self.gone)

    def forget(self, name: str) -> None:
        """The client no longer wants ``name``, and drops it on its own."""
        for names in (self.asked, self.dirty, self.rejected):
            names.discard(name)
        self.known.pop(name, None)
        self.gone.pop(name, None)

    def reconcile(self, current: TypeSnapshot) -> None:
        """Compare everything: for the first snapshot and for a subscription to everything."""
        if self.wildcard:
            self.dirty.update(current.resources)
        else:
            self.dirty.update(self.names & current.resources.keys())
        for name in self.known.keys() - current.resources.keys():
            if self.subscribed(name):
                self.gone.setdefault(name, None)

    def advance(self, old: TypeSnapshot, new: TypeSnapshot) -> bool:
        """Note what changed from ``old`` to ``new``; ``False`` when nothing did."""
        if old is new:
            return False
        step = new.since(old)
        if not step.changed and not step.removed:
            return False
        changed: Set[str] = step.changed if self.wildcard else step.changed & self.names
        self.dirty |= changed
        self.dirty -= step.removed
        for name in step.changed:
            self.gone.pop(name, None)
        for name in step.removed:
            if name in self.known:
                self.gone[name] = old.resources[name]
        self.changed_in_flight = True
        self.requeue_rejected(new)
        return True

    def requeue_rejected(self, current: TypeSnapshot) -> None:
        for name in self.rejected:
            if name in current.resources:
                self.dirty.add(name)
            elif name in self.known:
                self.gone.setdefault(name, None)
        self.rejected.clear()

    def to_change(self, find: Callable[[str], EncodedResource | None]) -> list[EncodedResource]:
        """The dirty resources that the client has not, in name order. ``find`` gives the present one of a name."""
        return [
            resource
            for name in sorted(self.dirty)
            if self.subscribed(name)
            and (resource := find(name)) is not None
            and self.known.get(name) != resource.version
        ]

    def refuse(self, response: Response, current: TypeSnapshot) -> None:
        """The client refused ``response``: whether it has any of it is unknown now."""
        for name in (*response.resources, *response.removed):
            if self.subscribed(name):
                self.known[name] = UNKNOWN
                self.rejected.add(name)
        if self.changed_in_flight:
            self.requeue_rejected(current)
