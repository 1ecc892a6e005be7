"""What both variants of an ADS session share: order, one response in flight per type, warming, refusals.

Changes are pushed make-before-break. New and changed resources go out in ``PUSH_ORDER``, listeners and routes
after the client has answered the types before them. Assignments follow their clusters at once: Envoy answers
a clusters response only when all clusters in it are warm, for which it needs their assignments. What is gone
is taken away last, when nothing that the client uses names it any more: routes, then clusters, then
assignments (which, taken from a live cluster, would empty it). Listeners alone are replaced in one response,
so that a new one may have the address of one that goes. What a client asks for is answered at once.

A client subscribes to the assignments of a new cluster, and to the routes of a new listener, only after it
saw them. Until then what depends on them is *held*; the shell ends a hold that lasts too long by
:meth:`Session.release`, because a client is free never to ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_plane.xds.resource_types import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE, SECRET
from control_plane.xds.session.actions import Acked, Action, Nacked, Send
from control_plane.xds.session.type_state import UNKNOWN, TypeState
from control_plane.xds.snapshot import EncodedResource, Snapshot

_REMOVED_LAST = (ROUTE, CLUSTER, ENDPOINT, SECRET)
_MAX_ERROR = 4096


class TooManySubscriptions(Exception):
    """A stream asks for more names or types than it may; the stream is to be ended."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """``max_response_bytes``: a delta response is split above it; a single larger resource still goes alone."""

    max_subscriptions: int = 50_000
    max_types: int = 16
    max_response_bytes: int = 3 * 1024 * 1024


class Session:
    """One ADS stream. Both ways in return the actions to execute, in order."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        self.limits = limits or SessionLimits()
        self.types: dict[str, TypeState] = {}
        self.snapshot: Snapshot | None = None
        self.stale_requests = 0
        self.holding = False
        """Something waits for a subscription that a client with this snapshot is expected to make."""
        self._released = False
        self._warming: set[str] = set()
        """Assignments that are to be sent, known or not, as their clusters wait for them."""
        self._retired: dict[str, EncodedResource] = {}
        """Assignments that are gone, for clusters that are too but that the client still has."""
        self._nonces = 0

    def receive(self, request: Any) -> list[Action]:
        """Take a decoded request. Raises :class:`TooManySubscriptions`."""
        state = self.types.get(request.type_url)
        if state is None:
            if len(self.types) >= self.limits.max_types:
                raise TooManySubscriptions(f"more than {self.limits.max_types} resource types on one stream")
            state = self.types[request.type_url] = TypeState(request.type_url)
            verdicts = self._take(state, request, True)
            if self.snapshot is not None:
                state.reconcile(self.snapshot.of(request.type_url))
        else:
            verdicts = self._take(state, request, False)
        return verdicts + self._pump()

    def update(self, snapshot: Snapshot) -> list[Action]:
        """Take a new snapshot. What is in flight stays so; changes until its answer become one response."""
        before, self.snapshot = self.snapshot, snapshot
        for type_url, state in self.types.items():
            if before is None:
                state.reconcile(snapshot.of(type_url))
            elif state.advance(before.of(type_url), snapshot.of(type_url)):
                self._released = False
        if before is not None:
            self._retire(before, snapshot)
        return self._pump()

    def _retire(self, before: Snapshot, after: Snapshot) -> None:
        old, new = before.of(ENDPOINT), after.of(ENDPOINT)
        step = new.since(old)
        for name in step.removed:
            self._retired[name] = old.resources[name]
        for name in step.changed:
            self._retired.pop(name, None)
        assignments = self.types.get(ENDPOINT)
        if assignments is not None:
            assignments.dirty.update(name for name in self._warming & self._retired.keys())

    def _find(self, state: TypeState, name: str) -> EncodedResource | None:
        """The resource to send for ``name``."""
        assert self.snapshot is not None
        found = self.snapshot.of(state.type_url).resources.get(name)
        if found is None and state.type_url == ENDPOINT:
            found = self._retired.get(name)
            if found is not None:
                state.gone[name] = found
        return found

    def _asked(self, state: TypeState) -> dict[str, EncodedResource]:
        """What was asked for and exists, by name."""
        found = ((name, self._find(state, name)) for name in sorted(state.asked))
        return {name: resource for name, resource in found if resource is not None}

    def release(self) -> list[Action]:
        """Hold back no longer, until the next change."""
        self._released = True
        return self._pump()

    def _take(self, state: TypeState, request: Any, first: bool) -> list[Action]:
        """Apply a request's verdict and subscriptions to ``state``."""
        raise NotImplementedError

    def _next(self, state: TypeState, may_change: bool, may_remove: bool) -> Send | None:
        """The response that is due for ``state``, whose content is noted as sent; ``None`` when there is none."""
        raise NotImplementedError

    def _check_room(self, more: int) -> None:
        """Whether a request may add so many names. Raises :class:`TooManySubscriptions`."""
        if sum(len(state.names) for state in self.types.values()) + more > self.limits.max_subscriptions:
            raise TooManySubscriptions(
                f"more than {self.limits.max_subscriptions} resource names subscribed on one stream"
            )

    def _verdict(self, state: TypeState, request: Any) -> list[Action]:
        """ACK or NACK of the response in flight. Only the presence of ``error_detail`` tells them apart."""
        response = state.in_flight
        if response is None or request.response_nonce != response.nonce:
            return []
        state.in_flight = None
        if not request.HasField("error_detail"):
            return [Acked(response)]
        if self.snapshot is not None:
            state.refuse(response, self.snapshot.of(state.type_url))
        error = request.error_detail
        return [Nacked(response, error.code, error.message[:_MAX_ERROR])]

    def _pump(self) -> list[Action]:
        self.holding = False
        if self.snapshot is None:
            return []
        sent: list[Action] = []
        for type_url in (*PUSH_ORDER, *(url for url in self.types if url not in PUSH_ORDER)):
            state = self.types.get(type_url)
            if state is not None and state.in_flight is None and state.is_owed():
                may_change = self._may_change(state)
                send = self._next(state, may_change, may_change and type_url not in _REMOVED_LAST)
                if send is not None:
                    sent.append(self._note_sent(state, send))
        for type_url in _REMOVED_LAST:
            state = self.types.get(type_url)
            if state is not None and state.gone and state.in_flight is None and self._may_remove(type_url):
                send = self._next(state, True, True)
                if send is not None:
                    sent.append(self._note_sent(state, send))
        clusters = self.types.get(CLUSTER)
        if clusters is None or not clusters.gone:
            self._retired.clear()
            self._warming &= self.snapshot.of(CLUSTER).assignments
        return sent

    def _note_sent(self, state: TypeState, send: Send) -> Send:
        state.in_flight = send.response
        state.rejected.difference_update(send.response.resources, send.response.removed)
        state.nonce = send.response.nonce
        state.changed_in_flight = False
        return send

    def _nonce(self) -> str:
        self._nonces += 1
        return str(self._nonces)

    def _in_flight(self, *type_urls: str) -> bool:
        """Whether an answer to something that is new to the client is awaited."""
        return any(
            (state := self.types.get(url)) is not None and state.in_flight is not None and state.blocking
            for url in type_urls
        )

    def _may_change(self, state: TypeState) -> bool:
        match state.type_url:
            case t if t == LISTENER:
                return not self._in_flight(CLUSTER, ENDPOINT) and not self._hold(self._assignments_unasked())
            case t if t == ROUTE:
                return not self._in_flight(CLUSTER, ENDPOINT, LISTENER) and not self._hold(
                    self._assignments_unasked()
                )
        return True

    def _may_remove(self, type_url: str) -> bool:
        """Whether all that may refer to what is gone has been replaced, and the client uses the replacement."""
        if self._in_flight(CLUSTER, ENDPOINT, LISTENER, ROUTE):
            return False
        for referrer in (LISTENER, ROUTE):
            state = self.types.get(referrer)
            if state is not None and (
                state.in_flight or state.dirty or state.rejected or (state.gone and referrer != type_url)
            ):
                return False
        return not self._hold(self._assignments_unasked() or self._routes_unasked())

    def _hold(self, unasked: bool) -> bool:
        if unasked and not self._released:
            self.holding = True
            return True
        return False

    def _assignments_unasked(self) -> bool:
        """Whether a client that takes all clusters has yet to ask for assignments of some."""
        clusters, assignments = self.types.get(CLUSTER), self.types.get(ENDPOINT)
        if self.snapshot is None or clusters is None or not clusters.wildcard:
            return False
        if assignments is not None and assignments.wildcard:
            return False
        expected = self.snapshot.of(CLUSTER).assignments & self.snapshot.of(ENDPOINT).resources.keys()
        return not expected <= (assignments.names if assignments is not None else set())

    def _routes_unasked(self) -> bool:
        """Whether a client that takes all listeners has yet to ask for routes, or for listeners at all."""
        assert self.snapshot is not None
        listeners, routes = self.types.get(LISTENER), self.types.get(ROUTE)
        if listeners is None:
            return bool(self.snapshot.of(LISTENER).resources)
        if not listeners.wildcard or (routes is not None and routes.wildcard):
            return False
        return not self.snapshot.of(ROUTE).resources.keys() <= (routes.names if routes is not None else set())

    def _note_content(self, state: TypeState, resources: list[EncodedResource]) -> dict[str, str]:
        """Note ``resources`` as known to the client. Returns name -> version."""
        versions = {resource.name: resource.version for resource in resources}
        news = [one for one in resources if state.known.get(one.name, UNKNOWN) != one.version]
        # Endpoints of a cluster that is in use already are no reason to make routes wait.
        state.blocking = state.type_url != ENDPOINT or any(
            state.known.get(one.name, UNKNOWN) == UNKNOWN for one in news
        )
        state.known |= versions
        if state.type_url == CLUSTER:
            self._warm(news)
        elif state.type_url == ENDPOINT:
            self._warming -= versions.keys()
        return versions

    def _warm(self, clusters: list[EncodedResource]) -> None:
        """A cluster that is new or has changed takes traffic once its assignment has come *after* it.

        Envoy asks for that in state-of-the-world only in a way that looks like an ACK, and in delta not at all.
        """
        names = {one.assignment for one in clusters if one.assignment}
        self._warming |= names
        assignments = self.types.get(ENDPOINT)
        if assignments is not None:
            for name in names:
                self._make_warm(assignments, name)

    def _make_warm(self, assignments: TypeState, name: str) -> None:
        if assignments.subscribed(name):
            assignments.dirty.add(name)
            if name in assignments.known:
                assignments.known[name] = UNKNOWN
