"""HTTP/1.1: CPU of each side for a small request on kept connections, and what the pair does on its CPUs.

wrk -> outbound -(mutual TLS)-> inbound -> application, as fast as it goes. On: mutual TLS, JSON log to a file,
statistics, RBAC on the caller, retries, request ids.
"""

from __future__ import annotations

from bench import messages
from bench.load import wrk
from bench.results import REFERENCE, Metric
from bench.site import Pair, Rounds, Site, interleave

CONNECTIONS = 32
PURE = "tulle, pure"

METRICS = (
    Metric("http1.outbound", "HTTP/1.1, outbound CPU", "µs/request", ratio=0.65),
    Metric("http1.inbound", "HTTP/1.1, inbound CPU", "µs/request", ratio=0.65),
    Metric("http1.rate", "HTTP/1.1 through the pair", "requests/s", better="higher"),
)
METRICS_PURE = (
    Metric("http1.outbound_pure", "HTTP/1.1, outbound CPU, pure Python", "µs/request", ratio=0.85),
    Metric("http1.inbound_pure", "HTTP/1.1, inbound CPU, pure Python", "µs/request", ratio=0.85),
)
"""The same without the compiled head scanner; where there is none, both are the same."""


def measure(site: Site) -> dict[str, Rounds]:
    """One run of wrk a round."""
    with site.scope():
        backend = site.backend(messages.BODY)
        pairs = {name: Pair(site, name, backend) for name in site.able("inbound")}
        if "tulle" in pairs:
            pairs[PURE] = Pair(site, "tulle", backend, pure=True)

        def load(pair: Pair) -> dict[str, float]:
            before = pair.cpu()
            done = wrk.run(pair.port, CONNECTIONS, site.seconds(4, 1))
            after = pair.cpu()
            return {
                "http1.outbound": (after[0] - before[0]) / done.requests * 1e6,
                "http1.inbound": (after[1] - before[1]) / done.requests * 1e6,
                "http1.rate": done.per_second,
            }

        for pair in pairs.values():
            wrk.run(pair.port, CONNECTIONS, 1)
        return with_pure(interleave(site.rounds, pairs, load))


def with_pure(found: dict[str, Rounds]) -> dict[str, Rounds]:
    """Give pure Python's rounds, where there are any, metrics of their own, beside the same rounds of Envoy."""
    made = dict(found)
    for metric, kinds in found.items():
        if PURE in kinds:
            made[metric] = {kind: values for kind, values in kinds.items() if kind != PURE}
            made[f"{metric}_pure"] = {
                "tulle": kinds[PURE],
                **{kind: values for kind, values in kinds.items() if kind == REFERENCE},
            }
    return made
