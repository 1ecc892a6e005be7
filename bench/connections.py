"""``python -m bench.connections``: thousands of connections held by one worker, all of them served, again and again."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench import configs
from bench.endurance.app import App
from bench.endurance.clients import Client
from bench.endurance.sidecars import Sidecar
from bench.processes import free_ports

DIALLING = 64
"""Connections that are opened at a time."""


def room() -> int:
    """How many connections this process may hold, its soft limit of descriptors raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard - 500) // 2


async def hold(sidecar: Sidecar, port: int, count: int, rounds: int, at_once: int) -> dict[str, object]:
    """Open ``count`` connections and ask for something on each of them ``rounds`` times, ``at_once`` at a time."""
    before = sidecar.resident()
    gate = asyncio.Semaphore(DIALLING)
    times: list[float] = []
    failed = 0

    async def dial() -> Client:
        async with gate:
            return await Client.dial(port)

    async def ask(client: Client) -> None:
        nonlocal failed
        async with serving:
            began = time.perf_counter()
            try:
                client.get("/small")
                status, headers = await client.head()
                await client.body(headers)
                failed += status != 200
            except (OSError, asyncio.IncompleteReadError):
                failed += 1
            times.append(time.perf_counter() - began)

    began = time.monotonic()
    clients = await asyncio.gather(*(dial() for _ in range(count)))
    dialled = time.monotonic() - began
    serving = asyncio.Semaphore(at_once)
    cpu = sidecar.cpu()
    began = time.monotonic()
    for _ in range(rounds):
        await asyncio.gather(*(ask(client) for client in clients))
    took = time.monotonic() - began
    cpu = sidecar.cpu() - cpu
    held = await asyncio.to_thread(sidecar.held)
    idle = sidecar.cpu()
    await asyncio.sleep(2)
    idle = (sidecar.cpu() - idle) / 2
    report: dict[str, object] = {
        "connections": held.counts["total_connections"],
        "failed": failed,
        "requests": len(times),
        "dialling_s": round(dialled, 2),
        "requests_per_s": round(len(times) / took),
        "cpu_us_per_request": round(cpu / len(times) * 1e6, 1),
        "p50_ms": round(statistics.median(times) * 1000, 2),
        "p99_ms": round(statistics.quantiles(times, n=100)[98] * 1000, 2),
        "kb_per_connection": round((sidecar.resident() - before) / count / 1024, 1),
        "cpu_percent_when_idle": round(idle * 100, 1),
        "descriptors": held.counts["open_descriptors"],
    }
    for client in clients:
        client.abort()
    return report


async def run(count: int, rounds: int, at_once: int) -> dict[str, object]:
    """With an app and a sidecar of its own."""
    app = App()
    await app.start()
    with tempfile.TemporaryDirectory(prefix="tulle-connections-") as name:
        port, admin = free_ports(2)
        directory = Path(name)
        config = configs.plain(directory, directory / "log", port, app.port, admin)
        sidecar = await asyncio.to_thread(Sidecar, "plain", config, directory, port, admin)
        try:
            return await hold(sidecar, port, count, rounds, at_once)
        finally:
            sidecar.process.stop()
            app.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.connections", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=200)
    options = parser.parse_args()
    # Each connection needs a descriptor here and one there, and there as many again are kept for upstreams.
    if options.connections > room() + 250:
        print(
            f"only {room() + 250} connections fit under this descriptor limit (ulimit -Hn)", file=sys.stderr
        )
        return 2
    report = uvloop.run(run(options.connections, options.rounds, options.at_once))
    print(json.dumps({"cpus": os.cpu_count(), **report}, indent=2))
    return 1 if report["failed"] or report["connections"] != options.connections else 0


if __name__ == "__main__":
    sys.exit(main())
