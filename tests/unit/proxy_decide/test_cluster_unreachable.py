"""SRV targets that cannot be reached: the next priority serves meanwhile (RFC 2782)."""

from __future__ import annotations

import random

from proxy.cluster.cluster import UNREACHABLE_CAP, Cluster
from proxy.cluster.host import Host
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster as Config
from proxy.model.cluster import DiscoveryType, Endpoint, LoadAssignment, LocalityEndpoints


def cluster(kind: DiscoveryType = "DNS_SRV") -> tuple[Cluster, Host, Host, Host]:
    made = Cluster(Config("c", kind), random.Random(3).random)
    first, second, spare = (Endpoint(SocketAddress("10.0.0.1", port)) for port in (1, 2, 3))
    made.set_endpoints(
        LoadAssignment("c", (LocalityEndpoints((first, second)), LocalityEndpoints((spare,), priority=1)))
    )
    return (made, *made.hosts)


def picks(made: Cluster) -> set[int]:
    return {host.address[1] for host in (made.pick() for _ in range(200)) if host is not None}


def test_the_next_priority_serves_while_the_first_cannot_be_reached() -> None:
    made, first, second, _ = cluster()
    assert picks(made) == {1, 2}
    assert made.unreachable(first) == 1.0
    assert 1 not in picks(made)
    assert made.unreachable(second) == 1.0
    assert picks(made) == {3}
    made.try_again(first)
    assert 1 in picks(made)


def test_each_failure_doubles_the_pause_up_to_the_cap() -> None:
    made, first, _, _ = cluster()
    pauses = []
    for _ in range(8):
        pauses.append(made.unreachable(first))
        assert made.unreachable(first) == 0.0  # out of use already: no second timer
        made.try_again(first)
    assert pauses[:3] == [1.0, 4.0, 16.0]
    assert pauses[-1] == UNREACHABLE_CAP


def test_other_clusters_leave_that_to_health_checks() -> None:
    made, first, _, _ = cluster("STATIC")
    assert made.unreachable(first) == 0.0
    assert picks(made) == {1, 2}


def test_hosts_that_left_are_left_alone() -> None:
    made, first, _, _ = cluster()
    made.set_endpoints(LoadAssignment("c", ()))
    assert made.unreachable(first) == 0.0
    made.try_again(first)
    assert made.pick() is None
