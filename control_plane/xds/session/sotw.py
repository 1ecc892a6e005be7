"""The state-of-the-world variant of an ADS session (``StreamAggregatedResources``)."""

from __future__ import annotations

from typing import Any

from control_plane.xds import wire
from control_plane.xds.resource_types import CLUSTER, FULL_STATE
from control_plane.xds.session.actions import Action, Response, Send
from control_plane.xds.session.base import Session
from control_plane.xds.session.type_state import WILDCARD, TypeState
from control_plane.xds.snapshot import EncodedResource

RETAINING = "+retiring"
"""Ends the version of a clusters response that still holds clusters which the next one will leave out."""


class SotwSession(Session):
    """Takes ``DiscoveryRequest``.

    Clusters and listeners always come whole, and what is absent is deleted by the client; of the other types
    only what is new. A request that answers an older response than the last is not answered: its sender has
    yet to answer the last one, and repeats its names then. One without a nonce is never stale.
    """

    def _take(self, state: TypeState, request: Any, first: bool) -> list[Action]:
        verdicts = self._verdict(state, request)
        # A type's first request may carry a nonce of an older stream: it means nothing here.
        if request.response_nonce not in ("", state.nonce) and not first:
            self.stale_requests += 1
            return []
        # Without a nonce and with nothing on its way, the client begins anew with this type.
        anew = first or (not request.response_nonce and state.in_flight is None)
        self._subscribe(state, {*request.resource_names}, anew)
        return verdicts

    def _subscribe(self, state: TypeState, names: set[str], anew: bool) -> None:
        whole = state.type_url in FULL_STATE
        wildcard = WILDCARD in names or (whole and not names and not state.named)
        state.named = state.named or bool(names)
        names.discard(WILDCARD)
        self._check_room(len(names - state.names))
        added, dropped = names - state.names, state.names - names
        changed = wildcard != state.wildcard or bool(added or dropped)
        widened = wildcard and not state.wildcard
        state.names, state.wildcard = names, wildcard
        if not wildcard:
            for name in [*state.known]:
                if name not in names:
                    state.forget(name)
        for name in dropped:
            state.asked.discard(name)
        if whole:
            state.must_answer = state.must_answer or anew or (changed and bool(names or wildcard))
        else:
            state.asked |= names if anew else added
            if widened and self.snapshot is not None:
                state.reconcile(self.snapshot.of(state.type_url))

    def _next(self, state: TypeState, may_change: bool, may_remove: bool) -> Send | None:
        if state.type_url in FULL_STATE:
            return self._whole(state, may_change, may_remove)
        return self._part(state, may_change)

    def _whole(self, state: TypeState, may_change: bool, may_remove: bool) -> Send | None:
        assert self.snapshot is not None
        current = self.snapshot.of(state.type_url)
        due = state.must_answer
        if may_change and state.dirty:
            due = bool(state.to_change(current.resources.get)) or due
            state.dirty.clear()
        # A removal whose time has not come does not hold a change up: what is to go is sent once more.
        if not (due or (may_remove and state.gone)):
            return None
        if state.wildcard:
            resources = [*current.resources.values()]
        else:
            resources = [current.resources[name] for name in sorted(state.names) if name in current.resources]
        retained: list[EncodedResource] = []
        if state.type_url == CLUSTER and not may_remove:
            retained = [one for one in state.gone.values() if one is not None and one.name in state.known]
        state.must_answer = False
        state.dirty.clear()
        state.asked.clear()
        kept = {one.name for one in retained}
        for name in [name for name in state.gone if name not in kept]:
            del state.gone[name]
        version = current.version + RETAINING if retained else current.version
        carried = resources + retained
        before, state.known = state.known, {}
        state.known = {one.name: before[one.name] for one in carried if one.name in before}
        return self._send(state, version, carried)

    def _part(self, state: TypeState, may_change: bool) -> Send | None:
        assert self.snapshot is not None
        current = self.snapshot.of(state.type_url)
        found = self._asked(state)
        state.asked.clear()
        if may_change:
            found |= {one.name: one for one in state.to_change(lambda name: self._find(state, name))}
            state.dirty.clear()
        # Absence does not delete here: a client drops what nothing refers to any more.
        for name in state.gone:
            state.known.pop(name, None)
        state.gone.clear()
        return self._send(state, current.version, [*found.values()]) if found else None

    def _send(self, state: TypeState, version: str, resources: list[EncodedResource]) -> Send:
        versions = self._note_content(state, resources)
        response = Response(state.type_url, self._nonce(), version, versions)
        frame = wire.discovery_response(
            state.type_url, version, response.nonce, [one.sotw for one in resources]
        )
        return Send(response, frame)
