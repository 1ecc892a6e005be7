"""One revision of the mesh: parsed objects by kind, and the services that they make. Immutable; pure.

A view is made from a snapshot, or from the view before it and the changes since; what did not change is the same
object in both, so that everything built from it can be kept. Objects that do not validate any more (an older
version of this program stored them) are left out and listed in ``invalid``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from control_plane.api.kinds import (
    AuthorizationPolicy,
    GRPCRoute,
    HTTPRoute,
    PeerAuthentication,
    Problem,
    Resource,
    validate,
)
from control_plane.registry.entry import Entry
from control_plane.registry.service import MeshService
from control_plane.registry.services import Declared, Membership, declared_services
from control_plane.store.base import Event, EventType, Key, Snapshot, Stored

_SERVICE_PLURALS = frozenset({"services", "endpointslices", "workloadentries", "serviceentries"})
_ROUTE_PLURALS = frozenset({"httproutes", "grpcroutes"})
_EMPTY: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The mesh at ``revision``.

    ``services`` by hostname. ``conflicts`` says which object's hostname another one has already. Routes, of all
    kinds together, and policies are ordered oldest first.
    """

    mesh_domain: str = "mesh.local"
    revision: int = 0
    entries: Mapping[Key, Entry] = field(default_factory=lambda: _EMPTY)
    invalid: Mapping[Key, tuple[int, tuple[Problem, ...]]] = field(default_factory=lambda: _EMPTY)
    services: Mapping[str, MeshService] = field(default_factory=lambda: _EMPTY)
    conflicts: Mapping[Key, str] = field(default_factory=lambda: _EMPTY)
    routes: tuple[Entry, ...] = ()
    peer_authentications: tuple[Entry, ...] = ()
    authorization_policies: tuple[Entry, ...] = ()
    membership: Membership = field(default_factory=Membership)

    def at(self, snapshot: Snapshot) -> View:
        """The view of ``snapshot``, reusing what this one has parsed."""
        entries: dict[Key, Entry] = {}
        invalid: dict[Key, tuple[int, tuple[Problem, ...]]] = {}
        changed: set[Key] = set()
        for key, stored in snapshot.objects.items():
            known = self.entries.get(key)
            if known is not None and known.revision == stored.revision:
                entries[key] = known
            elif (refused := self.invalid.get(key)) is not None and refused[0] == stored.revision:
                invalid[key] = refused
            else:
                changed.add(key)
                _parse(stored, entries, invalid)
        changed.update(key for key in self.entries if key not in snapshot.objects)
        return self._next(snapshot.revision, entries, invalid, changed)

    def after(self, events: Sequence[Event]) -> View:
        """The view after ``events``, which must be those that follow this view's revision, in order."""
        if not events:
            return self
        entries, invalid, changed = dict(self.entries), dict(self.invalid), set()
        for event in events:
            key = event.object.key
            changed.add(key)
            entries.pop(key, None)
            invalid.pop(key, None)
            if event.type is not EventType.DELETED:
                _parse(event.object, entries, invalid)
        return self._next(events[-1].revision, entries, invalid, changed)

    def service(self, key: Key) -> MeshService | None:
        """The service that a Service or ServiceEntry declares (a ServiceEntry's first host)."""
        hostnames = self.membership.hostnames.get(key, ())
        found = (self.services.get(hostname) for hostname in hostnames)
        return next((s for s in found if s is not None and s.origin == key), None)

    def _next(
        self,
        revision: int,
        entries: Mapping[Key, Entry],
        invalid: Mapping[Key, tuple[int, tuple[Problem, ...]]],
        changed: set[Key],
    ) -> View:
        plurals = {key.plural for key in changed}
        namespaces = {key.namespace for key in changed if key.plural in _SERVICE_PLURALS}
        declared = Declared(self.services, self.conflicts, self.membership)
        if namespaces:
            declared = declared_services(entries, namespaces, self.membership, self.mesh_domain)
        return View(
            mesh_domain=self.mesh_domain,
            revision=revision,
            entries=MappingProxyType(dict(entries)),
            invalid=MappingProxyType(dict(invalid)),
            services=declared.services,
            conflicts=declared.conflicts,
            routes=_of((HTTPRoute, GRPCRoute), entries) if plurals & _ROUTE_PLURALS else self.routes,
            peer_authentications=_of(PeerAuthentication, entries)
            if "peerauthentications" in plurals
            else self.peer_authentications,
            authorization_policies=_of(AuthorizationPolicy, entries)
            if "authorizationpolicies" in plurals
            else self.authorization_policies,
            membership=declared.membership,
        )


def _parse(
    stored: Stored, entries: dict[Key, Entry], invalid: dict[Key, tuple[int, tuple[Problem, ...]]]
) -> None:
    model, problems = validate(stored.body)
    if model is None:
        invalid[stored.key] = (stored.revision, tuple(problems))
    else:
        entries[stored.key] = Entry(stored.key, model, stored.revision, stored.created)


def _of(
    model: type[Resource] | tuple[type[Resource], ...], entries: Mapping[Key, Entry]
) -> tuple[Entry, ...]:
    return tuple(
        sorted((e for e in entries.values() if isinstance(e.model, model)), key=lambda entry: entry.age)
    )
