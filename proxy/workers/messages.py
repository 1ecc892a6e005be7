"""What the leading process and the workers tell each other. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.accept.listeners import SocketKey
from proxy.model.cluster import LoadAssignment
from proxy.model.config import Config
from proxy.model.connection import Address
from proxy.model.overload import OverloadManager
from proxy.observe.totals import Report

# To a worker.


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message: how many workers there are, and what is the same for all configurations."""

    workers: int
    overload: OverloadManager | None
    listener_limits: Mapping[str, int]
    max_handshakes: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What is new in a configuration, by the name of ``Config``'s field, and the names that are gone."""

    version: str
    changed: Mapping[str, Mapping[str, Any]]
    gone: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Compile, change nothing, answer ``Prepared``."""

    number: int
    changes: Changes


@dataclass(frozen=True, slots=True)
class Commit:
    """Put what was prepared last into force, with the ``Socket`` messages since; answer ``Committed``."""

    number: int


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening socket to be used from the next commit on; its descriptor comes along."""

    key: SocketKey


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """The workload's own key and chain (PEM), and the roots."""

    key_and_chain: bytes = field(repr=False)
    bundle: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What a lookup found for a DNS cluster."""

    cluster: str
    assignment: LoadAssignment


@dataclass(frozen=True, slots=True)
class Health:
    """What active health checks found: ``proxy.cluster.flags`` by address."""

    cluster: str
    found: Mapping[Address, int]


@dataclass(frozen=True, slots=True)
class AskReport:
    """Answer ``Reported``."""

    number: int


@dataclass(frozen=True, slots=True)
class AskCensus:
    """Answer ``Census``."""

    number: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new connections; answer ``Drained`` when the open ones are idle, or after ``timeout`` seconds."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End."""


@dataclass(frozen=True, slots=True)
class ReopenLogs:
    """The access logs were rotated."""


@dataclass(frozen=True, slots=True)
class LogLevel:
    """The level of the application log."""

    level: str


# From a worker.


@dataclass(frozen=True, slots=True)
class Prepared:
    """``path`` and ``error``: why it cannot be used; ``None`` = it can."""

    number: int
    path: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """It is in force."""

    number: int


@dataclass(frozen=True, slots=True)
class Reported:
    """``number`` as in ``AskReport``."""

    number: int
    report: Report


@dataclass(frozen=True, slots=True)
class Census:
    """What the worker holds (``Worker.census``)."""

    number: int
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is open any more, or the time was over."""


KINDS = ("listeners", "routes", "clusters", "assignments", "secrets")


def changes(before: Config, after: Config) -> Changes:
    """What makes ``after`` of ``before``. Resources that did not change are the same objects, or equal."""
    changed: dict[str, dict[str, Any]] = {}
    gone: dict[str, tuple[str, ...]] = {}
    for kind in KINDS:
        old, new = getattr(before, kind), getattr(after, kind)
        differing = {n: r for n, r in new.items() if old.get(n) is not r and old.get(n) != r}
        lost = tuple(name for name in old if name not in new)
        if differing:
            changed[kind] = differing
        if lost:
            gone[kind] = lost
    return Changes(after.version, changed, gone)


def apply_changes(before: Config, made: Changes) -> Config:
    """The inverse of :func:`changes`."""
    parts: dict[str, Any] = {}
    for kind in KINDS:
        resources = dict(getattr(before, kind))
        for name in made.gone.get(kind, ()):
            del resources[name]
        resources.update(made.changed.get(kind, {}))
        parts[kind] = resources
    return Config(made.version, **parts)
