"""Tulle's data path with a bootstrap file, as a process; says on standard output where its listeners are."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import uvloop

from proxy import bootstrap
from tests.fakes.sidecar import sidecar


async def _serve(path: Path) -> None:
    config = bootstrap.load(path).config
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with sidecar(*config.listeners.values(), *config.clusters.values()) as running:
        print(json.dumps(running.extra), flush=True)
        await ended.wait()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
