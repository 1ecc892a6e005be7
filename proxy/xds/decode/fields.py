"""Reading single fields of a message: known sets, presence, durations, wrappers, enumerations, ``Any``.

The message types come from ``xds-protos``, which has no type stubs, so messages are ``Any`` here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from proxy.model.config import ConfigError

T = TypeVar("T")

UNSUPPORTED = "is not supported by Tulle's sidecar"

MAX_SECONDS = 100 * 365 * 86400.0
"""A longer duration than this is taken for a mistake; it would also overflow timers."""


def known(*names: str, without_effect: Mapping[str, str] | None = None) -> frozenset[str]:
    """The fields of one message that may be set.

    ``without_effect`` maps the names of those that Tulle accepts and does not act on to the reason why that is
    harmless; it is documentation that stands beside the list it explains.
    """
    return frozenset(names).union(without_effect or ())


def check(message: Any, path: str, allowed: frozenset[str]) -> None:
    """Refuse what is set and not ``allowed``. Raises :class:`ConfigError` with the field's path."""
    for field, _ in message.ListFields():
        if field.name not in allowed:
            raise ConfigError(f"{path}.{field.name}", UNSUPPORTED)
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise ConfigError(
            path, f"field number {unknown[0].field_number} of {message.DESCRIPTOR.full_name} is unknown here"
        )


def forbid(condition: bool, path: str, message: str) -> None:
    """Raise :class:`ConfigError` if ``condition``."""
    if condition:
        raise ConfigError(path, message)


def required(value: str, path: str) -> str:
    """A string that may not be empty."""
    if not value:
        raise ConfigError(path, "is required")
    return value


def wrapped(message: Any, name: str, default: T) -> T:
    """The value of a ``google.protobuf.*Value`` field, or ``default`` if it is not set."""
    return getattr(message, name).value if message.HasField(name) else default


def only(message: Any, path: str, name: str, value: object) -> None:
    """A wrapper field that may only be absent or have ``value``."""
    if message.HasField(name) and getattr(message, name).value != value:
        raise ConfigError(f"{path}.{name}", f"only {str(value).lower()} is supported by Tulle's sidecar")


def duration(message: Any, path: str, name: str, default: T) -> float | T:
    """A ``google.protobuf.Duration`` in seconds, or ``default`` if it is not set. Negative is an error."""
    if not message.HasField(name):
        return default
    value = getattr(message, name)
    seconds: float = value.seconds + value.nanos / 1e9
    if seconds < 0 or seconds > MAX_SECONDS:
        raise ConfigError(f"{path}.{name}", f"a duration of {seconds:g} s is out of range")
    return seconds


def enum(message: Any, path: str, name: str, values: Mapping[str, T]) -> T:
    """What ``values`` has for the name of an enumeration's value; a name that is not in it is refused."""
    number = getattr(message, name)
    found = message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number.get(number)
    label = str(number) if found is None else found.name
    if label not in values:
        raise ConfigError(f"{path}.{name}", f"{label} {UNSUPPORTED}; {_one_of(values)}")
    return values[label]


def unpack(any_message: Any, path: str, types: Iterable[Any]) -> Any:
    """The message inside a ``google.protobuf.Any``, which must be one of ``types`` (message classes)."""
    url: str = any_message.type_url
    if not url:
        raise ConfigError(path, "is required")
    name = url.rpartition("/")[2]
    for cls in types:
        if cls.DESCRIPTOR.full_name == name:
            message = cls()
            try:
                message.ParseFromString(any_message.value)
            except DecodeError as error:
                raise ConfigError(path, f"not a {name}: {error}") from error
            return message
    raise ConfigError(path, f"{name} {UNSUPPORTED}; {_one_of(cls.DESCRIPTOR.full_name for cls in types)}")


def _one_of(names: Iterable[str]) -> str:
    listed = sorted(names)
    return f"supported: {', '.join(listed)}" if listed else "nothing is supported here"
