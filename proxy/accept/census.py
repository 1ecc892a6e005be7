"""Count what the process holds: for gauges once a second, and in full for whoever looks for a leak.

It changes nothing. Taking the full count walks all objects, which takes milliseconds: it is for the admin endpoint.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from typing import Any

from proxy.model.stats import ServerStats
from proxy.overload.resources import open_descriptors, resident_memory
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool


def update(stats: ServerStats, state: LoopState, pool: Pool, *, connections: int, started: float) -> None:
    """Renew the ``server.*`` gauges."""
    stats.uptime = int(state.loop.time() - started)
    stats.memory_physical_size = resident_memory()
    stats.total_connections = connections
    stats.open_descriptors = open_descriptors()
    stats.tasks = len(asyncio.all_tasks(state.loop))
    stats.exchanges = len(state.exchanges)
    stats.upstream_connections = pool.open
    stats.upstream_waiting = pool.waiting


def objects() -> dict[str, Any]:
    """Timers that run, and objects of the proxy's own classes.

    What was frozen (``gc.freeze``: the configuration) is not among them.
    """
    found: Counter[str] = Counter()
    timers = 0
    for thing in gc.get_objects():
        kind = type(thing)
        # A class in C may have something else there than a name.
        if str(kind.__module__).startswith("proxy."):
            found[kind.__qualname__] += 1
        elif kind.__name__ == "TimerHandle":
            timers += not thing.cancelled()
    return {
        "timers": timers,
        "allocated_blocks": sys.getallocatedblocks(),
        "objects": dict(sorted(found.items())),
    }
