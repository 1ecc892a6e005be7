"""LEAST_REQUEST: the less busy of a few random hosts; with different weights, weight shared by requests in flight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.cluster.host import Host
from proxy.cluster.lb.edf import Edf
from proxy.cluster.lb.weights import effective_weights


def least_request(
    hosts: Sequence[Host], random: Callable[[], float], choice_count: int = 2
) -> Callable[[], Host]:
    """A function that gives one of ``hosts`` (not empty).

    As in Envoy: equal weights use "the power of ``choice_count`` choices" (of *distinct* hosts when it is two);
    different ones a weighted schedule with ``weight / (active + 1)``.
    """
    weights = effective_weights(hosts)
    if weights is not None:
        by_host = dict(zip(hosts, weights, strict=True))
        return Edf(hosts, lambda h: by_host[h] / (h.active + 1), random).pick
    count = len(hosts)
    if count == 1:
        only = hosts[0]
        return lambda: only

    def pick_of_two() -> Host:
        i = int(random() * count)
        j = int(random() * (count - 1))
        if j >= i:
            j += 1
        a = hosts[i]
        b = hosts[j]
        return b if b.active < a.active else a

    def pick_of_many() -> Host:
        best = hosts[int(random() * count)]
        for _ in range(choice_count - 1):
            other = hosts[int(random() * count)]
            if other.active < best.active:
                best = other
        return best

    return pick_of_two if choice_count == 2 else pick_of_many
