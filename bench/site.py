"""Where a run takes place: directory, CPUs, the kinds that are there, and the processes that are started.

Proxies and load never share a CPU, so that the load's own cost does not disturb what is measured: on two CPUs the
proxies have one and everything else the other; on four or more each part has its own. On one there is no choice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench import configs
from bench.kinds import Duty, Role, envoy, kind
from bench.processes import Process, free_ports

T = TypeVar("T")
Rounds = dict[str, list[float]]
"""Kind -> one value a round."""


@dataclass(frozen=True, slots=True)
class Placement:
    """CPUs of the outbound and the inbound proxy, of the application behind them, and of the load."""

    outbound: frozenset[int]
    inbound: frozenset[int]
    backend: frozenset[int]
    load: frozenset[int]

    @classmethod
    def of(cls, cpus: Sequence[int]) -> Placement:
        """A placement on the CPUs that there are."""
        if len(cpus) == 1:
            parts = [cpus] * 4
        elif len(cpus) < 4:
            parts = [cpus[:1], cpus[:1], cpus[1:], cpus[1:]]
        else:
            parts = [cpus[:1], cpus[1:2], cpus[2:3], cpus[3:]]
        return cls(*(frozenset(part) for part in parts))


class Site:
    """A run. ``quick``: few and short rounds, to see that everything works."""

    def __init__(
        self, directory: Path, kinds: Sequence[str], *, quick: bool, rounds: int, pinned: bool = True
    ) -> None:
        self.directory = directory
        self.kinds = tuple(kinds)
        self.quick = quick
        self.rounds = rounds
        # For what takes long and varies little.
        self.few = 1 if quick else min(rounds, 3)
        cpus = sorted(os.sched_getaffinity(0))
        self.placement = Placement.of(cpus) if pinned else Placement(*(frozenset(cpus),) * 4)
        self.stack = ExitStack()
        self._outputs: list[Path] = []
        self._said: set[str] = set()

    def able(self, role: Role) -> list[str]:
        """The kinds that can do ``role`` here; for the others it is said, once, what is missing."""
        able = []
        for name in self.kinds:
            lacking = kind(name).missing(role)
            if lacking is None:
                able.append(name)
            elif lacking not in self._said:
                self._said.add(lacking)
                print(f"without {name}: {lacking}", file=sys.stderr, flush=True)
        return able

    def seconds(self, full: float, quick: float) -> float:
        """The length of something in this run."""
        return quick if self.quick else full

    @contextmanager
    def scope(self) -> Any:
        """Everything that is started inside ends with it; after a failure it is shown what it had to say."""
        outer = self.stack, self._outputs
        self._outputs = []
        with ExitStack() as self.stack:
            try:
                yield
            except Exception:
                for output in self._outputs:
                    if said := output.read_text(errors="replace")[-2000:]:
                        print(f"{output.name}:\n{said}", file=sys.stderr)
                raise
            finally:
                self.stack.close()
                self.stack, self._outputs = outer

    def proxy(self, name: str, role: Role, upstream: int, **options: Any) -> tuple[Process, int]:
        """Start a proxy; the process and its port, which is not waited for."""
        port, admin = free_ports(2)
        log = self.directory / f"{name}-{port}.access.log"
        module = kind(name)
        duty = Duty(role, port, upstream, admin, log, **options)
        cpus = self.placement.inbound if role == "inbound" else self.placement.outbound
        argv = module.command(duty, self.directory)
        output = self.directory / f"{name}-{port}.out"
        process = self._start(argv, cpus, output, log if module.LOGS_TO_STDOUT else None)
        self.stack.callback(lambda: log.unlink(missing_ok=True))
        return process, port

    def backend(self, body: int) -> int:
        """Start an Envoy that answers everything by itself with a body of that size; its port."""
        port, admin = free_ports(2)
        path = self.directory / f"backend-{port}.json"
        path.write_text(configs.as_json(configs.backend(port, admin, body)))
        argv = [str(envoy.PROGRAM), *envoy.arguments(), "-c", str(path)]
        process = self._start(argv, self.placement.backend, self.directory / f"backend-{port}.out")
        process.wait_listening(port)
        return port

    def helper(self, module: str, *arguments: str) -> tuple[int, Path]:
        """Start ``python -m bench.load.<module> PORT ...``, a server of ours; its port and where it prints."""
        (port,) = free_ports(1)
        argv = [sys.executable, "-m", f"bench.load.{module}", str(port), *arguments]
        output = self.directory / f"{module}-{port}.out"
        process = self._start(argv, self.placement.backend, output)
        process.wait_listening(port)
        return port, output

    def _start(self, argv: list[str], cpus: frozenset[int], output: Path, log: Path | None = None) -> Process:
        process = Process(argv, cpus, output, log)
        self._outputs.append(output)
        self.stack.callback(process.stop)
        return process


class Pair:
    """An outbound and an inbound proxy of one kind, between a client and ``backend``; ``port`` is the client's."""

    def __init__(self, site: Site, name: str, backend: int, **options: Any) -> None:
        self.kind = name
        self.inbound, self.inbound_port = site.proxy(name, "inbound", backend, **options)
        self.inbound.wait_listening(self.inbound_port)
        self.outbound, self.port = site.proxy(name, "outbound", self.inbound_port, **options)
        self.outbound.wait_listening(self.port)

    def cpu(self) -> tuple[float, float]:
        """Seconds so far, outbound and inbound."""
        return self.outbound.cpu(), self.inbound.cpu()


def interleave(
    rounds: int, subjects: dict[str, T], measure: Callable[[T], dict[str, float]]
) -> dict[str, Rounds]:
    """Measure each subject once a round, in turn: metric -> kind -> values.

    What disturbs the machine for a while then disturbs all kinds alike.
    """
    found: dict[str, Rounds] = {}
    for number in range(rounds):
        order = list(subjects)
        # Nobody is always first, nor always behind the same other kind.
        turned = order[number % len(order) :] + order[: number % len(order)]
        for name in turned if number % 2 else reversed(turned):
            for metric, value in measure(subjects[name]).items():
                found.setdefault(metric, {}).setdefault(name, []).append(value)
    return found
