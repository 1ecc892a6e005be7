"""``python -m bench.soak``: a mixed load for minutes, or many gigabytes, through two sidecars with mutual TLS.

It says what the sidecars held before and after, and fails if anything is left or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import cast

import uvloop

from bench.endurance import clients
from bench.endurance.app import App
from bench.endurance.clients import KINDS, Client
from bench.endurance.sidecars import Held, Sidecars

GROWTH_MB = 24.0
"""Resident memory that a load may leave with a sidecar: what the allocator keeps, not what leaks."""


PAUSE = 0.25
"""Seconds of rest between two pieces of work of one client."""


class Load:
    """The mixed load. ``done`` counts pieces of work by kind, ``wrong`` what went wrong, by kind and how."""

    def __init__(self, port: int, each: int) -> None:
        self._port = port
        self._each = each
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """``each`` clients of every kind, one after the other, for so long; what is begun is finished."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                for _ in range(self._each):
                    group.create_task(self._repeat(kind, until))

    async def _repeat(self, kind: str, until: float) -> None:
        while time.monotonic() < until:
            await self._one(kind)
            # Those that are over at once would leave no time for the others.
            await asyncio.sleep(PAUSE)

    async def _one(self, kind: str) -> None:
        client: Client | None = None
        try:
            async with asyncio.timeout(clients.PATIENCE):
                client = await Client.dial(self._port)
                problem = await KINDS[kind](client)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            if client is not None:
                client.writer.close()
        self.done[kind] += 1
        if problem:
            self.wrong[f"{kind}: {problem}"] += 1


async def mixed(
    sidecars: Sidecars, seconds: float, *, each: int = 3, warm_up: float = 5.0
) -> dict[str, object]:
    """Load of every kind; a report."""
    # What is made once (pools, caches, arenas of the allocator) belongs to the start.
    await Load(sidecars.port, each).run(warm_up)
    before = await sidecars.quiet()
    load = Load(sidecars.port, each)
    began = time.monotonic()
    await load.run(seconds)
    took = time.monotonic() - began
    after = await sidecars.quiet(before)
    return {
        "seconds": round(took, 1),
        "done": dict(load.done),
        "wrong": dict(load.wrong),
        "sidecars": compare(sidecars, before, after),
    }


async def bulk(sidecars: Sidecars, gigabytes: float) -> dict[str, object]:
    """So many gigabytes, half up and half down, half of each chunked; memory is looked at all the time."""
    size = int(gigabytes * 1e9 / 4)
    await clients.download(await Client.dial(sidecars.port), 64 << 20)
    await clients.upload(await Client.dial(sidecars.port), 64 << 20)
    before = await sidecars.quiet()
    peak = [held.resident for held in before]

    async def watch() -> None:
        while True:
            for n, sidecar in enumerate(sidecars.both):
                peak[n] = max(peak[n], sidecar.resident())
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    cpu = [sidecar.cpu() for sidecar in sidecars.both]
    problems = [
        await clients.download(await Client.dial(sidecars.port), size),
        await clients.upload(await Client.dial(sidecars.port), size),
    ]
    took = time.monotonic() - began
    cpu = [sidecar.cpu() - used for sidecar, used in zip(sidecars.both, cpu, strict=True)]
    watching.cancel()
    after = await sidecars.quiet(before)
    return {
        "gigabytes": size * 4 / 1e9,
        "seconds": round(took, 1),
        "cpu_seconds_per_gb": [round(used / (size * 4 / 1e9), 2) for used in cpu],
        "wrong": {problem: 1 for problem in problems if problem},
        "peak_growth_mb": [
            round((top - held.resident) / 1e6, 1) for top, held in zip(peak, before, strict=True)
        ],
        "sidecars": compare(sidecars, before, after),
    }


def compare(sidecars: Sidecars, before: list[Held], after: list[Held]) -> dict[str, dict[str, object]]:
    """By sidecar: what differs, and memory."""
    report: dict[str, dict[str, object]] = {}
    for sidecar, old, new in zip(sidecars.both, before, after, strict=True):
        names = sorted({*old.objects, *new.objects})
        report[sidecar.name] = {
            "before": old.counts,
            "after": new.counts,
            "more_objects": {
                name: new.objects.get(name, 0) - old.objects.get(name, 0)
                for name in names
                if new.objects.get(name, 0) > old.objects.get(name, 0)
            },
            "more_blocks": new.blocks - old.blocks,
            "resident_mb": [round(held.resident / 1e6, 1) for held in (old, new)],
        }
    return report


def leaks(report: dict[str, object]) -> list[str]:
    """What a report says is left, "" if nothing."""
    found = []
    sides: dict[str, dict[str, object]] = report["sidecars"]  # type: ignore[assignment]
    for name, side in sides.items():
        if side["before"] != side["after"]:
            found.append(f"{name}: {side['before']} -> {side['after']}")
        if side["more_objects"]:
            found.append(f"{name}: objects left: {side['more_objects']}")
        old, new = cast(list[float], side["resident_mb"])
        if new - old > GROWTH_MB:
            found.append(f"{name}: memory grew from {old} to {new} MB")
    return found


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Start everything, load it, stop it."""
    app = App()
    await app.start()
    with tempfile.TemporaryDirectory(prefix="tulle-soak-") as name:
        sidecars = await asyncio.to_thread(Sidecars, Path(name), app.port)
        try:
            if options.gigabytes:
                return await bulk(sidecars, options.gigabytes)
            return await mixed(sidecars, options.seconds, each=options.each)
        finally:
            sidecars.stop()
            app.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of mixed load")
    parser.add_argument("--each", type=int, default=3, help="clients of each kind at a time")
    parser.add_argument(
        "--gigabytes", type=float, default=0.0, help="relay so many instead of the mixed load"
    )
    report = uvloop.run(run(parser.parse_args()))
    print(json.dumps(report, indent=2))
    found = leaks(report)
    for line in found:
        print(f"LEAK {line}", file=sys.stderr)
    return 1 if found or report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
