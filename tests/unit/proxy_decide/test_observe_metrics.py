"""``proxy.observe.metrics`` and the histogram."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.stats import ClusterStats, Histogram
from proxy.observe.metrics import prometheus_text, stats_text
from proxy.observe.store import StatStore


@dataclass
class Counted:
    """A cluster, as far as its statistics go."""

    name: str
    stats: ClusterStats = field(default_factory=ClusterStats)


def _gathered() -> tuple[StatStore, list[Counted]]:
    store = StatStore()
    http = store.http_stats("in")
    http.downstream_rq_total = 3
    http.rq_xx[2] = 2
    http.downstream_cx_active = 1
    for us in (400, 900, 3000):
        http.rq_time.record(us)
    store.listener_stats("127.0.0.1_80").ssl_handshake = 4
    store.rbac_stats("http.in.rbac.").denied = 5
    store.rbac_stats("n.rbac.").allowed = 6
    store.tcp_stats("t").downstream_cx_total = 7
    store.route_stats("v", "r").rq_total = 8
    cluster = ClusterStats()
    cluster.upstream_rq_total = 9
    cluster.rq_codes[503] = 2
    cluster.rq_codes[999] = 1
    store.http2.rx_reset = 10
    cluster.http2_stats().streams_active = 11
    return store, [Counted('o|80||x"', cluster)]


@pytest.mark.parametrize(
    "line",
    [
        "http.in.downstream_rq_total: 3",
        "http.in.downstream_rq_2xx: 2",
        "http.in.downstream_cx_active: 1",
        "listener.127.0.0.1_80.ssl.handshake: 4",
        "http.in.rbac.denied: 5",
        "n.rbac.allowed: 6",
        "tcp.t.downstream_cx_total: 7",
        "vhost.v.route.r.upstream_rq_total: 8",
        'cluster.o|80||x".upstream_rq_total: 9',
        'cluster.o|80||x".upstream_rq_503: 2',
        'cluster.o|80||x".upstream_rq_time: No recorded values',
        "access_log_file.write_dropped: 0",
        "http2.rx_reset: 10",
        'cluster.o|80||x".http2.streams_active: 11',
    ],
)
def test_stats_text(line: str) -> None:
    store, clusters = _gathered()
    assert line in stats_text(store, clusters).splitlines()


def test_stats_text_is_sorted_and_filtered_and_histograms_come_last() -> None:
    store, clusters = _gathered()
    lines = stats_text(store, clusters, pattern="^http.in.downstream_rq_(total|time$|2)").splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "http.in.downstream_rq_2xx",
        "http.in.downstream_rq_total",
        "http.in.downstream_rq_time",
    ]
    assert "P50(nan,1.023)" in lines[-1]


def test_a_filter_matches_anywhere_and_may_leave_out_zeros() -> None:
    store, clusters = _gathered()
    assert stats_text(store, clusters, pattern="rbac", used_only=True).splitlines() == [
        "http.in.rbac.denied: 5",
        "n.rbac.allowed: 6",
    ]
    assert "upstream_rq_time" not in stats_text(store, clusters, used_only=True)


@pytest.mark.parametrize("pattern", ["(", "(?=x)", "a" * 5000])
def test_a_filter_that_is_no_pattern(pattern: str) -> None:
    store, clusters = _gathered()
    with pytest.raises(ValueError, match="filter"):
        stats_text(store, clusters, pattern=pattern)


@pytest.mark.parametrize(
    "line",
    [
        "# TYPE envoy_http_downstream_rq_total counter",
        'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="in"} 3',
        'envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="in"} 2',
        "# TYPE envoy_http_downstream_cx_active gauge",
        "# TYPE envoy_http_downstream_rq_time histogram",
        'envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="in",le="0.5"} 1',
        'envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="in",le="+Inf"} 3',
        'envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix="in"} 4.3',
        'envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="in"} 3',
        'envoy_http_rbac_denied{envoy_http_conn_manager_prefix="in"} 5',
        'envoy_listener_ssl_handshake{envoy_listener_address="127.0.0.1_80"} 4',
        'envoy_cluster_upstream_rq_total{envoy_cluster_name="o|80||x\\""} 9',
        'envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="o|80||x\\""} 2',
        "# TYPE envoy_cluster_membership_total gauge",
        "envoy_http2_rx_reset{} 10",
        "# TYPE envoy_http2_pending_send_bytes gauge",
        "# TYPE envoy_http2_outbound_frames_active gauge",
        "# TYPE envoy_cluster_http2_streams_active gauge",
        'envoy_cluster_http2_streams_active{envoy_cluster_name="o|80||x\\""} 11',
    ],
)
def test_prometheus_text(line: str) -> None:
    store, clusters = _gathered()
    assert line in prometheus_text(store, clusters).splitlines()


def test_every_family_has_one_type_and_no_series_twice() -> None:
    store, clusters = _gathered()
    store.http_stats("out")
    clusters.append(Counted("second"))
    text = prometheus_text(store, clusters)
    types = re.findall(r"^# TYPE (\S+)", text, re.M)
    series = re.findall(r"^([^#]\S*\{.*\}) ", text, re.M)
    assert len(types) == len(set(types))
    assert len(series) == len(set(series))
    assert "999" not in text


def test_a_cluster_has_http2_statistics_from_its_first_connection_on() -> None:
    cluster = Counted("c")
    assert "cluster.c.http2." not in stats_text(StatStore(), [cluster])
    kept = cluster.stats.http2_stats()
    assert cluster.stats.http2_stats() is kept
    assert "cluster.c.http2.goaway_sent: 0\n" in stats_text(StatStore(), [cluster])


@given(st.integers(0, 2**70))
def test_a_value_lies_in_its_bucket(value: int) -> None:
    histogram = Histogram()
    histogram.record(value)
    index = histogram.buckets.index(1)
    if index < 255:
        assert value <= Histogram.upper_bound(index)
        assert index == 0 or value > Histogram.upper_bound(index - 1)
        assert Histogram.upper_bound(index) <= max(4, value * 1.25)


def test_quantiles_of_an_exponential() -> None:
    rng = random.Random(1)
    histogram = Histogram()
    values = sorted(int(rng.expovariate(1 / 20_000)) for _ in range(10_000))
    for value in values:
        histogram.record(value)
    for q in (0.5, 0.9, 0.99):
        exact = values[int(q * 10_000)]
        assert exact * 0.99 <= histogram.quantile(q) <= exact * 1.26
    assert histogram.total == sum(values)


def test_a_clock_that_went_back_counts_as_zero() -> None:
    histogram = Histogram()
    histogram.record(-5)
    assert (histogram.buckets[0], histogram.total, histogram.quantile(1.0)) == (1, 0, 0.0)
