"""``proxy.cluster.cluster``: endpoints that come and go, panic, exclusion, breakers, take-over."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from proxy.cluster.cluster import Cluster
from proxy.cluster.flags import FAILED_EDS_HEALTH
from proxy.cluster.host import Host
from proxy.model.address import SocketAddress
from proxy.model.cluster import (
    CircuitBreakers,
    Endpoint,
    LoadAssignment,
    LocalityEndpoints,
    TransportSocketMatch,
)
from proxy.model.cluster import Cluster as Config
from proxy.model.tls import CommonTls, UpstreamTls

MTLS = UpstreamTls(CommonTls(alpn_protocols=("tulle",)), sni="b")


def _endpoint(port: int, **more: Any) -> Endpoint:
    return Endpoint(SocketAddress("10.0.0.1", port), **more)


def _assignment(*levels: list[Endpoint]) -> LoadAssignment:
    return LoadAssignment("c", tuple(LocalityEndpoints(tuple(e), priority=p) for p, e in enumerate(levels)))


def _cluster(*levels: list[Endpoint], removed: list[Host] | None = None, **config: Any) -> Cluster:
    cluster = Cluster(
        Config("c", config.pop("type", "EDS"), **config),
        random.Random(5).random,
        removed.append if removed is not None else lambda host: None,
    )
    cluster.set_endpoints(_assignment(*levels))
    return cluster


def test_an_empty_cluster_has_no_host() -> None:
    assert _cluster().pick() is None
    assert Cluster(Config("c", "EDS"), random.random).pick() is None


def test_hosts_that_stay_keep_their_identity_and_the_others_are_told() -> None:
    removed: list[Host] = []
    cluster = _cluster([_endpoint(1), _endpoint(2)], removed=removed)
    one, two = cluster.hosts
    cluster.set_endpoints(_assignment([_endpoint(2, weight=9), _endpoint(3)]))
    assert cluster.hosts[0] is two
    assert (two.weight, two.removed) == (9, False)
    assert (one.removed, removed) == (True, [one])
    assert (cluster.stats.membership_total, cluster.stats.membership_change) == (2, 2)


def test_an_address_listed_twice_is_one_host_at_its_first_priority() -> None:
    cluster = _cluster([_endpoint(1)], [_endpoint(1), _endpoint(2)])
    assert [(h.label, h.priority) for h in cluster.hosts] == [("10.0.0.1:1", 0), ("10.0.0.1:2", 1)]


@pytest.mark.parametrize("status", ["UNHEALTHY", "DRAINING", "TIMEOUT"])
def test_unhealthy_hosts_are_not_picked_above_the_panic_threshold(status: Any) -> None:
    cluster = _cluster([_endpoint(1), _endpoint(2), _endpoint(3, health_status=status)])
    assert {h.label for h in (cluster.pick() for _ in range(50)) if h} == {"10.0.0.1:1", "10.0.0.1:2"}
    assert cluster.stats.membership_healthy == 2


def test_panic_uses_every_host_and_counts_it() -> None:
    cluster = _cluster(
        [_endpoint(1), _endpoint(2, health_status="UNHEALTHY"), _endpoint(3, health_status="UNHEALTHY")]
    )
    assert len({cluster.pick() for _ in range(30)}) == 3
    assert cluster.stats.lb_healthy_panic == 30


def test_panic_off_and_nobody_healthy_is_no_host() -> None:
    cluster = _cluster([_endpoint(1, health_status="UNHEALTHY")], panic_threshold=0.0)
    assert cluster.pick() is None


def test_load_spills_to_the_next_priority() -> None:
    level0 = [_endpoint(1), _endpoint(2, health_status="UNHEALTHY")]
    cluster = _cluster(level0, [_endpoint(3)])
    counts = Counter(h.label for h in (cluster.pick() for _ in range(10_000)) if h)
    # 140 % of one half is 70 % for priority 0
    assert abs(counts["10.0.0.1:1"] - 7000) < 200
    assert counts["10.0.0.1:2"] == 0


def test_refresh_after_a_change_of_health() -> None:
    cluster = _cluster([_endpoint(1), _endpoint(2)])
    cluster.hosts[0].mark(FAILED_EDS_HEALTH, True)
    cluster.refresh()
    assert {h.label for h in (cluster.pick() for _ in range(20)) if h} == {"10.0.0.1:2"}


def test_degraded_hosts_come_last() -> None:
    cluster = _cluster([_endpoint(1), _endpoint(2, health_status="DEGRADED")])
    counts = Counter(h.label for h in (cluster.pick() for _ in range(10_000)) if h)
    assert abs(counts["10.0.0.1:1"] - 7000) < 200
    assert cluster.stats.membership_degraded == 1


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"])
def test_a_retry_goes_elsewhere_if_it_can(policy: Any) -> None:
    cluster = _cluster([_endpoint(1, weight=200), _endpoint(2)], lb_policy=policy)
    first = cluster.hosts[0]
    assert all(cluster.pick(retry_excluded=first) is cluster.hosts[1] for _ in range(50))


def test_a_retry_of_the_only_host_gets_it_again() -> None:
    cluster = _cluster([_endpoint(1)])
    assert cluster.pick(retry_excluded=cluster.hosts[0]) is cluster.hosts[0]


def test_transport_socket_matches_choose_tls_by_endpoint_metadata() -> None:
    matches = (
        TransportSocketMatch("tls", (("tlsMode", "tulle"),), MTLS),
        TransportSocketMatch("raw", (), None),
    )
    cluster = _cluster(
        [_endpoint(1, transport_match=(("tlsMode", "tulle"), ("x", "y"))), _endpoint(2)],
        transport_socket_matches=matches,
        tls=MTLS,
    )
    assert [h.tls for h in cluster.hosts] == [MTLS, None]
    before = cluster.hosts[1]
    cluster.set_endpoints(_assignment([_endpoint(1), _endpoint(2, transport_match=(("tlsMode", "tulle"),))]))
    assert [h.tls for h in cluster.hosts] == [None, MTLS]
    assert before.removed, "a host whose TLS changes must not go on with its old connections"


def test_original_dst_hosts_are_remembered_up_to_a_limit() -> None:
    removed: list[Host] = []
    cluster = Cluster(Config("c", "ORIGINAL_DST"), random.random, removed.append, max_original_dst_hosts=2)
    a = cluster.original_dst_host("10.0.0.1", 80)
    b = cluster.original_dst_host("fd00::1", 80)
    assert cluster.original_dst_host("10.0.0.1", 80) is a
    cluster.original_dst_host("10.0.0.3", 80)
    assert (removed, b.removed, b.label) == ([b], True, "[fd00::1]:80")
    assert cluster.original_dst_host("10.0.0.1", 80) is a


def test_a_successor_takes_over_hosts_counts_and_statistics() -> None:
    removed: list[Host] = []
    old = _cluster([_endpoint(1), _endpoint(2)], removed=removed)
    old.hosts[0].active = 3
    old.stats.upstream_rq_total = 11
    assert old.breaker.try_request()
    new = Cluster(Config("c", "EDS", circuit_breakers=CircuitBreakers(max_requests=1)), random.random)
    new.adopt(old)
    assert new.hosts == old.hosts
    assert new.stats.upstream_rq_total == 11
    assert not new.breaker.try_request(), "the request that is in flight counts against the new limit"
    old.breaker.release_request()
    assert new.breaker.try_request()
    assert new.pick() is not None
    assert removed == []


def test_a_successor_with_other_tls_drops_the_hosts_connections() -> None:
    old = _cluster([_endpoint(1)])
    new = Cluster(Config("c", "EDS", tls=MTLS), random.random)
    new.adopt(old)
    assert old.hosts[0].removed
    assert [(h.tls, h.removed) for h in new.hosts] == [(MTLS, False)]


def test_a_successor_of_another_type_starts_empty() -> None:
    old = _cluster([_endpoint(1)])
    host = old.hosts[0]
    new = Cluster(Config("c", "STATIC"), random.random)
    new.adopt(old)
    assert (new.hosts, host.removed) == ((), True)


@pytest.mark.parametrize(
    ("kind", "counter"),
    [
        ("connection", "upstream_cx_overflow"),
        ("pending", "upstream_rq_pending_overflow"),
        ("request", "upstream_rq_active_overflow"),
        ("retry", "upstream_rq_retry_overflow"),
    ],
)
def test_breakers_let_in_as_many_as_allowed(kind: str, counter: str) -> None:
    limits = CircuitBreakers(max_connections=2, max_pending_requests=2, max_requests=2, max_retries=2)
    cluster = Cluster(Config("c", "EDS", circuit_breakers=limits), random.random)
    try_one, release = getattr(cluster.breaker, f"try_{kind}"), getattr(cluster.breaker, f"release_{kind}")
    assert [try_one(), try_one(), try_one()] == [True, True, False]
    assert getattr(cluster.stats, counter) == 1
    release()
    assert try_one()


def test_hosts_on_behalf_of_clients_are_told_apart_bounded_and_removed_with_their_origin() -> None:
    gone: list[Host] = []
    cluster = _cluster([_endpoint(1)], removed=gone, proxy_protocol=2)
    cluster.max_original_dst_hosts = 2
    (host,) = cluster.hosts
    ends = [((f"1.1.1.{n}", 1), ("2.2.2.2", 2)) for n in range(4)]
    first = cluster.on_behalf(host, ends[0])
    assert first is cluster.on_behalf(first, ends[0])
    assert (first.address, first.ends) == (host.address, ends[0])
    second = cluster.on_behalf(host, ends[1])
    assert second is not first
    cluster.on_behalf(host, ends[2])
    assert gone == [first] and first.removed
    cluster.set_endpoints(_assignment([_endpoint(2)]))
    assert second.removed and host.removed
    assert len(gone) == 4
