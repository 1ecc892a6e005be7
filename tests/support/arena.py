"""Plays cases against both proxies, several at a time, and joins what was seen with what the proxies logged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.raw_exchange import WAIT, Backend, Case, Outcome, play
from tests.support.two_proxies import Options, Proxy, envoy, tulle

LANES = 4
"""Cases that are under way at the same time against each proxy."""
LAST = Case("last", b"GET /last HTTP/1.1\r\nhost: h\r\n\r\n")


@dataclass
class _Side:
    """One proxy and its backends, one for each lane."""

    proxy: Proxy
    backends: list[Backend]


class Arena:
    """Both proxies, running. Use it from the thread that made it."""

    def __init__(self, runner: asyncio.Runner, sides: list[_Side]) -> None:
        self._runner = runner
        self._sides = sides
        self._addresses = (
            f"127.{80 + n // 62500}.{1 + n // 250 % 250}.{1 + n % 250}" for n in range(1_000_000)
        )

    def play(self, cases: Iterable[Case]) -> dict[str, dict[str, Outcome]]:
        """The outcomes by case name and proxy name, ``envoy`` and ``tulle``."""
        played: dict[str, dict[str, Outcome]] = {}
        self._runner.run(self._all(list(cases), played))
        for side in self._sides:
            self._join_log(side, [played[name][side.proxy.name] for name in played])
        return played

    def counted(self, *names: str) -> dict[str, dict[str, int]]:
        """The values of these counters by proxy name."""
        return {side.proxy.name: side.proxy.counted(names) for side in self._sides}

    async def _all(self, cases: list[Case], played: dict[str, dict[str, Outcome]]) -> None:
        names = [case.name for case in cases]
        assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
        for case in cases:
            played[case.name] = {}
        # The same for both proxies, for it may be forwarded.
        addressed = [(case, next(self._addresses)) for case in cases]
        async with asyncio.TaskGroup() as group:
            for side in self._sides:
                # One iterator for all lanes: each takes the next case when it is free.
                shared = iter(addressed)
                for lane in range(LANES):
                    group.create_task(_lane(side, lane, shared, played))

    def _join_log(self, side: _Side, outcomes: list[Outcome]) -> None:
        """The log is written in order: when the line of one more request is there, the others are."""
        peer = next(self._addresses)
        self._runner.run(play(LAST, side.proxy.ports["plain-0"], side.backends[0], peer))
        self._runner.run(_settled(side.proxy, peer))
        by_peer: dict[str, list[tuple[object, ...]]] = {}
        for line in side.proxy.lines():
            shown = (line.get("code"), line.get("flags"), line.get("details"), line.get("protocol"))
            by_peer.setdefault(line["peer"], []).append(shown)
        for outcome in outcomes:
            lines = by_peer.get(outcome.peer, [])
            outcome.log = tuple(lines[:-1] if outcome.probed else lines)


async def _lane(
    side: _Side, lane: int, cases: Iterator[tuple[Case, str]], played: dict[str, dict[str, Outcome]]
) -> None:
    for case, address in cases:
        port = side.proxy.ports[f"{case.config}-{lane}"]
        played[case.name][side.proxy.name] = await play(case, port, side.backends[lane], address)


async def _settled(proxy: Proxy, peer: str) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT
    while asyncio.get_running_loop().time() < deadline:
        if any(line["peer"] == peer for line in proxy.lines()):
            return
        await asyncio.sleep(0.05)  # polls another process's file
    raise AssertionError(f"{proxy.name} logged nothing of a request that it answered")


@contextmanager
def arena(directory: Path, options: Mapping[str, Options]) -> Iterator[Arena]:
    """Start everything."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        sides = []
        for start in (envoy, tulle):
            backends = [Backend() for _ in range(LANES)]
            for backend in backends:
                runner.run(backend.start())
                stack.callback(lambda backend=backend: runner.run(backend.stop()))  # type: ignore[misc]
            proxy = stack.enter_context(start(directory, options, [b.port for b in backends]))
            sides.append(_Side(proxy, backends))
        yield Arena(runner, sides)
