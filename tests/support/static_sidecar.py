"""Tulle's sidecar with a bootstrap file, as ``tulle proxy -c`` runs it; says on standard output where it listens."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from proxy import bootstrap
from proxy.app import Common, Sidecar


async def _serve(path: Path) -> None:
    loaded = bootstrap.load(path)
    sidecar = Sidecar(Common(drain_time=0.0))
    running = asyncio.create_task(sidecar.run_static(loaded.config, loaded.message))
    while not sidecar.admin.ready() and not running.done():  # noqa: ASYNC110 - it has no event for this
        await asyncio.sleep(0.01)
    if running.done():
        await running
    print(json.dumps({name: at[0][1] for name, at in sidecar.worker.addresses().items()}), flush=True)
    await running


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
