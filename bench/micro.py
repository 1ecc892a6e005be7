"""``python -m bench.micro``: µs of CPU for one exchange through the sidecar's code, without kernel, loop or peers.

The configuration is the one of ``bench.http1`` (mutual TLS, JSON log to a file, statistics, RBAC, retries, request
id). Heads and responses come from fake transports (``bench.played``); the peers' own TLS is done outside the measured
time. The least of many short batches is quoted: on a busy machine it is what was not disturbed, so two versions of the
code can be compared there. ``calls`` is the number of Python and C function calls of one exchange: the same in every
run.

``--compare TREE`` runs another checkout's ``proxy`` and this one's in turn; ``--list`` names the functions called.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from bench import messages

BATCH = 64
"""Exchanges between two looks at the clock: about 2 ms, less than a scheduler's time slice."""
CASES = ("outbound", "inbound", "plain")
"""Plain in and TLS out; TLS in with RBAC and plain out; no TLS at all."""
HOST = "server.default:8080"


@dataclass(frozen=True, slots=True)
class Cost:
    """One case's figures: µs per exchange and calls per exchange."""

    least: float
    median: float
    calls: int


class Stage:
    """A sidecar's worker on a played loop, one client connection and one upstream connection, both warm."""

    def __init__(self, case: str, directory: Path) -> None:
        from bench import configs, pki, played
        from proxy import bootstrap
        from proxy.accept.worker import Worker
        from proxy.observe.log_file import LogFiles
        from proxy.runtime.compile import CompileEnv
        from proxy.runtime.hub import Hub
        from proxy.tls.store import SecretStore

        pki.write(directory)
        log = directory / f"{case}.log"
        make = {"outbound": configs.outbound, "inbound": configs.inbound, "plain": configs.plain}[case]
        config = bootstrap.parse(make(directory, log, 0, 1, 0)).config
        self.log_files = LogFiles()
        hub = Hub(CompileEnv(log_files=self.log_files))
        hub.apply(config)
        self.loop = loop = played.PlayedLoop()
        self.worker = Worker(hub, SecretStore(), self.log_files)
        loop.run_until_complete(self.worker.start())
        client = loop.accept()
        self.client = (
            played.TlsPeer(client, directory, "client", server_side=False)
            if case == "inbound"
            else played.Peer(client)
        )
        self.client.shake_hands(self._turn)
        client.feed(self.client.seal(messages.request(HOST)))
        self._turns(lambda: bool(loop.connected))
        server = loop.connected[0]
        self.server = (
            played.TlsPeer(server, directory, "server", server_side=True)
            if case == "outbound"
            else played.Peer(server)
        )
        self.server.shake_hands(self._turn)
        self._turns(lambda: self.server.hears(b"GET /api"))
        server.feed(self.server.seal(messages.response()))
        self._turns(lambda: self.client.hears(b"HTTP/1.1 200 "))

    def _turns(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not until():
            if time.monotonic() > end:
                raise RuntimeError("the sidecar did not go on")
            self._turn()

    def _turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.001))

    def _check(self, count: int) -> None:
        """What both peers heard is ``count`` requests and good responses, in one write each."""
        heard = [self.server.open(data) for data in self.server.transport.take()]
        if len(heard) != count or any(not part.startswith(b"GET /api") for part in heard):
            raise RuntimeError(f"the server heard {heard!r}")
        heard = [self.client.open(data) for data in self.client.transport.take()]
        if len(heard) != count or any(not part.startswith(b"HTTP/1.1 200 ") for part in heard):
            raise RuntimeError(f"the client heard {heard!r}")

    def batch(self, around: Callable[[Callable[[], None]], Any]) -> Any:
        """What ``around`` makes of a function that plays ``BATCH`` exchanges and writes their log lines."""
        request, response = messages.request(HOST), messages.response()
        script = [(self.client.seal(request), self.server.seal(response)) for _ in range(BATCH)]
        from_client, from_server = self.client.transport.feed, self.server.transport.feed

        def play() -> None:
            for asked, answered in script:
                from_client(asked)
                from_server(answered)
            self.log_files.flush()

        result = around(play)
        if self.client.transport.paused or self.server.transport.paused:
            raise RuntimeError("the sidecar stopped reading: the measurement is not meant to reach a limit")
        self._check(BATCH)
        self.loop.run_until_complete(asyncio.sleep(0))  # the sweeper's turn
        return result

    def close(self) -> None:
        """End the worker."""
        self.loop.run_until_complete(self.worker.stop())
        self.loop.close()


def timed(play: Callable[[], None]) -> float:
    """µs of this thread's CPU per exchange."""
    before = time.thread_time_ns()
    play()
    return (time.thread_time_ns() - before) / BATCH / 1000


def called(play: Callable[[], None]) -> collections.Counter[str]:
    """How often each function was called, per batch."""
    counts: collections.Counter[str] = collections.Counter()

    def profile(frame: FrameType, event: str, function: Any) -> None:
        if event == "call":
            code = frame.f_code
            counts[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1
        elif event == "c_call":
            counts[f"<{getattr(function, '__qualname__', function)}>"] += 1

    sys.setprofile(profile)
    try:
        play()
    finally:
        sys.setprofile(None)
    return counts


@contextmanager
def stage(case: str) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="tulle-micro-") as name:
        made = Stage(case, Path(name))
        try:
            yield made
        finally:
            made.close()


def measure(case: str, batches: int) -> Cost:
    """Play ``batches`` batches of a case."""
    with stage(case) as made:
        for _ in range(10):
            made.batch(timed)
        calls = made.batch(called).total() // BATCH
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            times = [made.batch(timed) for _ in range(batches)]
        finally:
            gc.enable()
    return Cost(min(times), statistics.median(times), calls)


def compare(tree: Path, cases: list[str], batches: int, rounds: int) -> None:
    """Print this checkout's costs beside those of ``tree``, from processes that run in turn."""
    trees = {"theirs": tree, "ours": Path.cwd()}
    least: dict[str, dict[str, Cost]] = {name: {} for name in trees}
    for _ in range(rounds):
        for name, path in trees.items():
            argv = [sys.executable, "-m", "bench.micro", "--json", "--tree", str(path)]
            argv += ["--cases", ",".join(cases), "--batches", str(batches)]
            found = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
            for case, cost in found.items():
                best = least[name].get(case)
                if best is None or cost["least"] < best.least:
                    least[name][case] = Cost(**cost)
    print(f"{'':10}{'theirs, µs':>12}{'ours, µs':>12}{'ratio':>8}{'calls':>12}")
    for case in cases:
        theirs, ours = least["theirs"][case], least["ours"][case]
        print(
            f"{case:10}{theirs.least:12.2f}{ours.least:12.2f}{ours.least / theirs.least:8.3f}"
            f"{theirs.calls:6}→{ours.calls}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.micro", description="CPU of one exchange, without a network")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--tree", type=Path, help="measure the proxy package of this checkout")
    parser.add_argument(
        "--compare", type=Path, metavar="TREE", help="another checkout, and this one, in turn"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of --compare")
    parser.add_argument("--list", action="store_true", help="name the functions that one exchange calls")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cases = options.cases.split(",")
    if options.compare is not None:
        compare(options.compare.resolve(), cases, options.batches, options.rounds)
        return 0
    if options.tree is not None:
        sys.path.insert(0, str(options.tree.resolve()))
    if options.list:
        for case in cases:
            with stage(case) as made:
                made.batch(timed)
                print(case)
                for name, count in made.batch(called).most_common():
                    if count >= BATCH:
                        print(f"{count / BATCH:8.1f}  {name}")
        return 0
    costs = {case: measure(case, options.batches) for case in cases}
    if options.json:
        print(json.dumps({case: asdict(cost) for case, cost in costs.items()}))
        return 0
    print(f"{'':10}{'least, µs':>12}{'median, µs':>12}{'calls':>8}")
    for case, cost in costs.items():
        print(f"{case:10}{cost.least:12.2f}{cost.median:12.2f}{cost.calls:8}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
