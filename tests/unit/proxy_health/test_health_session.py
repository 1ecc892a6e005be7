"""The checks of one host, with a prober that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.cluster import flags
from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.health.outcome import PASSED, Outcome
from proxy.health.session import HostSession
from proxy.model.cluster import Cluster as Config
from proxy.model.health_check import TcpCheck
from proxy.model.stats import HealthCheckStats
from tests.fakes.checked import health_check
from tests.fakes.sidecar import eventually

Answer = Outcome | Exception | None


class Told:
    """A prober. ``answers`` one by one, ``None`` never comes; ``by_itself`` is what the host says in between."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.by_itself: list[Outcome] = []
        self.calls: list[str] = []
        self.rested: list[float] = []

    def ready(self) -> bool:
        return True

    async def ask(self) -> Outcome:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        assert isinstance(answer, Outcome)
        return answer

    def give_up(self) -> None:
        self.calls.append("give_up")

    async def rest(self, seconds: float) -> Outcome | None:
        self.rested.append(seconds)
        await asyncio.sleep(0)
        return self.by_itself.pop(0) if self.by_itself else None

    def close(self) -> None:
        self.calls.append("close")


@asynccontextmanager
async def session(
    prober: Told, traffic: Callable[[str], bool] = lambda name: True, **options: Any
) -> AsyncIterator[tuple[HostSession, HealthCheckStats, list[int]]]:
    check = health_check(TcpCheck(), **{"timeout": 60.0, **options})
    host, stats, told = Host(("10.0.0.1", 1)), HealthCheckStats(), []
    host.mark(flags.FAILED_ACTIVE_HC, True)
    made = HostSession(
        Cluster(Config("c", "STATIC"), lambda: 0.0),
        host,
        check,
        stats,
        prober,
        random=lambda: 0.0,
        traffic=traffic,
        tell=lambda it: told.append(it.flags),
    )
    made.start(asyncio.get_running_loop())
    yield made, stats, told
    task = made.stop()
    assert task is not None
    await asyncio.wait([task])
    assert task.cancelled()
    assert (stats.healthy, stats.degraded) == (0, 0)
    assert prober.calls[-1] == "close"


FAILED = Outcome("network", "x")


async def test_only_what_changes_something_is_told() -> None:
    prober = Told(PASSED, PASSED, FAILED, FAILED, FAILED, PASSED, PASSED)
    async with session(prober) as (_, stats, told):
        await eventually(lambda: stats.attempt == 8)
        assert told == [0, flags.FAILED_ACTIVE_HC, 0]
        assert (stats.success, stats.failure, stats.network_failure, stats.healthy) == (4, 3, 3, 1)


async def test_a_first_failure_is_told_although_nothing_changes() -> None:
    async with session(Told(Outcome("active", "x"))) as (made, stats, told):
        assert made.pending
        await eventually(lambda: stats.attempt == 2)
        assert told == [flags.FAILED_ACTIVE_HC] and not made.pending
        assert (stats.failure, stats.network_failure) == (1, 0)


async def test_silence_is_given_up() -> None:
    prober = Told(PASSED, None, None)
    async with session(prober, timeout=0.01, unhealthy_threshold=1) as (_, stats, told):
        await eventually(lambda: stats.failure == 2)
        assert told == [0, flags.FAILED_ACTIVE_HC | flags.ACTIVE_HC_TIMEOUT]
        assert prober.calls[:2] == ["give_up", "give_up"]


async def test_what_comes_by_itself_counts_and_the_wait_begins_anew() -> None:
    prober = Told(PASSED)
    prober.by_itself = [FAILED, FAILED, PASSED]
    async with session(prober, interval=0.25) as (_, stats, told):
        await eventually(lambda: stats.attempt == 2)
        assert told == [0, flags.FAILED_ACTIVE_HC]
        assert (stats.success, stats.failure) == (2, 2)
        assert prober.rested == [0.25] * 4


async def test_traffic_decides_how_often() -> None:
    busy = False
    prober = Told(PASSED, PASSED)

    def traffic(name: str) -> bool:
        nonlocal busy
        assert name == "c"
        busy, was = True, busy
        return was

    async with session(prober, traffic, interval=0.25, no_traffic_healthy_interval=0.5) as (_, stats, _told):
        await eventually(lambda: stats.attempt == 3)
        assert prober.rested == [0.5, 0.25]


async def test_excluded_until_it_passes() -> None:
    prober = Told(PASSED, Outcome("active", "503", excluded=True), PASSED, PASSED)
    async with session(prober) as (_, stats, told):
        await eventually(lambda: stats.attempt == 5)
        assert told == [0, flags.FAILED_ACTIVE_HC | flags.EXCLUDED_VIA_IMMEDIATE_HC_FAIL, 0]


async def test_a_fault_of_its_own_is_a_failure_and_is_not_the_last_check(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prober = Told(PASSED, RuntimeError("a bug"), RuntimeError("a bug"), PASSED, PASSED)
    async with session(prober) as (_, stats, told):
        await eventually(lambda: stats.attempt == 6)
        assert told == [0, flags.FAILED_ACTIVE_HC, 0]
    assert "a bug" in caplog.text
