"""The overload manager (``config.overload.v3``) of a bootstrap.

A ``TypedStruct`` of ``tulle.resource_monitors.descriptors.v1.Descriptors``, without fields, is Tulle's own monitor:
open descriptors against ``RLIMIT_NOFILE``.
"""

from __future__ import annotations

from typing import Any, get_args

from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.resource_monitors.cgroup_memory.v3 import cgroup_memory_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.resource_monitors.injected_resource.v3 import injected_resource_pb2
from xds.type.v3 import typed_struct_pb2

from proxy.model.config import ConfigError
from proxy.model.overload import (
    Action,
    ActionName,
    CgroupMemory,
    Descriptors,
    FixedHeap,
    InjectedResource,
    Monitor,
    OverloadManager,
    Resource,
    TimerScale,
    TimerType,
    Trigger,
)
from proxy.xds.decode.fields import UNSUPPORTED, check, duration, enum, forbid, known, required, unpack

_MANAGER = known("refresh_interval", "resource_monitors", "actions")
_MONITOR = known("name", "typed_config")
_FIXED_HEAP = known("max_heap_size_bytes")
_CGROUP = known("max_memory_bytes")
_CONNECTIONS = known("max_active_downstream_connections")
_INJECTED = known("filename")
_ACTION = known("name", "triggers", "typed_config")
_TRIGGER = known("name", "threshold", "scaled")
_THRESHOLD = known("value")
_SCALED = known("scaling_threshold", "saturation_threshold")
_TIMERS = known("timer_scale_factors")
_TIMER = known("timer", "min_timeout", "min_scale")
_PERCENT = known("value")
_TYPED_STRUCT = known("type_url", "value")

DESCRIPTORS = "type.googleapis.com/tulle.resource_monitors.descriptors.v1.Descriptors"
_REDUCE = "envoy.overload_actions.reduce_timeouts"
_KINDS = (
    fixed_heap_pb2.FixedHeapConfig,
    cgroup_memory_pb2.CgroupMemoryConfig,
    downstream_connections_pb2.DownstreamConnectionsConfig,
    injected_resource_pb2.InjectedResourceConfig,
    typed_struct_pb2.TypedStruct,
)
_ACTIONS: frozenset[str] = frozenset(get_args(ActionName))
_TIMER_TYPES: dict[str, TimerType] = {name: name for name in get_args(TimerType)}


def overload_manager(message: Any, path: str) -> OverloadManager:
    """An ``OverloadManager``."""
    check(message, path, _MANAGER)
    interval = duration(message, path, "refresh_interval", 1.0)
    forbid(interval < 0.001, f"{path}.refresh_interval", "must be at least 1 ms")
    monitors: list[Monitor] = []
    names: set[str] = set()
    connections: int | None = None
    for index, item in enumerate(message.resource_monitors):
        at = f"{path}.resource_monitors[{index}]"
        check(item, at, _MONITOR)
        name = required(item.name, f"{at}.name")
        forbid(name in names, f"{at}.name", f"{name!r} is there twice")
        names.add(name)
        found = _resource(item, f"{at}.typed_config")
        if isinstance(found, int):
            connections = found
        else:
            monitors.append(Monitor(name, found))
    known_names = frozenset(monitor.name for monitor in monitors)
    actions: list[Action] = []
    for index, item in enumerate(message.actions):
        made = _action(item, f"{path}.actions[{index}]", known_names)
        forbid(
            any(made.name == other.name for other in actions),
            f"{path}.actions[{index}].name",
            f"{made.name!r} is there twice",
        )
        actions.append(made)
    return OverloadManager(tuple(monitors), tuple(actions), interval, connections)


def _resource(message: Any, path: str) -> Resource | int:
    """A monitor's resource; a number is a limit of downstream connections, which no trigger reads."""
    inner = unpack(message.typed_config, path, _KINDS)
    if isinstance(inner, fixed_heap_pb2.FixedHeapConfig):
        check(inner, path, _FIXED_HEAP)
        forbid(not inner.max_heap_size_bytes, f"{path}.max_heap_size_bytes", "must be above 0")
        return FixedHeap(inner.max_heap_size_bytes)
    if isinstance(inner, cgroup_memory_pb2.CgroupMemoryConfig):
        check(inner, path, _CGROUP)
        return CgroupMemory(inner.max_memory_bytes)
    if isinstance(inner, downstream_connections_pb2.DownstreamConnectionsConfig):
        check(inner, path, _CONNECTIONS)
        limit: int = inner.max_active_downstream_connections
        forbid(limit <= 0, f"{path}.max_active_downstream_connections", "must be above 0")
        return limit
    if isinstance(inner, injected_resource_pb2.InjectedResourceConfig):
        check(inner, path, _INJECTED)
        return InjectedResource(required(inner.filename, f"{path}.filename"))
    check(inner, path, _TYPED_STRUCT)
    forbid(inner.type_url != DESCRIPTORS, f"{path}.type_url", f"must be {DESCRIPTORS}")
    for field in sorted(inner.value.fields):
        raise ConfigError(f"{path}.value.{field}", UNSUPPORTED)
    return Descriptors()


def _action(message: Any, path: str, monitors: frozenset[str]) -> Action:
    check(message, path, _ACTION)
    name = message.name
    if name not in _ACTIONS:
        raise ConfigError(f"{path}.name", f"{name!r} {UNSUPPORTED}; supported: {', '.join(sorted(_ACTIONS))}")
    forbid(not message.triggers, f"{path}.triggers", "is empty")
    timers: tuple[TimerScale, ...] = ()
    forbid(
        (name == _REDUCE) != message.HasField("typed_config"),
        f"{path}.typed_config",
        f"belongs to {_REDUCE}, and it is needed there",
    )
    if name == _REDUCE:
        timers = _timers(message.typed_config, f"{path}.typed_config")
    return Action(
        name,
        tuple(
            _trigger(item, f"{path}.triggers[{index}]", monitors)
            for index, item in enumerate(message.triggers)
        ),
        timers,
    )


def _trigger(message: Any, path: str, monitors: frozenset[str]) -> Trigger:
    check(message, path, _TRIGGER)
    forbid(message.name not in monitors, f"{path}.name", f"{message.name!r} is no resource monitor")
    kind = message.WhichOneof("trigger_oneof")
    if kind == "threshold":
        check(message.threshold, f"{path}.threshold", _THRESHOLD)
        value = _share(message.threshold.value, f"{path}.threshold.value")
        return Trigger(message.name, value, value)
    if kind == "scaled":
        at = f"{path}.scaled"
        check(message.scaled, at, _SCALED)
        low = _share(message.scaled.scaling_threshold, f"{at}.scaling_threshold")
        high = _share(message.scaled.saturation_threshold, f"{at}.saturation_threshold")
        forbid(low >= high, f"{at}.scaling_threshold", "must be below saturation_threshold")
        return Trigger(message.name, low, high)
    raise ConfigError(path, "needs threshold or scaled")


def _share(value: float, path: str) -> float:
    forbid(not 0 <= value <= 1, path, f"{value:g} is not from 0 to 1")
    return value


def _timers(message: Any, path: str) -> tuple[TimerScale, ...]:
    inner = unpack(message, path, (overload_pb2.ScaleTimersOverloadActionConfig,))
    check(inner, path, _TIMERS)
    forbid(not inner.timer_scale_factors, f"{path}.timer_scale_factors", "is empty")
    found = []
    for index, item in enumerate(inner.timer_scale_factors):
        at = f"{path}.timer_scale_factors[{index}]"
        check(item, at, _TIMER)
        timer = enum(item, at, "timer", _TIMER_TYPES)
        kind = item.WhichOneof("overload_adjust")
        if kind == "min_timeout":
            found.append(TimerScale(timer, duration(item, at, "min_timeout", 0.0)))
        elif kind == "min_scale":
            check(item.min_scale, f"{at}.min_scale", _PERCENT)
            percent = item.min_scale.value
            forbid(not 0 <= percent <= 100, f"{at}.min_scale.value", f"{percent:g} is not from 0 to 100")
            found.append(TimerScale(timer, min_scale=percent / 100))
        else:
            raise ConfigError(at, "needs min_timeout or min_scale")
    return tuple(found)
