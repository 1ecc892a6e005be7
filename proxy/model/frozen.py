"""``dataclass(frozen=True, slots=True)`` at a third of its price, for the many classes that a sidecar starts with.

The standard decorator compiles six functions for each class, which took a fifth of the time to the first request.
Here only ``__init__`` is compiled; the others are the same code for all classes. What it makes are dataclasses:
``fields`` and ``replace`` work, instances can be compared, hashed and pickled, and cannot be changed. It has the
options that the model uses, and no others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import MISSING, FrozenInstanceError, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

_set = object.__setattr__


@dataclass_transform(field_specifiers=(field,))
def dataclass(*, frozen: bool, slots: bool, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """``frozen`` and ``slots`` are said for the reader and must be true. ``eq=False``: compared by identity."""
    assert frozen and slots

    def decorate(cls: type[T]) -> type[T]:
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
        its = fields(made)
        made.__init__ = _init(its)
        made.__setattr__ = _set_refused
        made.__delattr__ = _delete_refused
        made.__getstate__ = _getstate
        made.__setstate__ = _setstate
        if "__repr__" not in cls.__dict__:
            made.__repr__ = _repr
        if eq:
            made.__eq__, made.__hash__ = _comparison([one.name for one in its])
        result: type[T] = made
        return result

    return decorate


def _init(its: Sequence[dataclasses.Field[Any]]) -> object:
    """``__init__`` of the fields ``its``, in their order."""
    scope: dict[str, Any] = {"set": _set, "missing": MISSING}
    parameters, body = ["self"], []
    for one in its:
        name = value = one.name
        if one.default is not MISSING:
            scope[f"default_{name}"] = one.default
            parameters.append(f"{name}=default_{name}")
        elif one.default_factory is not MISSING:
            scope[f"make_{name}"] = one.default_factory
            parameters.append(f"{name}=missing")
            value = f"make_{name}() if {name} is missing else {name}"
        else:
            parameters.append(name)
        body.append(f"  set(self, {name!r}, {value})\n")
    exec(f"def __init__({', '.join(parameters)}):\n{''.join(body) or '  pass'}", scope)
    made: object = scope["__init__"]
    return made


def _comparison(names: list[str]) -> tuple[Any, Any]:
    """``__eq__`` and ``__hash__`` by the fields ``names``."""
    values: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    def equal(self: Any, other: object) -> Any:
        if other.__class__ is self.__class__:
            return values(self) == values(other)
        return NotImplemented

    return equal, lambda self: hash(values(self))


def _set_refused(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete_refused(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for one, value in zip(fields(self), state, strict=True):
        _set(self, one.name, value)


def _repr(self: Any) -> str:
    shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
    return f"{type(self).__qualname__}({shown})"
