"""How much of a loop handshakes get: in counts, on a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.tls.handshakes import Budget, Slots


class Loop:
    """A loop of turns: what is due runs, then whatever else there is to do."""

    def __init__(self) -> None:
        self.time = 0.0
        self.due: list[Callable[[], object]] = []

    def call_soon(self, call: Callable[[], object]) -> None:
        self.due.append(call)

    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


def test_a_burst_is_spread_over_turns_in_order_of_coming() -> None:
    loop = Loop()
    budget = Budget(loop.call_soon, lambda: loop.time, 0.002)
    done: list[int] = []

    def step(number: int) -> Callable[[], None]:
        def run() -> None:
            loop.time += 0.0009
            done.append(number)

        return run

    now = [budget.run(step(number)) for number in range(20)]
    assert now == [True] * 3 + [False] * 17 and done == [0, 1, 2]
    assert budget.deferred == 17
    for turns in range(1, 6):
        # In each turn, what is ready besides handshakes runs after three of them.
        loop.turn()
        assert len(done) == 3 + 3 * turns
    # One that comes now does not overtake.
    assert budget.run(step(20)) is False
    loop.turn()
    loop.turn()
    assert done == list(range(21))


def test_an_idle_loop_is_left_alone() -> None:
    loop = Loop()
    budget = Budget(loop.call_soon, lambda: loop.time)
    assert budget.run(lambda: None)
    loop.turn()
    assert not loop.due
    loop.time += 1
    assert budget.run(lambda: None)


def test_a_step_that_fails_costs_its_time_and_no_other_step() -> None:
    loop = Loop()
    budget = Budget(loop.call_soon, lambda: loop.time, 0.002)
    done: list[str] = []

    def fails() -> None:
        loop.time += 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        budget.run(fails)
    assert not budget.run(lambda: done.append("later"))
    loop.turn()
    assert done == ["later"]


class Connection:
    """Something that wants to shake hands."""

    def __init__(self, slots: Slots, listener: str, *, fails: bool = False) -> None:
        self.slots = slots
        self.listener = listener
        self.fails = fails
        self.started = False
        self.evicted = False

    def enter(self) -> bool:
        return self.slots.enter(self, self.listener)

    def start_handshake(self) -> None:
        self.started = True
        if self.fails:
            self.leave()

    def give_way(self) -> None:
        self.evicted = True
        self.leave()

    def leave(self) -> None:
        self.slots.leave(self, self.listener)


def test_no_more_than_the_limits_and_then_in_line() -> None:
    now = 0.0
    slots = Slots(lambda: now, total=5, by_listener=3)
    ones = [Connection(slots, "one") for _ in range(6)]
    others = [Connection(slots, "other") for _ in range(6)]
    assert [one.enter() for one in ones] == [True] * 3 + [False] * 3
    # One listener leaves slots for the other.
    assert [other.enter() for other in others] == [True] * 2 + [False] * 4
    assert (slots.active, slots.waiting) == (5, 7)
    ones[0].leave()
    ones[0].leave()
    assert ones[3].started and slots.active == 5
    # Both have somebody in line: they take turns.
    others[0].leave()
    ones[1].leave()
    assert others[2].started and (ones[4].started or others[3].started) and slots.active == 5
    for connection in (*ones, *others):
        connection.leave()
    assert (slots.active, slots.waiting) == (0, 0)
    # The line was not kept, nor anybody in it.
    assert ones[5].enter() and slots.active == 1


def test_who_leaves_the_line_is_forgotten() -> None:
    slots = Slots(lambda: 0.0, total=1, by_listener=1)
    first = Connection(slots, "l")
    first.enter()
    for _ in range(100):
        waiting = Connection(slots, "l")
        assert not waiting.enter()
        waiting.leave()
        assert slots.waiting == 0
    last = Connection(slots, "l")
    last.enter()
    first.leave()
    assert last.started


def test_a_thousand_that_fail_at_once_do_not_nest() -> None:
    slots = Slots(lambda: 0.0, total=1, by_listener=1)
    first = Connection(slots, "l")
    first.enter()
    line = [Connection(slots, "l", fails=True) for _ in range(5000)]
    for one in line:
        one.enter()
    first.leave()
    assert all(one.started for one in line) and (slots.active, slots.waiting) == (0, 0)


def test_silent_peers_make_way() -> None:
    now = 0.0
    slots = Slots(lambda: now, total=3, by_listener=3)
    silent = [Connection(slots, "l") for _ in range(3)]
    for one in silent:
        one.enter()
    now = 1.9
    waiting = [Connection(slots, "l") for _ in range(2)]
    assert not waiting[0].enter() and not any(one.evicted for one in silent)
    now = 2.1
    # As many as there are in line, the oldest.
    assert waiting[1].enter()
    assert [one.evicted for one in silent] == [True, True, False]
    assert all(one.started for one in waiting)
    now = 10.0
    slots.make_room()
    assert not silent[2].evicted
