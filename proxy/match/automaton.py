"""A regular expression as a deterministic automaton that is built while it runs: one table look-up for each byte.

It takes the parse tree of Python's ``re`` (bytes patterns), supports the part of it that is regular, and matches whole
strings in linear time. States are remembered up to a limit, then forgotten all together, as RE2 does.
"""

from __future__ import annotations

import re
from re import _constants as op  # type: ignore[attr-defined]
from typing import Any

MAX_NODES = 5000
MAX_STATES = 1000

_DIGIT = frozenset(b"0123456789")
_SPACE = frozenset(b" \t\n\r\f\v")
_WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_ALL = frozenset(range(256))
_CATEGORIES = {
    op.CATEGORY_DIGIT: _DIGIT,
    op.CATEGORY_NOT_DIGIT: _ALL - _DIGIT,
    op.CATEGORY_SPACE: _SPACE,
    op.CATEGORY_NOT_SPACE: _ALL - _SPACE,
    op.CATEGORY_WORD: _WORD,
    op.CATEGORY_NOT_WORD: _ALL - _WORD,
}


class UnsupportedError(ValueError):
    """The pattern is too large, or not regular."""


class Automaton:
    """Matches whole byte strings. Raises ``UnsupportedError`` when made of what it cannot run."""

    __slots__ = ("_begin", "_end", "_jump", "_moves", "_reset_at", "_start", "_states")

    def __init__(self, tree: Any, *, max_states: int = MAX_STATES) -> None:
        # Node n: _moves[n] = (bytes it takes, next node) or None; _jump[n] = nodes reached without taking any byte;
        # _begin, _end: nodes passed only at the beginning or the end of the string.
        self._moves: list[tuple[frozenset[int], int] | None] = []
        self._jump: list[list[int]] = []
        self._begin: set[int] = set()
        self._end: set[int] = set()
        self._reset_at = max_states
        first, last = self._sequence(tree, tree.state.flags)
        self._moves[last] = None
        self._states: dict[frozenset[int], list[Any]] = {}
        self._start = (first, last)

    def fullmatch(self, subject: bytes) -> bool:
        """Whether the whole of ``subject`` matches."""
        first, last = self._start
        state = self._state(self._closure({first}, begin=True))
        for byte in subject:
            following = state[byte]
            if following is None:
                following = self._follow(state, byte)
            if following is False:
                return False
            state = following
        return last in self._closure(state[256], begin=not subject, end=True)

    def _state(self, nodes: frozenset[int]) -> list[Any]:
        """A state: for each byte the next one (``None`` = not known yet, ``False`` = no match any more), its nodes."""
        state = self._states.get(nodes)
        if state is None:
            if len(self._states) >= self._reset_at:
                self._states.clear()
            state = self._states[nodes] = [*[None] * 256, nodes]
        return state

    def _follow(self, state: list[Any], byte: int) -> Any:
        reached = set()
        for node in state[256]:
            move = self._moves[node]
            if move is not None and byte in move[0]:
                reached.add(move[1])
        state[byte] = following = self._state(self._closure(reached)) if reached else False
        return following

    def _closure(
        self, nodes: set[int] | frozenset[int], *, begin: bool = False, end: bool = False
    ) -> frozenset[int]:
        seen = set(nodes)
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if (node in self._begin and not begin) or (node in self._end and not end):
                continue
            for other in self._jump[node]:
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return frozenset(seen)

    def _node(self) -> int:
        if len(self._moves) >= MAX_NODES:
            raise UnsupportedError(f"it needs more than {MAX_NODES} states; lower its repetition counts")
        self._moves.append(None)
        self._jump.append([])
        return len(self._moves) - 1

    def _takes(self, what: frozenset[int]) -> tuple[int, int]:
        first, last = self._node(), self._node()
        self._moves[first] = (what, last)
        return first, last

    def _sequence(self, tree: Any, flags: int) -> tuple[int, int]:
        first = last = self._node()
        for code, argument in tree:
            begin, end = self._part(code, argument, flags)
            self._jump[last].append(begin)
            last = end
        return first, last

    def _part(self, code: Any, argument: Any, flags: int) -> tuple[int, int]:
        if code in (op.LITERAL, op.NOT_LITERAL):
            what = _with_case(frozenset((argument,)), flags)
            return self._takes(what if code is op.LITERAL else _ALL - what)
        if code is op.ANY:
            return self._takes(_ALL if flags & re.DOTALL else _ALL - {10})
        if code is op.IN:
            return self._takes(_set(argument, flags))
        if code is op.SUBPATTERN:
            _, add, remove, body = argument
            return self._sequence(body, (flags | add) & ~remove)
        if code is op.BRANCH:
            return self._branch([self._sequence(branch, flags) for branch in argument[1]])
        if code in (op.MAX_REPEAT, op.MIN_REPEAT):
            low, high, body = argument
            return self._repeat(low, high, body, flags)
        if (
            code is op.AT
            and argument in (op.AT_BEGINNING, op.AT_BEGINNING_STRING)
            and not flags & re.MULTILINE
        ):
            return self._assertion(self._begin)
        if code is op.AT and argument in (op.AT_END, op.AT_END_STRING) and not flags & re.MULTILINE:
            return self._assertion(self._end)
        raise UnsupportedError(f"{str(code).lower()} {str(argument).lower()} beside several repetitions")

    def _assertion(self, where: set[int]) -> tuple[int, int]:
        first, last = self._node(), self._node()
        where.add(first)
        self._jump[first].append(last)
        return first, last

    def _branch(self, branches: list[tuple[int, int]]) -> tuple[int, int]:
        first, last = self._node(), self._node()
        for begin, end in branches:
            self._jump[first].append(begin)
            self._jump[end].append(last)
        return first, last

    def _repeat(self, low: int, high: Any, body: Any, flags: int) -> tuple[int, int]:
        first = last = self._node()
        for _ in range(low):
            begin, end = self._sequence(body, flags)
            self._jump[last].append(begin)
            last = end
        if high is op.MAXREPEAT:
            begin, end = self._sequence(body, flags)
            hub = self._node()
            self._jump[last].append(hub)
            self._jump[hub].append(begin)
            self._jump[end].append(hub)
            return first, hub
        final = self._node()
        for _ in range(high - low):
            self._jump[last].append(final)
            begin, end = self._sequence(body, flags)
            self._jump[last].append(begin)
            last = end
        self._jump[last].append(final)
        return first, final


def _with_case(what: frozenset[int], flags: int) -> frozenset[int]:
    if not flags & re.IGNORECASE:
        return what
    return what | {b ^ 32 for b in what if 65 <= b & ~32 <= 90}


def _set(items: Any, flags: int) -> frozenset[int]:
    what: frozenset[int] = frozenset()
    negate = False
    for code, argument in items:
        if code is op.NEGATE:
            negate = True
        elif code is op.LITERAL:
            what |= {argument}
        elif code is op.RANGE:
            what |= frozenset(range(argument[0], argument[1] + 1))
        elif code is op.CATEGORY:
            what |= _CATEGORIES[argument]
        else:
            raise UnsupportedError(f"{str(code).lower()} in a class")
    what = _with_case(what, flags)
    return _ALL - what if negate else what
