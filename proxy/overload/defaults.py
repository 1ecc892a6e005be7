"""What an operator who configures no ``overload_manager`` gets: never run out of descriptors, nor be killed for memory.

Envoy does nothing without configuration. Pure.
"""

from __future__ import annotations

from proxy.model.overload import (
    Action,
    CgroupMemory,
    Descriptors,
    Monitor,
    OverloadManager,
    Trigger,
)

_DESCRIPTORS = "tulle.resource_monitors.descriptors"
_MEMORY = "envoy.resource_monitors.cgroup_memory"


def default_overload(*, memory_limited: bool) -> OverloadManager:
    """``memory_limited``: the control group of the process has a memory limit."""
    descriptors = Monitor(_DESCRIPTORS, Descriptors())
    actions = [
        # What the last tenth is for: upstream connections of those that are in, log files, the admin endpoint.
        Action(
            "envoy.overload_actions.disable_http_keepalive",
            tuple(
                Trigger(name, 0.8, 0.95)
                for name in ((_DESCRIPTORS, _MEMORY) if memory_limited else (_DESCRIPTORS,))
            ),
        ),
        Action("envoy.overload_actions.stop_accepting_connections", (Trigger(_DESCRIPTORS, 0.9, 0.9),)),
    ]
    if not memory_limited:
        return OverloadManager((descriptors,), tuple(actions))
    actions += [
        Action("envoy.overload_actions.shrink_heap", (Trigger(_MEMORY, 0.9, 0.9),)),
        Action("envoy.overload_actions.reject_incoming_connections", (Trigger(_MEMORY, 0.9, 0.98),)),
        Action("envoy.overload_actions.stop_accepting_requests", (Trigger(_MEMORY, 0.95, 0.98),)),
    ]
    return OverloadManager((descriptors, Monitor(_MEMORY, CgroupMemory())), tuple(actions))
