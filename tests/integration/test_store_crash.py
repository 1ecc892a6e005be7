"""An acknowledged write survives ``kill -9``; an unacknowledged one happened whole or not at all."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from control_plane.store.base import Key
from control_plane.store.sqlite import SqliteStore

# Eight writers at once, so that a kill may fall into a shared flush. Every commit writes a pair.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from control_plane.store.base import Key, Put
from control_plane.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    async def write(writer):
        number = 0
        while True:
            name = f"{sys.argv[2]}-{writer}-{number}"
            pair = [Put(Key("", "pairs", half, name), {"spec": name}) for half in ("left", "right")]
            revision = await store.commit(pair, author="crash test")
            os.write(1, f"{revision} {name}\\n".encode())
            number += 1
    await asyncio.gather(*(write(n) for n in range(8)))

asyncio.run(main())
"""


def live_and_die(path: Path, life: str, seconds: float) -> dict[str, int]:
    """Run a writer until ``seconds`` after its first acknowledgement, kill it, return all it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(path), life]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        return acknowledged(process, seconds)


def acknowledged(process: subprocess.Popen[bytes], stop_after: float) -> dict[str, int]:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    assert select.select([descriptor], [], [], 30)[0], "the writer acknowledged nothing"
    data = b""
    deadline = time.monotonic() + stop_after
    while (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            data += os.read(descriptor, 1 << 16)
    process.send_signal(signal.SIGKILL)
    process.wait()
    data += process.stdout.read()
    lines = data.decode().splitlines()
    return {name: int(revision) for revision, name in (line.split() for line in lines)}


@pytest.mark.parametrize("seed", range(4))
async def test_every_acknowledged_write_is_there_after_kill_9(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store.db"
    moments = random.Random(seed)
    acked: dict[str, int] = {}
    for life in range(3):
        acked |= live_and_die(path, str(life), moments.uniform(0.0, 0.25))

    store = await SqliteStore.open(path)
    snapshot = await store.snapshot()
    for name, revision in acked.items():
        for half in ("left", "right"):
            assert snapshot.objects[Key("", "pairs", half, name)].revision == revision
    left = {key.name for key in snapshot.objects if key.namespace == "left"}
    assert left == {key.name for key in snapshot.objects if key.namespace == "right"}
    assert snapshot.revision == len(left)
    await store.close()
