"""What to do when memory, descriptors or connections run out (``config.overload.v3.OverloadManager``)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from proxy.model.frozen import dataclass

ActionName = Literal[
    "envoy.overload_actions.stop_accepting_connections",
    "envoy.overload_actions.reject_incoming_connections",
    "envoy.overload_actions.stop_accepting_requests",
    "envoy.overload_actions.disable_http_keepalive",
    "envoy.overload_actions.reduce_timeouts",
    "envoy.overload_actions.shrink_heap",
]
TimerType = Literal[
    "HTTP_DOWNSTREAM_CONNECTION_IDLE",
    "HTTP_DOWNSTREAM_CONNECTION_MAX",
    "HTTP_DOWNSTREAM_STREAM_IDLE",
    "TRANSPORT_SOCKET_CONNECT",
]


@dataclass(frozen=True, slots=True)
class FixedHeap:
    """The resident memory of the process against ``max_heap_size_bytes``."""

    max_heap_size_bytes: int


@dataclass(frozen=True, slots=True)
class CgroupMemory:
    """The memory of the process's control group against its limit, or ``max_memory_bytes`` if that is less (0: not
    set)."""

    max_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Open file descriptors against ``RLIMIT_NOFILE``."""


@dataclass(frozen=True, slots=True)
class InjectedResource:
    """A pressure from 0 to 1 that is read from a file."""

    filename: str


Resource: TypeAlias = FixedHeap | CgroupMemory | Descriptors | InjectedResource


@dataclass(frozen=True, slots=True)
class Monitor:
    """A resource whose pressure is read every ``refresh_interval``."""

    name: str
    resource: Resource


@dataclass(frozen=True, slots=True)
class Trigger:
    """From ``scaling`` on the action begins, at ``saturation`` it is complete. A threshold has both at one place."""

    monitor: str
    scaling: float
    saturation: float


@dataclass(frozen=True, slots=True)
class TimerScale:
    """How far a timer may be shortened: to ``min_timeout`` seconds, or to ``min_scale`` (0 to 1) of what it is."""

    timer: TimerType
    min_timeout: float = 0.0
    min_scale: float | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """Carried out as far as the trigger that is furthest on says."""

    name: ActionName
    triggers: tuple[Trigger, ...]
    timers: tuple[TimerScale, ...] = ()


@dataclass(frozen=True, slots=True)
class OverloadManager:
    """``max_connections``: downstream connections of all listeners together (``None``: what descriptors allow)."""

    monitors: tuple[Monitor, ...] = ()
    actions: tuple[Action, ...] = ()
    refresh_interval: float = 1.0
    max_connections: int | None = None
