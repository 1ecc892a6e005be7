"""Memory of an idle sidecar, and what each idle mutual-TLS connection adds to it."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack

from bench import messages
from bench.load import tls
from bench.results import Metric
from bench.site import Pair, Rounds, Site, interleave

METRICS = (
    Metric("memory.rss", "idle sidecar, resident", "MB", ratio=0.6),
    Metric("memory.private", "idle sidecar, private", "MB", ratio=1.0),
    Metric("memory.connection", "idle mutual-TLS connection", "KB", limit=32),
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
            return interleave(
                site.few,
                {name: name for name in site.able("inbound")},
                lambda name: _of(site, name, backend),
            )
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
