"""The model's own decorator makes what the standard one makes."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import pytest

from proxy.model import frozen


class _Plain:
    """Documented."""

    a: int
    b: tuple[str, ...] = ()
    c: Mapping[str, int] = field(default_factory=dict)
    secret: bytes = field(default=b"", repr=False)


class _One:
    """Documented."""

    a: int


class _None:
    """Documented."""


def both(shape: type[Any], **options: Any) -> tuple[Any, Any]:
    """``shape`` made by the one decorator and by the other."""
    made = []
    for decorator in (frozen.dataclass, dataclasses.dataclass):
        copy = type(shape.__name__, (), dict(shape.__dict__) | {"__slots__": ()})
        del copy.__slots__
        made.append(decorator(frozen=True, slots=True, **options)(copy))  # type: ignore[operator]
    return made[0], made[1]


@frozen.dataclass(frozen=True, slots=True)
class Pickled:
    """At the module's level, as pickle wants it."""

    a: int
    b: str = "x"


@pytest.mark.parametrize(
    ("shape", "arguments", "named"),
    [
        (_Plain, (1,), {}),
        (_Plain, (1, ("x",)), {"c": {"k": 1}, "secret": b"s"}),
        (_Plain, (), {"a": 2, "b": ("y", "z")}),
        (_One, (5,), {}),
        (_None, (), {}),
    ],
)
def test_instances_are_the_same(shape: type[Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    ours, theirs = (cls(*arguments, **named) for cls in both(shape))
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert repr(ours).rpartition(".")[2] == repr(theirs).rpartition(".")[2]
    assert not hasattr(ours, "__dict__")
    assert ours.__doc__ == theirs.__doc__
    assert ours.__match_args__ == theirs.__match_args__


@pytest.mark.parametrize("arguments", [(), (1, (), {}, b"", "too many")])
def test_wrong_arguments_are_refused(arguments: tuple[Any, ...]) -> None:
    for cls in both(_Plain):
        with pytest.raises(TypeError):
            cls(*arguments)


def test_defaults_that_are_made_are_not_shared() -> None:
    ours, _ = both(_Plain)
    assert ours(1).c is not ours(1).c


def test_comparison_and_hash() -> None:
    ours, theirs = both(_Plain)
    for cls in (ours, theirs):
        assert cls(1, ("a",)) == cls(1, ("a",))
        assert cls(1, ("a",)) != cls(1, ("b",))
        with pytest.raises(TypeError):
            hash(cls(1))  # its mapping has none
    assert ours(1) != theirs(1)
    one, _ = both(_One)
    assert hash(one(1)) == hash(one(1))
    assert {one(1): "found"}[one(1)] == "found"


def test_by_identity() -> None:
    for cls in both(_One, eq=False):
        assert cls(1) != cls(1)
        assert len({cls(1), cls(1)}) == 2


def test_nothing_can_be_changed() -> None:
    for cls in both(_Plain):
        made = cls(1)
        for change in (
            lambda made=made: setattr(made, "a", 2),
            lambda made=made: setattr(made, "new", 2),
            lambda made=made: delattr(made, "a"),
        ):
            with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
                change()
        assert made.a == 1


def test_replace_and_pickle() -> None:
    made = Pickled(1)
    assert dataclasses.replace(made, b="y") == Pickled(1, "y")
    assert pickle.loads(pickle.dumps(made)) == made
