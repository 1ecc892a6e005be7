"""Regular expressions in RE2's spirit: a whole-string match whose time is linear in the subject, or refused at load.

Python's ``re`` backtracks. A pattern whose choices are few is given to it; any other one runs on the lazy automaton of
``proxy.match.automaton``. What RE2 does not know (look-around, back references) is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from re import _constants as op  # type: ignore[attr-defined]  # the parser that Python's re itself uses
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from proxy.match.automaton import Automaton, UnsupportedError
from proxy.model.config import ConfigError

MAX_PATTERN_LENGTH = 4096
# How many ways ``re`` may have to try at one position of the single unbounded repetition.
_MAX_CHOICES = 64

BytesPredicate = Callable[[bytes], bool]

_NOT_RE2 = {
    op.ASSERT: "look-ahead and look-behind",
    op.ASSERT_NOT: "look-ahead and look-behind",
    op.GROUPREF: "back references",
    op.GROUPREF_EXISTS: "conditional groups",
}
_NOT_RE2 |= {
    getattr(op, name): what
    for name, what in (("ATOMIC_GROUP", "atomic groups"), ("POSSESSIVE_REPEAT", "possessive repetitions"))
    if hasattr(op, name)
}


def compile_regex(pattern: str, field: str) -> BytesPredicate:
    """A predicate that is true of the strings that ``pattern`` matches as a whole.

    Raises ``ConfigError`` for ``field`` if the pattern is not valid, not RE2, or too large.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ConfigError(
            field, f"a regular expression of {len(pattern)} characters, the limit is {MAX_PATTERN_LENGTH}"
        )
    try:
        source = pattern.encode("ascii")
    except UnicodeEncodeError:
        raise ConfigError(field, "a regular expression must be ASCII; write other bytes as \\xNN") from None
    if "[[:" in pattern or "[:^" in pattern:
        raise ConfigError(field, "POSIX classes such as [[:alpha:]] are not supported; write [A-Za-z]")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = _parser.parse(source)
            compiled = re.compile(source)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise ConfigError(field, f"not a regular expression that RE2 and Tulle both read: {error}") from None
    _refuse_what_re2_lacks(tree, field)
    if _cost(tree) is not None:
        full = compiled.fullmatch
        return lambda subject: full(subject) is not None
    try:
        return Automaton(tree).fullmatch
    except UnsupportedError as error:
        raise ConfigError(field, f"too costly a regular expression: {error}") from None


def _children(argument: Any) -> list[Any]:
    """The sub-patterns in a parse node's argument, however deep in tuples and lists."""
    if isinstance(argument, _parser.SubPattern):
        return [argument]
    if isinstance(argument, list | tuple):
        return [sub for item in argument for sub in _children(item)]
    return []


def _refuse_what_re2_lacks(tree: Any, field: str) -> None:
    for code, argument in tree:
        if code in _NOT_RE2:
            raise ConfigError(field, f"{_NOT_RE2[code]} are not supported (as in RE2)")
        for child in _children(argument):
            _refuse_what_re2_lacks(child, field)


def _cost(tree: Any) -> int | None:
    """How many paths backtracking can have beside one unbounded repetition; ``None`` = too many, or several such."""
    choices, unbounded = _walk(tree)
    return choices if choices <= _MAX_CHOICES and unbounded <= 1 else None


def _walk(tree: Any) -> tuple[int, int]:
    """(product of the choices, number of unbounded repetitions; 2 also for one that has choices in its body)."""
    choices, unbounded = 1, 0
    for code, argument in tree:
        if code in (op.MAX_REPEAT, op.MIN_REPEAT):
            low, high, body = argument
            inner_choices, inner_unbounded = _walk(body)
            if high is op.MAXREPEAT:
                fixed = inner_choices == 1 and not inner_unbounded and len(body) == 1
                unbounded += 1 if fixed else 2
            else:
                if inner_unbounded:
                    unbounded += 2 if high > 1 else inner_unbounded
                choices *= (high - low + 1) * min(inner_choices ** min(high, 8), _MAX_CHOICES + 1)
        elif code is op.BRANCH:
            branches = [_walk(branch) for branch in argument[1]]
            choices *= sum(c for c, _ in branches)
            unbounded += max(u for _, u in branches)
        else:
            for child in _children(argument):
                inner_choices, inner_unbounded = _walk(child)
                choices *= inner_choices
                unbounded += inner_unbounded
        if choices > _MAX_CHOICES or unbounded > 1:
            return _MAX_CHOICES + 1, 2
    return choices, unbounded
