"""Read the monitors, decide, put into force: once every ``refresh_interval``, driven by the worker's sweeper.

It holds no timer of its own. What an action means for connections and requests is where they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from proxy.model.overload import ActionName, OverloadManager
from proxy.model.stats import OverloadActionStats, OverloadMonitorStats, OverloadStats
from proxy.overload.actions import OverloadActions
from proxy.overload.heap import shrink_heap
from proxy.overload.pressure import decide
from proxy.overload.resources import ResourceError, usage

log = logging.getLogger(__name__)

SHRINK_INTERVAL: Final = 10.0
"""Seconds between two shrinkings while ``shrink_heap`` goes on (as in Envoy)."""


class Overload:
    """The overload state of one worker. ``accepting(bool)`` is called when accepting is to stop or to go on."""

    def __init__(
        self, config: OverloadManager, stats: OverloadStats, accepting: Callable[[bool], None]
    ) -> None:
        timers = tuple(
            rule
            for action in config.actions
            if action.name == "envoy.overload_actions.reduce_timeouts"
            for rule in action.timers
        )
        self.actions = OverloadActions(timers)
        self._config = config
        self._accepting = accepting
        self._pressures: dict[str, float] = {}
        self._next = 0.0
        self._next_shrink = 0.0
        self._stats = stats
        for action in config.actions:
            stats.actions.setdefault(action.name, OverloadActionStats())
        for monitor in config.monitors:
            stats.monitors.setdefault(monitor.name, OverloadMonitorStats())

    def sweep(self, now: float) -> bool:
        """Look, if it is time to; whether it looked. ``now`` is the loop's time."""
        if now < self._next:
            return False
        self._next = now + self._config.refresh_interval
        for monitor in self._config.monitors:
            stats = self._stats.monitors[monitor.name]
            try:
                pressure = usage(monitor.resource)
            except ResourceError as error:
                # The last known pressure stays.
                if not stats.failed_updates:
                    log.warning("overload monitor %s: %s", monitor.name, error)
                stats.failed_updates += 1
                continue
            self._pressures[monitor.name] = pressure
            stats.pressure = round(pressure * 100)
        extents = decide(self._config.actions, self._pressures)
        for name, extent in extents.items():
            self._count(name, extent)
        self._apply(extents, now)
        return True

    def _count(self, name: ActionName, extent: float) -> None:
        stats = self._stats.actions[name]
        active = int(extent >= 1.0)
        if active != stats.active:
            log.warning("%s is %s", name, "active" if active else "no longer active")
        stats.active = active
        stats.scale_percent = round(extent * 100)

    def _apply(self, extents: dict[ActionName, float], now: float) -> None:
        actions = self.actions
        actions.reject_connections = extents.get("envoy.overload_actions.reject_incoming_connections", 0.0)
        actions.stop_requests = extents.get("envoy.overload_actions.stop_accepting_requests", 0.0)
        actions.disable_keepalive = extents.get("envoy.overload_actions.disable_http_keepalive", 0.0)
        actions.reduce_timeouts(extents.get("envoy.overload_actions.reduce_timeouts", 0.0))
        stop = extents.get("envoy.overload_actions.stop_accepting_connections", 0.0) >= 1.0
        if stop != actions.stop_accepting:
            actions.stop_accepting = stop
            self._accepting(not stop)
        if extents.get("envoy.overload_actions.shrink_heap", 0.0) >= 1.0 and now >= self._next_shrink:
            self._next_shrink = now + SHRINK_INTERVAL
            self._stats.actions["envoy.overload_actions.shrink_heap"].shrink_count += 1
            shrink_heap()
