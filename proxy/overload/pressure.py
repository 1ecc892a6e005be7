"""From pressures to how far each action is carried out. Pure: it reads no resource and does nothing."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.model.overload import Action, ActionName, TimerScale, Trigger


def extent(trigger: Trigger, pressure: float) -> float:
    """How far a trigger is on: 0 to 1."""
    if pressure >= trigger.saturation:
        return 1.0
    if pressure <= trigger.scaling:
        return 0.0
    return (pressure - trigger.scaling) / (trigger.saturation - trigger.scaling)


def decide(actions: tuple[Action, ...], pressures: Mapping[str, float]) -> dict[ActionName, float]:
    """How far each action is to be carried out. A monitor that has said nothing yet triggers nothing."""
    return {
        action.name: max(
            (extent(trigger, pressures.get(trigger.monitor, 0.0)) for trigger in action.triggers), default=0.0
        )
        for action in actions
    }


def shortened(timeout: float, rule: TimerScale | None, by: float) -> float:
    """A timer of ``timeout`` seconds (0 = off) under ``reduce_timeouts`` carried out as far as ``by``."""
    if rule is None or not by or not timeout:
        return timeout
    least = rule.min_timeout if rule.min_scale is None else timeout * rule.min_scale
    return max(least, timeout - (timeout - least) * by) if least < timeout else timeout
