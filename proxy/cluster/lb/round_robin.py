"""ROUND_ROBIN: each host in turn; with different weights, in proportion to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.cluster.host import Host
from proxy.cluster.lb.edf import Edf
from proxy.cluster.lb.weights import effective_weights


def round_robin(
    hosts: Sequence[Host], random: Callable[[], float], position: list[int]
) -> Callable[[], Host]:
    """A function that gives the next of ``hosts`` (not empty).

    ``position`` holds one integer, which goes on counting when the hosts change.
    """
    weights = effective_weights(hosts)
    if weights is not None:
        by_host = dict(zip(hosts, weights, strict=True))
        return Edf(hosts, by_host.__getitem__, random).pick
    count = len(hosts)

    def pick() -> Host:
        n = position[0]
        position[0] = n + 1
        return hosts[n % count]

    return pick
