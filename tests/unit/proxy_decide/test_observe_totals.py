"""The statistics of several workers as one."""

from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.model.cluster import Cluster as ClusterConfig
from proxy.model.stats import ClusterStats, Histogram, Http2Stats, HttpStats
from proxy.observe import metrics
from proxy.observe.store import StatStore
from proxy.observe.totals import Report, add, counted, report


def cluster(name: str, **counts: int) -> Cluster:
    made = Cluster(ClusterConfig(name, "STATIC"), lambda: 0.0)
    for key, value in counts.items():
        setattr(made.stats, key, value)
    return made


def sent(made: Report) -> Report:
    """As it arrives."""
    back: Report = pickle.loads(pickle.dumps(made))
    return back


def total(*parts: Report, ended: tuple[Report, ...] = ()) -> Report:
    made = Report(StatStore())
    for part in parts:
        add(made, sent(part))
    for part in ended:
        add(made, sent(part), alive=False)
    return made


def store(requests: int, active: int, *times: int) -> StatStore:
    made = StatStore()
    http = made.http_stats("in")
    http.downstream_rq_total = requests
    http.downstream_rq_active = active
    http.rq_xx[2] = requests
    for time in times:
        http.rq_time.record(time)
    return made


def test_counters_gauges_and_histograms_are_summed() -> None:
    made = total(report(store(3, 1, 10, 20), ()), report(store(4, 2, 1000), ()))
    http = made.store.http["in"]
    assert (http.downstream_rq_total, http.downstream_rq_active, http.rq_xx) == (7, 3, [0, 0, 7, 0, 0, 0])
    assert (http.rq_time.count, http.rq_time.total) == (3, 1030)
    assert http.rq_time.quantile(1.0) >= 1000


def test_of_a_worker_that_ended_the_counters_stay_and_the_gauges_go() -> None:
    made = total(report(store(3, 1, 10), ()), ended=(report(store(4, 2, 20), ()),))
    http = made.store.http["in"]
    assert (http.downstream_rq_total, http.downstream_rq_active, http.rq_time.count) == (7, 1, 2)


def test_what_all_see_alike_is_not_summed() -> None:
    own = cluster("c", membership_total=3, update_success=9)
    parts = [
        report(StatStore(), [cluster("c", membership_total=3, update_success=n, upstream_rq_total=5)])
        for n in (9, 2)
    ]
    (only,) = counted(total(*parts), [own])
    assert (only.stats.upstream_rq_total, only.stats.membership_total, only.stats.update_success) == (
        10,
        3,
        9,
    )


def test_only_what_was_used_is_sent_and_everything_is_shown() -> None:
    clusters = [cluster("used", upstream_cx_none_healthy=1), cluster("idle", membership_total=7)]
    made = report(StatStore(), clusters)
    assert list(made.clusters) == ["used"]
    shown = {one.name: one.stats for one in counted(total(made), clusters)}
    assert shown["used"].upstream_cx_none_healthy == 1
    assert shown["idle"].membership_total == 7
    # The live objects are not touched by adding up.
    assert clusters[0].stats.upstream_cx_none_healthy == 1


def test_hosts_are_summed_and_one_that_somebody_cannot_reach_is_unhealthy() -> None:
    def seen(requests: int, healthy: bool) -> Report:
        made = cluster("c")
        host = Host(("10.0.0.1", 80), healthy=healthy)
        host.rq_total = requests
        made.hosts = (host,)
        return report(StatStore(), [made])

    host = total(seen(2, True), seen(3, False), seen(4, True)).hosts["c"]["10.0.0.1:80"]
    assert (host.rq_total, host.healthy) == (9, False)


def test_http2_statistics_are_summed_within_those_of_a_cluster() -> None:
    def seen(resets: int, streams: int) -> Report:
        made = cluster("c")
        http2 = made.stats.http2_stats()
        http2.rx_reset, http2.streams_active = resets, streams
        return report(StatStore(), [made])

    unused = report(StatStore(), [cluster("c", upstream_rq_total=1)])
    both = total(seen(2, 1), unused, seen(3, 4), ended=(seen(5, 6),)).clusters["c"].http2
    assert both is not None
    assert (both.rx_reset, both.streams_active) == (10, 5)
    assert list(seen(1, 0).clusters) == ["c"]
    assert list(seen(0, 0).clusters) == []


@pytest.mark.parametrize("cls", [HttpStats, ClusterStats, Http2Stats])
def test_no_field_is_forgotten(cls: type[Any]) -> None:
    """Whatever field is added to a class of statistics later is summed, too."""
    part = cls()
    for attribute in fields(part):
        value = getattr(part, attribute.name)
        if isinstance(value, int):
            setattr(part, attribute.name, 1)
        elif isinstance(value, list):
            setattr(part, attribute.name, [1] * len(value))
        elif isinstance(value, dict):
            value[200] = 1
        elif value is not None:
            assert isinstance(value, Histogram)
            value.record(1)

    parts = []
    for _ in range(2):
        made = Report(StatStore())
        if cls is Http2Stats:
            made.store.http2 = part
        else:
            (made.store.http if cls is HttpStats else made.clusters)["x"] = part
        parts.append(made)
    both = total(*parts)
    if cls is Http2Stats:
        summed: Any = both.store.http2
    else:
        summed = (both.store.http if cls is HttpStats else both.clusters)["x"]
    for attribute in fields(summed):
        value = getattr(summed, attribute.name)
        if isinstance(value, int):
            assert value in (1, 2), attribute.name
            assert (
                value == 2
                or metrics.is_gauge(attribute.name)
                or attribute.name.startswith(("update_", "membership_"))
            ), attribute.name
        elif isinstance(value, list):
            assert set(value) == {2}, attribute.name
        elif isinstance(value, dict):
            assert value == {200: 2}, attribute.name
        elif value is not None:
            assert value.count == 2, attribute.name


@given(st.lists(st.lists(st.integers(0, 50), max_size=5), min_size=1, max_size=4))
def test_sums_never_fall_whoever_dies(steps: list[list[int]]) -> None:
    """One worker after the other counts, reports and dies."""
    retired = Report(StatStore())
    last = 0
    for counts in steps:
        living = StatStore()
        http = living.http_stats("in")
        for count in counts:
            http.downstream_rq_total += count
            made = total(report(living, ()))
            add(made, retired, alive=False)
            assert made.store.http["in"].downstream_rq_total >= last
            last = made.store.http["in"].downstream_rq_total
        add(retired, sent(report(living, ())), alive=False)
    assert last == sum(map(sum, steps))
