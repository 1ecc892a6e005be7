"""Large bodies through the mutual-TLS pair: CPU of both sides together for a gigabyte, down and up."""

from __future__ import annotations

from bench.load import bulk
from bench.results import Metric
from bench.site import Pair, Rounds, Site, interleave

METRICS = (
    Metric("bulk.down", "bulk response through the pair, CPU", "s/GB", ratio=1.2),
    Metric("bulk.up", "bulk request through the pair, CPU", "s/GB", ratio=1.2),
)


def measure(site: Site) -> dict[str, Rounds]:
    """A download and an upload a round."""
    with site.scope():
        backend, _ = site.helper("bulk_server")
        pairs = {name: Pair(site, name, backend) for name in site.able("inbound")}
        size = int(site.seconds(600e6, 100e6))

        def load(pair: Pair) -> dict[str, float]:
            found = {}
            for direction in ("down", "up"):
                before = pair.cpu()
                moved = bulk.transfer(pair.port, direction, size)
                found[f"bulk.{direction}"] = (sum(pair.cpu()) - sum(before)) / moved * 1e9
            return found

        for pair in pairs.values():
            bulk.transfer(pair.port, "down", size // 10)
        return interleave(site.rounds, pairs, load)
