"""Many connections at a time on one worker, as many as an ordinary user's descriptors allow.

Ten thousand: ``python -m bench.connections``.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from bench.connections import room, run

MOST = 2000


@pytest.fixture
def connections() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield min(MOST, room())
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_all_are_held_and_served(connections: int) -> None:
    report = await run(connections, rounds=2, at_once=100)
    assert (report["failed"], report["requests"]) == (0, 2 * connections)
    assert report["connections"] == connections
    # Each is idle between its requests: neither its buffers nor an upstream connection are kept for it.
    assert report["kb_per_connection"] < 32  # type: ignore[operator]
    assert report["descriptors"] < connections + 300  # type: ignore[operator]
