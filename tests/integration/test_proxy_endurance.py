"""After a mixed load (small, bulk, slow, aborted, malformed) two real sidecars hold what they held before.

The same for ten minutes: ``python -m bench.soak``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from bench.endurance.app import App
from bench.endurance.clients import KINDS
from bench.endurance.sidecars import Sidecars
from bench.soak import leaks, mixed


@pytest_asyncio.fixture
async def sidecars(tmp_path: Path) -> AsyncIterator[Sidecars]:
    app = App()
    await app.start()
    made = Sidecars(tmp_path, app.port)
    yield made
    made.stop()
    app.stop()


async def test_a_mixed_load_leaves_nothing_behind(sidecars: Sidecars) -> None:
    report = await mixed(sidecars, 8.0, each=2, warm_up=4.0)
    assert report["wrong"] == {}
    assert leaks(report) == []
    # All of it was really done, and counted where it bites.
    done: dict[str, int] = report["done"]  # type: ignore[assignment]
    assert set(done) == set(KINDS)
    stats = sidecars.outbound.stats()
    for name in (
        "http.outbound.downstream_cx_protocol_error",
        "http.outbound.downstream_rq_header_timeout",
        "http.outbound.downstream_rq_rx_reset",
        "http.outbound.downstream_cx_upgrades_total",
        "http.outbound.downstream_flow_control_paused_reading_total",
        "server.memory_physical_size",
    ):
        assert stats[name], name
    inside = sidecars.inbound.stats()
    # A body that never comes is given up by the one whose timeout ends first, and the other passes that on.
    assert (
        stats["http.outbound.downstream_rq_idle_timeout"] + inside["http.inbound.downstream_rq_idle_timeout"]
    )
    assert stats["server.exchanges"] == stats["http.outbound.downstream_rq_active"] == 0
    assert stats["cluster.server.upstream_cx_active"] == stats["cluster.server.upstream_rq_active"] == 0
    # What broke behind the inbound sidecar reached the outbound one as a response or as a cut connection.
    assert inside["cluster.app.upstream_cx_protocol_error"]
