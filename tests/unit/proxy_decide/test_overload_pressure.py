"""From pressures to actions, and what the actions make of timeouts."""

from __future__ import annotations

import pytest

from proxy.model.overload import Action, TimerScale, Trigger
from proxy.overload.actions import OverloadActions, hit
from proxy.overload.defaults import default_overload
from proxy.overload.pressure import decide, extent, shortened

STOP = "envoy.overload_actions.stop_accepting_requests"
KEEPALIVE = "envoy.overload_actions.disable_http_keepalive"


@pytest.mark.parametrize(
    ("scaling", "saturation", "pressure", "wanted"),
    [
        (0.9, 0.9, 0.89, 0.0),
        (0.9, 0.9, 0.9, 1.0),
        (0.9, 0.9, 3.0, 1.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.5, 0.9, 0.5, 0.0),
        (0.5, 0.9, 0.7, 0.5),
        (0.5, 0.9, 0.9, 1.0),
        (0.5, 0.9, 0.1, 0.0),
    ],
)
def test_how_far_a_trigger_is_on(scaling: float, saturation: float, pressure: float, wanted: float) -> None:
    assert extent(Trigger("m", scaling, saturation), pressure) == pytest.approx(wanted)


def test_the_trigger_that_is_furthest_on_counts() -> None:
    actions = (Action(STOP, (Trigger("a", 0.5, 1.0), Trigger("b", 0.9, 0.9))), Action(KEEPALIVE, ()))
    assert decide(actions, {"a": 0.75, "b": 0.8}) == {STOP: 0.5, KEEPALIVE: 0.0}
    assert decide(actions, {"a": 0.75, "b": 0.95}) == {STOP: 1.0, KEEPALIVE: 0.0}
    # Nothing is known yet.
    assert decide(actions, {}) == {STOP: 0.0, KEEPALIVE: 0.0}


@pytest.mark.parametrize(
    ("timeout", "rule", "by", "wanted"),
    [
        (10.0, TimerScale("HTTP_DOWNSTREAM_STREAM_IDLE", 2.0), 0.0, 10.0),
        (10.0, TimerScale("HTTP_DOWNSTREAM_STREAM_IDLE", 2.0), 0.5, 6.0),
        (10.0, TimerScale("HTTP_DOWNSTREAM_STREAM_IDLE", 2.0), 1.0, 2.0),
        (1.0, TimerScale("HTTP_DOWNSTREAM_STREAM_IDLE", 2.0), 1.0, 1.0),
        (10.0, TimerScale("HTTP_DOWNSTREAM_STREAM_IDLE", min_scale=0.1), 1.0, 1.0),
        # Off stays off.
        (0.0, TimerScale("HTTP_DOWNSTREAM_STREAM_IDLE", 2.0), 1.0, 0.0),
        (10.0, None, 1.0, 10.0),
    ],
)
def test_timeouts_are_shortened_in_proportion(
    timeout: float, rule: TimerScale | None, by: float, wanted: float
) -> None:
    assert shortened(timeout, rule, by) == pytest.approx(wanted)


def test_only_the_timers_that_were_named_are_shortened() -> None:
    actions = OverloadActions((TimerScale("HTTP_DOWNSTREAM_CONNECTION_IDLE", 1.0),))
    actions.reduce_timeouts(1.0)
    assert actions.timeout("HTTP_DOWNSTREAM_CONNECTION_IDLE", 30.0) == 1.0
    assert actions.timeout("HTTP_DOWNSTREAM_STREAM_IDLE", 30.0) == 30.0


def test_a_share_is_hit_in_proportion() -> None:
    assert hit(1.0) and not hit(0.0)
    assert 200 < sum(hit(0.3) for _ in range(1000)) < 400


@pytest.mark.parametrize("limited", [True, False])
def test_defaults_watch_only_what_has_a_limit(limited: bool) -> None:
    made = default_overload(memory_limited=limited)
    names = {monitor.name for monitor in made.monitors}
    assert ("envoy.resource_monitors.cgroup_memory" in names) is limited
    assert {trigger.monitor for action in made.actions for trigger in action.triggers} == names
    assert len({action.name for action in made.actions}) == len(made.actions)
