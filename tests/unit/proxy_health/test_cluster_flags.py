"""What is wrong with a host, and what a cluster makes of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from proxy.admin.clusters import clusters_json, clusters_text
from proxy.cluster import flags
from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster as Config
from proxy.model.cluster import Endpoint, EndpointHealthCheck, LoadAssignment, LocalityEndpoints
from proxy.model.health_check import TcpCheck
from proxy.observe.metrics import stats_text
from proxy.observe.store import StatStore
from tests.fakes.checked import health_check

CHECK = health_check(TcpCheck())
DISABLED = EndpointHealthCheck(disabled=True)


def endpoint(number: int, **options: Any) -> Endpoint:
    return Endpoint(SocketAddress("10.0.0.1", number), **options)


def listed(*endpoints: Endpoint) -> LoadAssignment:
    return LoadAssignment("c", (LocalityEndpoints(endpoints),))


def cluster(*endpoints: Endpoint, **options: Any) -> Cluster:
    options.setdefault("health_check", CHECK)
    made = Cluster(Config("c", options.pop("type", "EDS"), **options), random.Random(1).random)
    made.set_endpoints(listed(*endpoints))
    return made


def found(made: Cluster, **said: int) -> None:
    """``h1=0``: the host of port 1 passes."""
    made.set_health({("10.0.0.1", int(name[1:])): flag for name, flag in said.items()})


def ports(made: Cluster) -> dict[int, int]:
    return {host.address[1]: host.flags for host in made.hosts}


def test_one_reason_that_ends_does_not_hide_another() -> None:
    host = Host(("10.0.0.1", 1))
    host.mark(flags.FAILED_EDS_HEALTH, True)
    host.mark(flags.FAILED_ACTIVE_HC, True)
    host.mark(flags.FAILED_EDS_HEALTH, False)
    assert not host.healthy
    host.mark(flags.FAILED_ACTIVE_HC, False)
    assert host.healthy
    assert flags.text(host.flags) == "healthy"


def test_hosts_start_as_failed_and_keep_what_was_found() -> None:
    made = cluster(endpoint(1), endpoint(2, health_check=DISABLED))
    assert ports(made) == {1: flags.FAILED_ACTIVE_HC, 2: 0}
    found(made, h1=0, h2=flags.FAILED_ACTIVE_HC, h9=0)
    assert ports(made) == {1: 0, 2: 0}
    found(made, h1=flags.FAILED_ACTIVE_HC | flags.ACTIVE_HC_TIMEOUT)
    made.set_endpoints(listed(endpoint(1, weight=2), endpoint(3)))
    assert ports(made) == {1: flags.FAILED_ACTIVE_HC | flags.ACTIVE_HC_TIMEOUT, 3: flags.FAILED_ACTIVE_HC}
    made.set_endpoints(listed(endpoint(1, health_check=DISABLED)))
    assert ports(made) == {1: 0}


def test_what_discovery_and_checks_say_adds_up() -> None:
    made = cluster(endpoint(1, health_status="UNHEALTHY"))
    found(made, h1=0)
    assert not made.hosts[0].healthy
    made.set_endpoints(listed(endpoint(1)))
    assert made.hosts[0].healthy


@pytest.mark.parametrize(
    ("options", "stays"),
    [
        ({}, True),
        ({"type": "STRICT_DNS"}, True),
        ({"type": "STATIC"}, False),
        ({"type": "LOGICAL_DNS"}, False),
        ({"ignore_health_on_host_removal": True}, False),
        ({"health_check": None}, False),
    ],
)
def test_who_passes_stays_when_discovery_has_forgotten_it(options: dict[str, Any], stays: bool) -> None:
    removed: list[Host] = []
    made = cluster(endpoint(1), endpoint(2), endpoint(3, health_check=DISABLED), **options)
    made._on_removed = removed.append
    found(made, h1=0, h2=0)
    made.set_endpoints(listed(endpoint(1)))
    assert ports(made).get(2) == (flags.PENDING_DYNAMIC_REMOVAL if stays else None)
    assert [host.address[1] for host in removed] == ([3] if stays else [2, 3])
    if stays:
        found(made, h2=0)
        assert 2 in ports(made)
        made.set_endpoints(listed(endpoint(1), endpoint(2)))
        assert ports(made)[2] == 0
        made.set_endpoints(listed(endpoint(1)))
        found(made, h2=flags.FAILED_ACTIVE_HC)
        assert list(ports(made)) == [1]
        assert removed[-1].address[1] == 2 and removed[-1].removed


def test_who_fails_goes_when_discovery_has_forgotten_it() -> None:
    made = cluster(endpoint(1), endpoint(2), endpoint(3, health_status="UNHEALTHY"))
    found(made, h1=0, h3=0)
    made.set_endpoints(listed(endpoint(1)))
    assert list(ports(made)) == [1]


def test_a_changed_cluster_keeps_what_was_found_of_its_hosts() -> None:
    before = cluster(endpoint(1), endpoint(2))
    found(before, h1=0)
    after = Cluster(replace(before.config, lb_policy="RANDOM"), random.random)
    after.adopt(before)
    assert ports(after) == {1: 0, 2: flags.FAILED_ACTIVE_HC}
    unchecked = Cluster(replace(before.config, health_check=None), random.random)
    unchecked.adopt(after)
    assert ports(unchecked) == {1: 0, 2: 0}
    again = Cluster(before.config, random.random)
    again.adopt(unchecked)
    # Who was good enough until now is until it is asked.
    assert ports(again) == {1: 0, 2: 0}


def test_hosts_that_do_not_count_yet_cause_no_panic() -> None:
    new = [endpoint(n) for n in range(1, 10)]
    counting = cluster(endpoint(10), *new)
    found(counting, h10=0)
    assert len({h.address[1] for h in (counting.pick() for _ in range(200)) if h}) == 10
    assert counting.stats.lb_healthy_panic
    waiting = cluster(endpoint(10), *new, ignore_new_hosts_until_first_hc=True)
    found(waiting, h10=0)
    assert {h.address[1] for h in (waiting.pick() for _ in range(200)) if h} == {10}
    assert (waiting.stats.membership_excluded, waiting.stats.lb_healthy_panic) == (9, 0)


def test_the_pages_say_what_is_wrong() -> None:
    made = cluster(endpoint(1), endpoint(2))
    found(made, h1=flags.FAILED_ACTIVE_HC | flags.ACTIVE_HC_TIMEOUT, h2=flags.DEGRADED_ACTIVE_HC)
    text = clusters_text([made], {})
    assert "c::10.0.0.1:1::health_flags::/failed_active_hc/active_hc_timeout\n" in text
    assert "c::10.0.0.1:2::health_flags::/degraded_active_hc\n" in text
    hosts = clusters_json([made], {})["cluster_statuses"][0]["host_statuses"]
    assert [host["health_status"] for host in hosts] == [
        {"failed_active_health_check": True, "active_hc_timeout": True, "eds_health_status": "HEALTHY"},
        {"failed_active_degraded_check": True, "eds_health_status": "HEALTHY"},
    ]
    assert "health_check" not in stats_text(StatStore(), [made])
