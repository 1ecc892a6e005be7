"""When a PING is sent, and when the other end counts as gone."""

from __future__ import annotations

from proxy.http2.keepalive import Keepalive
from proxy.model.http2 import Http2Keepalive


def of(jitter: float = 0.0, chance: float = 0.0, interval: float = 10.0, idle: float = 0.0) -> Keepalive:
    options = Http2Keepalive(
        timeout=2.0, interval=interval, interval_jitter=jitter, connection_idle_interval=idle
    )
    return Keepalive(options, 100.0, lambda: chance)


def test_a_ping_each_interval_while_it_is_answered() -> None:
    keepalive = of()
    assert keepalive.due(109.9) == ""
    assert keepalive.due(110.0) == "ping"
    assert keepalive.due(111.0) == "", "one at a time"
    keepalive.answered(111.0)
    assert keepalive.due(120.9) == ""
    assert keepalive.due(121.0) == "ping"


def test_an_answer_that_does_not_come() -> None:
    keepalive = of()
    assert keepalive.due(110.0) == "ping"
    assert keepalive.due(111.9) == ""
    assert keepalive.due(112.0) == "lost"


def test_any_frame_gives_it_more_time() -> None:
    keepalive = of()
    assert keepalive.due(110.0) == "ping"
    keepalive.heard(111.5)
    assert keepalive.due(113.4) == ""
    assert keepalive.due(113.5) == "lost"


def test_frames_do_not_replace_the_ping() -> None:
    keepalive = of()
    keepalive.heard(109.0)
    assert keepalive.due(110.0) == "ping"


def test_jitter_is_a_part_of_the_interval() -> None:
    keepalive = of(jitter=15.0, chance=0.5)
    assert keepalive.due(110.7) == ""
    assert keepalive.due(110.75) == "ping"


def test_before_a_stream_after_a_pause() -> None:
    keepalive = of(interval=0.0, idle=5.0)
    assert keepalive.before_stream(105.0) == ""
    assert keepalive.before_stream(105.1) == "ping"
    assert keepalive.before_stream(105.2) == "", "one at a time"
    assert keepalive.due(107.0) == ""
    assert keepalive.due(107.1) == "lost"


def test_no_pause() -> None:
    keepalive = of(interval=0.0, idle=5.0)
    keepalive.heard(104.0)
    assert keepalive.before_stream(109.0) == ""
    assert of().before_stream(1e9) == "", "not configured"
    assert of(interval=0.0).due(1e9) == "", "not configured"
