"""Overload actions on a running worker, and what happens when descriptors run out."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.accept.worker import WorkerOptions
from proxy.model.overload import (
    Action,
    ActionName,
    FixedHeap,
    InjectedResource,
    Monitor,
    OverloadManager,
    TimerScale,
    Trigger,
)
from tests.fakes.sidecar import (
    Sidecar,
    ask,
    backend,
    chain,
    cluster,
    dial,
    direct,
    eventually,
    forward,
    http,
    listener,
    sidecar,
)

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc"


class Pressure:
    """A resource whose pressure the test says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0.0)

    def set(self, value: float) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(str(value))
        new.rename(self._path)

    def options(self, name: ActionName, low: float = 0.9, **action: Any) -> WorkerOptions:
        monitor = Monitor("m", InjectedResource(str(self._path)))
        made = Action(name, (Trigger("m", low, 0.9),), **action)
        return WorkerOptions(overload=OverloadManager((monitor,), (made,), refresh_interval=0.02))


@pytest.fixture
def pressure(tmp_path: Path) -> Pressure:
    return Pressure(tmp_path / "pressure")


def percent(it: Sidecar, name: str) -> int:
    scale: int = it.hub.current.stats.overload.actions[f"envoy.overload_actions.{name}"].scale_percent  # type: ignore[index]
    return scale


async def test_requests_are_refused_and_connections_stay(pressure: Pressure) -> None:
    options = pressure.options("envoy.overload_actions.stop_accepting_requests")
    async with sidecar(listener(chain(http(direct("/", 200, b"ok")))), options=options) as it:
        peer = await dial(it.port)
        peer.send(GET)
        assert (await peer.response())[0] == 200
        pressure.set(0.95)
        await eventually(lambda: percent(it, "stop_accepting_requests") == 100)
        peer.send(GET)
        status, headers, body = await peer.response()
        assert (status, body, headers.get("connection")) == (503, b"envoy overloaded", None)
        assert it.http_stats().downstream_rq_overload_close == 1
        pressure.set(0.1)
        await eventually(lambda: percent(it, "stop_accepting_requests") == 0)
        peer.send(GET)
        assert (await peer.response())[0] == 200
        pressure.set(0.95)
        await eventually(lambda: percent(it, "stop_accepting_requests") == 100)
        # An unfinished request: the rest would be read as the next one.
        peer.send(POST)
        assert (await peer.response())[1]["connection"] == "close"


async def test_keepalive_is_given_up(pressure: Pressure) -> None:
    options = pressure.options("envoy.overload_actions.disable_http_keepalive")
    async with sidecar(listener(chain(http(direct("/", 200, b"ok")))), options=options) as it:
        pressure.set(0.95)
        await eventually(lambda: percent(it, "disable_http_keepalive") == 100)
        answer = await ask(it.port, GET)
        assert b"HTTP/1.1 200 " in answer and b"\r\nconnection: close\r\n" in answer
        assert it.http_stats().downstream_cx_overload_disable_keepalive == 1


async def test_connections_are_rejected_in_proportion(pressure: Pressure) -> None:
    options = pressure.options("envoy.overload_actions.reject_incoming_connections", low=0.1)
    async with sidecar(listener(chain(http(direct("/", 200, b"ok")))), options=options) as it:
        pressure.set(0.5)
        await eventually(lambda: percent(it, "reject_incoming_connections") == 50)
        closing = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        answers = [await ask(it.port, closing) for _ in range(100)]
        served = sum(b"200 OK" in answer for answer in answers)
        assert 20 < served < 80
        assert it.listener_stats().downstream_cx_overload_reject == 100 - served


async def test_whoever_connects_while_accepting_is_stopped_is_served_afterwards(pressure: Pressure) -> None:
    options = pressure.options("envoy.overload_actions.stop_accepting_connections")
    async with sidecar(listener(chain(http(direct("/", 200, b"ok")))), options=options) as it:
        before = await dial(it.port)
        pressure.set(0.95)
        await eventually(lambda: percent(it, "stop_accepting_connections") == 100)
        # Connected by the kernel, accepted by nobody.
        waiting = await dial(it.port)
        waiting.send(GET)
        before.send(GET)
        assert (await before.response())[0] == 200
        assert it.worker.connections == 1
        pressure.set(0.5)
        assert (await waiting.response())[0] == 200
        # Again, since stopping and going on must be repeatable.
        pressure.set(0.95)
        await eventually(lambda: percent(it, "stop_accepting_connections") == 100)
        late = await dial(it.port)
        late.send(GET)
        pressure.set(0.0)
        assert (await late.response())[0] == 200


async def test_idle_connections_end_sooner(pressure: Pressure) -> None:
    options = pressure.options(
        "envoy.overload_actions.reduce_timeouts",
        timers=(TimerScale("HTTP_DOWNSTREAM_CONNECTION_IDLE", 0.05),),
    )
    async with sidecar(
        listener(chain(http(direct("/", 200, b"ok"), idle_timeout=3600.0))), options=options
    ) as it:
        peer = await dial(it.port)
        peer.send(GET)
        assert (await peer.response())[0] == 200
        pressure.set(0.95)
        assert await peer.rest() == b""
        assert it.http_stats().downstream_cx_idle_timeout == 1


async def test_memory_is_given_back_once_in_a_while() -> None:
    """Any process has more than a byte resident."""
    overload = OverloadManager(
        (Monitor("heap", FixedHeap(1)),),
        (Action("envoy.overload_actions.shrink_heap", (Trigger("heap", 0.9, 0.9),)),),
        refresh_interval=0.01,
    )
    async with sidecar(
        listener(chain(http(direct("/", 200)))), options=WorkerOptions(overload=overload)
    ) as it:
        stats = it.hub.current.stats.overload
        await eventually(lambda: stats.actions["envoy.overload_actions.shrink_heap"].shrink_count == 1)
        await eventually(lambda: stats.monitors["heap"].pressure > 100)
        assert stats.actions["envoy.overload_actions.shrink_heap"].active == 1


async def test_a_monitor_that_fails_keeps_its_last_value(pressure: Pressure, tmp_path: Path) -> None:
    options = pressure.options("envoy.overload_actions.stop_accepting_requests")
    async with sidecar(listener(chain(http(direct("/", 200)))), options=options) as it:
        pressure.set(0.95)
        await eventually(lambda: percent(it, "stop_accepting_requests") == 100)
        (tmp_path / "pressure").write_text("a lot")
        monitor = it.hub.current.stats.overload.monitors["m"]
        await eventually(lambda: monitor.failed_updates > 2)
        assert (monitor.pressure, percent(it, "stop_accepting_requests")) == (95, 100)


async def test_a_listener_has_a_limit_of_its_own() -> None:
    options = WorkerOptions(listener_limits={"l": 2})
    async with sidecar(
        listener(chain(http(direct("/", 200, b"ok")))),
        listener(chain(http(direct("/", 200, b"ok"))), name="other", stat_prefix="other"),
        options=options,
    ) as it:
        held = [await dial(it.port) for _ in range(2)]
        assert await ask(it.port, GET) == b""
        assert it.listener_stats().downstream_cx_overflow == 1
        free = await dial(it.extra["other"])
        free.send(GET)
        assert (await free.response())[0] == 200
        held.pop().close()
        await eventually(lambda: it.worker.connections == 2)
        again = await dial(it.port)
        again.send(GET)
        assert (await again.response())[0] == 200


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """So few that they are soon used up; those that are open now stay usable."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(name) for name in [path.name for path in Path("/proc/self/fd").iterdir()]) + 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_the_last_descriptors_are_not_for_new_connections(few_descriptors: int) -> None:
    """Connections take what there is; those that are in reach their backend all the same, and nothing breaks."""
    options = WorkerOptions(max_connections=1000, overload=OverloadManager())
    async with (
        backend() as up,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", up.port), options=options) as it,
    ):
        first = await dial(it.port)
        held = []
        try:
            while not it.listener_stats().downstream_cx_overload_reject:
                held.append(await dial(it.port))
                await asyncio.sleep(0)
        except OSError:
            pass
        await eventually(lambda: it.listener_stats().downstream_cx_overload_reject > 0)
        for peer in held[-8:]:
            peer.close()
        first.send(GET)
        assert (await first.response())[0] == 200
        for peer in held:
            peer.close()
        await eventually(lambda: it.worker.connections == 1)
        last = await dial(it.port)
        last.send(GET)
        assert (await last.response())[0] == 200


async def test_without_a_descriptor_for_the_upstream_there_is_an_answer(few_descriptors: int) -> None:
    # No actions: those that answer to few descriptors would end the connection after one response.
    options = WorkerOptions(overload=OverloadManager())
    async with (
        backend() as up,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", up.port), options=options) as it,
    ):
        peer = await dial(it.port)
        await eventually(lambda: it.worker.connections == 1)
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            peer.send(GET)
            status, _, body = await peer.response()
        finally:
            for descriptor in taken:
                os.close(descriptor)
        assert status == 503
        assert body.endswith(b"local connection failure")
        stats = it.cluster_stats("up")
        assert (stats.upstream_cx_connect_fail, stats.upstream_cx_active, stats.upstream_rq_active) == (
            1,
            0,
            0,
        )
        peer.send(GET)
        assert (await peer.response())[0] == 200
