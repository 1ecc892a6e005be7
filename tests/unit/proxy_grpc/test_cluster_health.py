"""``proxy.cluster.health`` and ``health_answer``: thresholds, intervals, verdicts as in Envoy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.cluster.health import HostHealth, Transition
from proxy.cluster.health_answer import compile_http, holds
from proxy.http1.head import Head, scan_response
from proxy.model.config import ConfigError
from proxy.model.health_check import HealthCheck, HttpCheck, TcpCheck
from proxy.model.matcher import StringMatcher

CONFIG = HealthCheck(
    TcpCheck(),
    timeout=1.0,
    interval=10.0,
    unhealthy_threshold=2,
    healthy_threshold=3,
    no_traffic_interval=60.0,
    no_traffic_healthy_interval=50.0,
    unhealthy_interval=20.0,
    unhealthy_edge_interval=30.0,
    healthy_edge_interval=40.0,
)


def host(chance: float = 0.0, **more: float) -> HostHealth:
    return HostHealth(replace(CONFIG, **more), lambda: chance)


def healthy() -> HostHealth:
    it = host()
    assert it.passed() == "changed"
    return it


def test_a_host_is_not_used_until_its_first_check_which_counts_at_once() -> None:
    it = host()
    assert it.failed and it.pending
    assert it.passed() == "changed"
    assert not it.failed and not it.pending
    assert it.passed() == "unchanged"


def test_a_first_failure_is_told_although_nothing_changes() -> None:
    it = host()
    assert it.missed("network") == "changed"
    assert it.failed and not it.pending
    assert it.missed("network") == "unchanged"


def test_back_to_health_takes_as_many_in_a_row_as_the_threshold_says() -> None:
    it = host()
    it.missed("active")
    assert [it.passed(), it.passed()] == ["change_pending", "change_pending"]
    assert it.missed("network") == "unchanged"
    assert [it.passed(), it.passed(), it.passed()] == ["change_pending", "change_pending", "changed"]
    assert not it.failed


def test_the_network_fails_by_a_threshold_and_the_host_itself_at_once() -> None:
    it = healthy()
    assert it.missed("network") == "change_pending" and not it.failed
    assert it.passed() == "unchanged"
    assert it.missed("network_timeout") == "change_pending" and not it.timed_out
    assert it.missed("network") == "changed" and it.failed
    assert healthy().missed("active") == "changed"
    assert healthy().missed("passive") == "changed"


def test_answers_that_may_be_tried_again_have_the_threshold_too() -> None:
    it = healthy()
    assert it.missed("active", retriable=True) == "change_pending"
    assert it.missed("active", retriable=True) == "changed"


def test_a_failed_host_goes_between_silence_and_errors() -> None:
    it = host()
    it.missed("network_timeout")
    assert it.timed_out
    it.missed("network")
    assert not it.timed_out
    it.missed("network_timeout")
    it.passed()
    it.passed()
    assert it.timed_out and it.failed
    it.passed()
    assert not it.timed_out and not it.failed


def test_degraded_is_told_when_it_changes() -> None:
    it = healthy()
    assert it.passed(degraded=True) == "changed" and it.degraded
    assert it.passed(degraded=True) == "unchanged"
    assert it.passed() == "changed" and not it.degraded
    # It says nothing of health.
    it.missed("active")
    assert it.passed(degraded=True) == "change_pending" and it.degraded and it.failed


@pytest.mark.parametrize(
    ("transition", "passed", "traffic", "seconds"),
    [
        ("unchanged", True, True, 10.0),
        ("changed", True, True, 10.0),
        ("change_pending", True, True, 40.0),
        ("unchanged", False, True, 20.0),
        ("changed", False, True, 20.0),
        ("change_pending", False, True, 30.0),
        ("unchanged", True, False, 50.0),
        ("changed", True, False, 50.0),
        ("change_pending", True, False, 60.0),
        ("unchanged", False, False, 60.0),
        ("change_pending", False, False, 60.0),
    ],
)
def test_when_the_next_check_is_due(
    transition: Transition, passed: bool, traffic: bool, seconds: float
) -> None:
    assert host().next_delay(transition, passed=passed, traffic=traffic) == seconds


def test_jitter_is_added_as_time_and_as_a_part_of_the_interval() -> None:
    def delay(it: HostHealth) -> float:
        return it.next_delay("unchanged", passed=True, traffic=True)

    almost = 1 - 2**-53
    assert delay(host(almost, interval_jitter=2.0)) == 11.999
    assert delay(host(almost, interval_jitter_percent=40)) == 13.999
    assert delay(host(0.5, interval_jitter=2.0, interval_jitter_percent=40)) == 13.0
    assert delay(host(0.0, interval_jitter=2.0, interval_jitter_percent=40)) == 10.0
    assert delay(host(almost, interval=0.0001)) == 0.001


def test_the_first_check_comes_at_once_or_within_the_initial_jitter() -> None:
    assert host(0.9).first_delay() == 0.0
    assert host(0.0, initial_jitter=2.0).first_delay() == 0.001
    assert host(0.5, initial_jitter=2.0, interval_jitter_percent=100).first_delay() == 1.0


@pytest.mark.parametrize(
    ("body", "wanted", "expected"),
    [
        (b"abc", (), True),
        (b"abc", (b"abc",), True),
        (b"xabcx", (b"a", b"c"), True),
        (b"abc", (b"c", b"a"), False),
        (b"aba", (b"ab", b"ba"), False),
        (b"", (b"a",), False),
    ],
)
def test_payloads_are_found_one_after_the_other(
    body: bytes, wanted: tuple[bytes, ...], expected: bool
) -> None:
    assert holds(body, wanted) is expected


def response(status: int, *fields: bytes) -> Head:
    lines = b"".join(field + b"\r\n" for field in fields)
    found = scan_response(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, lines))
    assert found is not None
    return found


CALLED = b"x-envoy-upstream-healthchecked-cluster: locations-v1"
NAMED = StringMatcher("prefix", "locations")


@pytest.mark.parametrize(
    ("check", "head", "body", "verdict"),
    [
        (HttpCheck("/"), response(200), b"", "passed"),
        (HttpCheck("/"), response(201), b"", "failed"),
        (HttpCheck("/"), response(503), b"", "failed"),
        (HttpCheck("/"), response(200, b"x-envoy-degraded: true"), b"", "degraded"),
        (HttpCheck("/"), response(503, b"x-envoy-degraded: true"), b"", "failed"),
        (HttpCheck("/", expected_statuses=((100, 101), (201, 300))), response(299), b"", "passed"),
        (HttpCheck("/", expected_statuses=((100, 101), (201, 300))), response(200), b"", "failed"),
        (HttpCheck("/", expected_statuses=((100, 101), (201, 300))), response(300), b"", "failed"),
        (HttpCheck("/", retriable_statuses=((500, 504),)), response(503), b"", "retriable"),
        (HttpCheck("/", retriable_statuses=((500, 504),)), response(504), b"", "failed"),
        (HttpCheck("/", retriable_statuses=((200, 201),)), response(200), b"", "passed"),
        (HttpCheck("/", receive=(b"ok",)), response(200), b"all ok", "passed"),
        (HttpCheck("/", receive=(b"ok",)), response(200), b"no", "failed"),
        (HttpCheck("/", receive=(b"ok",), retriable_statuses=((500, 504),)), response(503), b"no", "failed"),
        (HttpCheck("/", service_name=NAMED), response(200, CALLED), b"", "passed"),
        (HttpCheck("/", service_name=NAMED), response(200, CALLED, b"x-envoy-degraded: 1"), b"", "degraded"),
        (HttpCheck("/", service_name=StringMatcher("exact", "x")), response(200, CALLED), b"", "failed"),
        (HttpCheck("/", service_name=NAMED), response(200), b"", "failed"),
    ],
)
def test_answers_over_http(check: HttpCheck, head: Head, body: bytes, verdict: str) -> None:
    assert compile_http(check, "f", lambda: None)(head, body) == verdict


def test_a_name_that_cannot_be_matched_is_refused_by_its_field() -> None:
    with pytest.raises(ConfigError) as caught:
        compile_http(HttpCheck("/", service_name=StringMatcher("safe_regex", "(")), "f", lambda: None)
    assert caught.value.path == "f.service_name_matcher.safe_regex"
