"""Latency through the pair at a fixed rate that every kind sustains, from the time at which a request was due."""

from __future__ import annotations

from bench import messages
from bench.load import openloop
from bench.results import Metric
from bench.site import Pair, Rounds, Site, interleave

RATE = 1000.0

METRICS = (
    Metric("latency.p50", "p50 at 1,000 requests/s", "ms", ratio=0.65),
    Metric("latency.p99", "p99 at 1,000 requests/s", "ms", ratio=1.0),
)


def measure(site: Site) -> dict[str, Rounds]:
    """The same arrivals for every kind in a round, others in the next round."""
    with site.scope():
        backend = site.backend(messages.BODY)
        pairs = {name: Pair(site, name, backend) for name in site.able("inbound")}
        for pair in pairs.values():
            openloop.run(pair.port, RATE, 1, seed=0)
        turns = dict.fromkeys(pairs, 0)

        def load(pair: Pair) -> dict[str, float]:
            turns[pair.kind] += 1
            seen = openloop.run(pair.port, RATE, site.seconds(5, 1.5), seed=turns[pair.kind])
            return {
                "latency.p50": seen.p50 * 1000,
                "latency.p99": seen.p99 * 1000,
                "latency.lag": seen.lag * 1000,
            }

        return interleave(site.rounds, pairs, load)
