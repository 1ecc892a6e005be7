"""Tulle's data path with a bootstrap file, as a process; says on standard output where its listeners are.

For each line that it reads it says its statistics, on one line.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import uvloop

from proxy import bootstrap
from proxy.observe.metrics import stats_text
from tests.fakes.sidecar import Sidecar, sidecar


async def _serve(path: Path) -> None:
    config = bootstrap.load(path).config
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with sidecar(*config.listeners.values(), *config.clusters.values()) as running:
        print(json.dumps(running.extra), flush=True)
        asyncio.get_running_loop().add_reader(sys.stdin, _say_statistics, running)
        await ended.wait()


def _say_statistics(running: Sidecar) -> None:
    if not sys.stdin.readline():
        asyncio.get_running_loop().remove_reader(sys.stdin)
        return
    runtime = running.hub.current
    text = stats_text(runtime.stats, runtime.clusters.values())
    print(json.dumps(text), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
