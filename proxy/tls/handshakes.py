"""What TLS handshakes may take of one loop: how many at a time, and how long in each turn.

A handshake costs as much as tens of requests, and a peer that has proved nothing asks for it. It knows no connection
and no protocol: it says when.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

MAX_HANDSHAKE_BYTES: Final = 128 * 1024
"""What a peer may send before its handshake is complete. Chains of certificates reach 10 KB, OpenSSL allows 100."""
MAX_HANDSHAKES: Final = 1000
"""Handshakes with clients under way at one time: some 50 MB."""
TURN_BUDGET: Final = 0.002
"""Seconds of a loop's turn that handshakes may take; what is left of them waits for the next one."""
GRACE: Final = 2.0
"""Seconds for which a handshake keeps its slot though others wait for one."""


class Budget:
    """The handshakes' share of the loop's turns.

    A step that finds none left is done in a later turn, in the order of coming; in between, the loop sees to
    everything else. ``deferred`` counts such steps.
    """

    __slots__ = ("_budget", "_call_soon", "_clock", "_left", "_scheduled", "_waiting", "deferred")

    def __init__(
        self, call_soon: Callable[..., object], clock: Callable[[], float], budget: float = TURN_BUDGET
    ) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._budget = budget
        self._left = budget
        self._scheduled = False
        self._waiting: deque[Callable[[], None]] = deque()
        self.deferred = 0

    def run(self, step: Callable[[], None]) -> bool:
        """Do ``step`` now, or (False) in a later turn."""
        if not self._scheduled:
            self._scheduled = True
            self._left = self._budget
            self._call_soon(self._turn)
        if self._left <= 0 or self._waiting:
            self.deferred += 1
            self._waiting.append(step)
            return False
        self._do(step)
        return True

    def _do(self, step: Callable[[], None]) -> None:
        started = self._clock()
        try:
            step()
        finally:
            self._left -= self._clock() - started

    def _turn(self) -> None:
        """The next turn of the loop: a new budget. Nothing is scheduled while there are no handshakes."""
        self._left = self._budget
        if not self._waiting:
            self._scheduled = False
            return
        self._call_soon(self._turn)
        while self._waiting and self._left > 0:
            self._do(self._waiting.popleft())


class Candidate(Protocol):
    """A connection that wants to shake hands. ``give_way``: end it, others wait."""

    def start_handshake(self) -> None: ...
    def give_way(self) -> None: ...


class Slots:
    """How many handshakes with clients may be under way, over all listeners and for each.

    Who finds no slot free waits in its listener's line, without an engine and unread; the lines take turns. A handshake
    that has had ``GRACE`` makes way for those who wait: silent peers cannot keep all slots.
    """

    __slots__ = (
        "_active",
        "_advancing",
        "_by_listener",
        "_clock",
        "_lines",
        "_listener_limit",
        "_total_limit",
    )

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        total: int = MAX_HANDSHAKES,
        by_listener: int = MAX_HANDSHAKES // 2,
    ) -> None:
        """``by_listener``: fewer than ``total``, so that one listener leaves slots for the others."""
        self._clock = clock
        self._total_limit = total
        self._listener_limit = by_listener
        self._active: OrderedDict[Candidate, float] = OrderedDict()
        self._by_listener: dict[str, int] = {}
        self._lines: OrderedDict[str, OrderedDict[Candidate, None]] = OrderedDict()
        self._advancing = False

    @property
    def active(self) -> int:
        """Handshakes under way."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Connections in line."""
        return sum(map(len, self._lines.values()))

    def enter(self, candidate: Candidate, listener: str) -> bool:
        """Start ``candidate``'s handshake, or (False) put it in line."""
        if listener not in self._lines and self._free(listener):
            self._start(candidate, listener)
            return True
        self._lines.setdefault(listener, OrderedDict())[candidate] = None
        self.make_room()
        return candidate in self._active

    def leave(self, candidate: Candidate, listener: str) -> None:
        """``candidate`` is through or gone; to say it twice does nothing."""
        if self._active.pop(candidate, None) is None:
            line = self._lines.get(listener)
            if line is not None and line.pop(candidate, self) is None and not line:
                del self._lines[listener]
            return
        self._by_listener[listener] -= 1
        if not self._by_listener[listener]:
            del self._by_listener[listener]
        self._advance()

    def make_room(self) -> None:
        """End handshakes that have had their time while others wait for it."""
        waiting = self.waiting
        if not waiting:
            return
        before = self._clock() - GRACE
        late: list[Candidate] = []
        # In order of their start: the first that is young ends the search.
        for candidate, started in self._active.items():
            if started > before or len(late) >= waiting:
                break
            late.append(candidate)
        for candidate in late:
            candidate.give_way()

    def _free(self, listener: str) -> bool:
        return (
            len(self._active) < self._total_limit
            and self._by_listener.get(listener, 0) < self._listener_limit
        )

    def _start(self, candidate: Candidate, listener: str) -> None:
        self._active[candidate] = self._clock()
        self._by_listener[listener] = self._by_listener.get(listener, 0) + 1
        candidate.start_handshake()

    def _advance(self) -> None:
        """Let those in line start who fit now. One that fails at once comes back here, and goes on in this loop."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while (listener := next(filter(self._free, self._lines), None)) is not None:
                line = self._lines.pop(listener)
                candidate, _ = line.popitem(last=False)
                if line:
                    # To the end: another listener is next.
                    self._lines[listener] = line
                self._start(candidate, listener)
        finally:
            self._advancing = False
