"""One plain TCP relay: CPU for a gigabyte down and up, and for a small message there and back."""

from __future__ import annotations

from dataclasses import dataclass

from bench import messages
from bench.http1 import CONNECTIONS
from bench.load import bulk, wrk
from bench.processes import Process
from bench.results import Metric
from bench.site import Rounds, Site, interleave

METRICS = (
    Metric("tcp.down", "TCP relay, towards the client, CPU", "s/GB", ratio=0.65),
    Metric("tcp.up", "TCP relay, towards the server, CPU", "s/GB", ratio=0.65),
    Metric("tcp.message", "TCP relay, small message and its answer, CPU", "µs"),
)


@dataclass(frozen=True, slots=True)
class Relays:
    """A kind's relay before the bulk server, and one before the small application."""

    bulk: tuple[Process, int]
    small: tuple[Process, int] | None


def measure(site: Site) -> dict[str, Rounds]:
    """A download, an upload and a run of wrk a round."""
    with site.scope():
        bulk_server, _ = site.helper("bulk_server")
        small_server = None if wrk.missing() else site.backend(messages.BODY)
        relays = {}
        for name in site.able("relay"):
            made = Relays(
                site.proxy(name, "relay", bulk_server),
                None if small_server is None else site.proxy(name, "relay", small_server),
            )
            for process, port in filter(None, (made.bulk, made.small)):
                process.wait_listening(port)
            relays[name] = made
        size = int(site.seconds(1000e6, 150e6))

        def load(made: Relays) -> dict[str, float]:
            found = {}
            process, port = made.bulk
            for direction in ("down", "up"):
                before = process.cpu()
                moved = bulk.transfer(port, direction, size)
                found[f"tcp.{direction}"] = (process.cpu() - before) / moved * 1e9
            if made.small is not None:
                process, port = made.small
                before = process.cpu()
                done = wrk.run(port, CONNECTIONS, site.seconds(2, 1))
                found["tcp.message"] = (process.cpu() - before) / done.requests * 1e6
            return found

        for made in relays.values():
            bulk.transfer(made.bulk[1], "down", size // 10)
        return interleave(site.rounds, relays, load)
