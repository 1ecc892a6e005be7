"""Memory of an idle sidecar, and what each idle mutual-TLS connection and each further worker adds to it."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack

from bench import messages
from bench.load import tls, wrk
from bench.results import Metric
from bench.site import Pair, Rounds, Site, interleave

METRICS = (
    Metric("memory.rss", "idle sidecar, resident", "MB", ratio=0.6),
    Metric("memory.private", "idle sidecar, private", "MB", ratio=1.0),
    Metric("memory.connection", "idle mutual-TLS connection", "KB", limit=32),
    Metric("memory.worker", "further worker, after load, proportional", "MB", limit=10),
)
CONNECTIONS = 1000
SETTLE = 1.5
"""Seconds after which a started sidecar has done what it does once (Tulle collects garbage half a second after)."""
_FIRST = 50
"""Connections opened before the count begins: tables and arenas grow by steps."""


def measure(site: Site) -> dict[str, Rounds]:
    """A new pair for each round."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    try:
        with site.scope():
            backend = site.backend(messages.BODY)

            def measure_kind(name: str) -> dict[str, float]:
                found = _of(site, name, backend)
                if wrk.missing() is None:
                    found["memory.worker"] = _further_worker(site, name, backend)
                return found

            return interleave(site.few, {name: name for name in site.able("inbound")}, measure_kind)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _of(site: Site, name: str, backend: int) -> dict[str, float]:
    count = int(site.seconds(CONNECTIONS, 200))
    with site.scope(), ExitStack() as connections:
        pair = Pair(site, name, backend)
        caller = tls.Caller(pair.inbound_port, site.directory)
        for _ in range(_FIRST):
            connections.enter_context(caller.open())
        time.sleep(SETTLE)
        idle = pair.outbound.memory()
        before = pair.inbound.memory()
        for _ in range(count):
            connections.enter_context(caller.open())
        time.sleep(0.3)
        after = pair.inbound.memory()
        return {
            "memory.rss": idle.rss / 1e6,
            "memory.private": idle.private / 1e6,
            "memory.connection": (after.private - before.private) / count / 1e3,
        }


def _further_worker(site: Site, name: str, backend: int) -> float:
    """What the third and the fourth worker add, each, once all have served requests (MB, shared pages in proportion).

    A worker is a process in Tulle and nginx, a thread in Envoy and HAProxy.
    """
    sizes = []
    for workers in (2, 4):
        with site.scope():
            inbound, upstream = site.proxy(name, "inbound", backend)
            inbound.wait_listening(upstream)
            outbound, port = site.proxy(name, "outbound", upstream, workers=workers)
            outbound.wait_listening(port)
            wrk.run(port, 16 * workers, 1)
            time.sleep(SETTLE)
            sizes.append(outbound.memory().pss / 1e6)
    return (sizes[1] - sizes[0]) / 2
