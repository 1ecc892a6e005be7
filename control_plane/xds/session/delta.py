"""The incremental variant of an ADS session (``DeltaAggregatedResources``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from control_plane.xds import wire
from control_plane.xds.resource_types import ENDPOINT, FULL_STATE
from control_plane.xds.session.actions import Action, Response, Send
from control_plane.xds.session.base import Session
from control_plane.xds.session.type_state import UNKNOWN, WILDCARD, TypeState
from control_plane.xds.snapshot import EncodedResource


class DeltaSession(Session):
    """Takes ``DeltaDiscoveryRequest``; subscriptions are honoured whatever nonce a request carries."""

    def _take(self, state: TypeState, request: Any, first: bool) -> list[Action]:
        verdicts = self._verdict(state, request)
        if request.response_nonce and not verdicts:
            self.stale_requests += 1
        if first:
            self._start(state, request)
        self._subscribe(state, request.resource_names_subscribe, first)
        self._unsubscribe(state, request.resource_names_unsubscribe)
        return verdicts

    def _start(self, state: TypeState, request: Any) -> None:
        self._check_room(len(request.initial_resource_versions))
        state.known = dict(request.initial_resource_versions)
        if state.type_url == ENDPOINT:
            for name in self._warming & state.known.keys():
                state.known[name] = UNKNOWN
        if not request.resource_names_subscribe and state.type_url in FULL_STATE:
            state.wildcard = state.must_answer = True

    def _subscribe(self, state: TypeState, names: Iterable[str], first: bool) -> None:
        self._check_room(len(set(names)))
        for name in names:
            if name == WILDCARD:
                if not state.wildcard:
                    state.wildcard = True
                    if self.snapshot is not None:
                        state.reconcile(self.snapshot.of(state.type_url))
                state.must_answer = True
            else:
                state.names.add(name)
                # On a new stream the client says which versions it has: those are compared, not sent again.
                if not (first and name in state.known):
                    state.asked.add(name)

    def _unsubscribe(self, state: TypeState, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                state.wildcard = False
                state.must_answer = False
                for known in state.known.keys() | state.asked:
                    if known not in state.names:
                        state.forget(known)
            else:
                state.names.discard(name)
                if state.wildcard:
                    # The client cannot tell whether it still gets this one: the answer says so.
                    state.asked.add(name)
                else:
                    state.forget(name)

    def _next(self, state: TypeState, may_change: bool, may_remove: bool) -> Send | None:
        assert self.snapshot is not None
        current = self.snapshot.of(state.type_url)
        # A client that comes back with a configuration is changed in order; one that has none waits for nothing.
        may_change = may_change or (state.must_answer and not state.known)
        found = self._asked(state)
        removed = [name for name in sorted(state.asked) if name not in found]
        if may_change:
            found |= {one.name: one for one in state.to_change(lambda name: self._find(state, name))}
            state.dirty.clear()
        if may_remove:
            removed += [
                name for name in sorted(state.gone) if name not in state.asked and name in state.known
            ]
            state.gone.clear()
        answer = state.must_answer and may_change
        state.asked.clear()
        if not (found or removed or answer):
            return None
        state.must_answer = state.must_answer and not may_change
        resources = self._fit(state, found)
        for name in removed:
            state.known.pop(name, None)
            state.gone.pop(name, None)
        versions = self._note_content(state, resources)
        response = Response(state.type_url, self._nonce(), current.version, versions, tuple(removed))
        frame = wire.delta_discovery_response(
            state.type_url, current.version, response.nonce, [one.delta for one in resources], removed
        )
        return Send(response, frame)

    def _fit(self, state: TypeState, found: Mapping[str, EncodedResource]) -> list[EncodedResource]:
        """As many as fit into one response; the others are owed still, and go after its answer."""
        size = 0
        fitting: list[EncodedResource] = []
        for resource in found.values():
            size += len(resource.delta)
            if size > self.limits.max_response_bytes and fitting:
                state.asked.add(resource.name)
            else:
                fitting.append(resource)
        return fitting
