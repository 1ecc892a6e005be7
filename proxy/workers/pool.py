"""The workers of a sidecar, seen from the process that leads them.

It has what must be one: the listening sockets, the configuration in force, the endpoints that lookups found, the sum of
the statistics. A configuration takes effect in two steps, so that it is refused whole if one worker refuses it. No
connection passes through here.

While a configuration is being prepared this process waits for its workers, as a single process waits for its own
compilation; :data:`PATIENCE` bounds that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.accept.listeners import SocketKey
from proxy.model.cluster import LoadAssignment
from proxy.model.config import Config, ConfigError
from proxy.model.connection import Address
from proxy.model.overload import OverloadManager
from proxy.observe import totals
from proxy.observe.store import StatStore
from proxy.observe.totals import Report
from proxy.plane import Counted
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from proxy.tls.handshakes import MAX_HANDSHAKES
from proxy.workers import messages
from proxy.workers.channel import Channel
from proxy.workers.sockets import SharedSockets
from proxy.workers.spawner import Spawner, SpawnerDiedError

log = logging.getLogger(__name__)

#: Seconds that a worker may take over a configuration; then it is ended and replaced.
PATIENCE = 30.0
#: Seconds between two reports: what a killed worker had counted since the last one is lost.
REPORT_INTERVAL = 5.0
#: Seconds that the admin pages wait for reports; then the last ones are shown.
REPORT_PATIENCE = 2.0
#: Seconds that workers get to end after draining.
STOP_PATIENCE = 5.0
#: The first replacement comes at once; then seconds before the next one, doubling up to the cap.
BACKOFF_BASE = 0.1
BACKOFF_CAP = 10.0
#: A worker that lived for so many seconds was not a failure from the start.
STABLE = 10.0


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What is the same for all configurations."""

    workers: int
    overload: OverloadManager | None
    listener_limits: Mapping[str, int]
    max_handshakes: int = MAX_HANDSHAKES
    """TLS handshakes under way at one time in each worker."""


class _Member:
    """One worker process. ``reported`` is the newest report."""

    __slots__ = (
        "census",
        "channel",
        "committed",
        "dead",
        "drained",
        "index",
        "pid",
        "prepared",
        "reported",
        "reports",
        "since",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.pid = 0
        self.channel: Channel
        self.prepared: messages.Prepared | None = None
        self.committed = 0
        self.reports = 0
        self.reported: Report | None = None
        self.census: messages.Census | None = None
        self.drained = False
        self.dead = False
        self.since = time.monotonic()


class WorkerPool:
    """The ``proxy.plane.DataPlane`` of several processes. It follows ``hub``, which must have compiled nothing yet.

    ``on_failed(error)`` is called when workers can no longer be replaced. Every method runs in the loop that is current
    when it is made.
    """

    def __init__(
        self,
        spawner: Spawner,
        hub: Hub,
        options: PoolOptions,
        on_failed: Callable[[SpawnerDiedError], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._spawner = spawner
        self._options = options
        self._hub = hub
        self._server = hub.current.stats.server
        self._on_failed = on_failed
        self._sockets = SharedSockets(options.workers)
        self._members: dict[int, _Member] = {}
        self._failures = [0] * options.workers
        self._retired = Report(StatStore())
        self._config = Config()
        self._staged: Config | None = None
        self._identity: messages.NewIdentity | None = None
        self._endpoints: dict[str, LoadAssignment] = {}
        self._health: dict[str, dict[Address, int]] = {}
        self._number = 0
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._respawns: set[asyncio.TimerHandle] = set()
        self._runtime: Runtime | None = None
        self._started = False
        self._ending = False
        self._watching = False
        self._server.concurrency = options.workers
        # A worker is the last that is asked: what it has prepared, nobody else refuses any more.
        hub.join(self._prepare)
        hub.subscribe(self._swapped)

    # Life.

    async def start(self) -> None:
        """Bind, fork, and return when all workers serve. Raises ``OSError`` naming the listener that cannot be bound,
        ``SpawnerDiedError``."""
        if self._runtime is not None:
            self._sockets.reconcile(self._runtime)
        self._sockets.raise_first_error()
        self._started = True
        self._loop.add_reader(self._spawner.sock, self._spawner_spoke)
        self._watching = True
        for index in range(self._options.workers):
            self._spawn(index)
        await self._until(lambda: all(m.committed for m in self._members.values()))
        self._timer = self._loop.call_later(REPORT_INTERVAL, self._report_in_time)

    @property
    def serving(self) -> bool:
        """Whether at least one worker serves."""
        return any(member.committed and not member.dead for member in self._members.values())

    def pids(self) -> list[int]:
        """The workers' process ids, without one whose process is only being made."""
        return [member.pid for member in self._alive() if member.pid]

    async def drain(self, timeout: float) -> None:
        """As :meth:`proxy.accept.worker.Worker.drain`, in all workers."""
        self._ending = True
        self._sockets.close()
        for member in self._alive():
            member.drained = False
            member.channel.send(messages.Drain(timeout))
        await self._until(lambda: all(m.drained for m in self._alive()), timeout + STOP_PATIENCE)

    async def stop(self) -> None:
        """End all workers, and the process that made them."""
        self._ending = True
        self._sockets.close()
        if self._timer is not None:
            self._timer.cancel()
        for handle in self._respawns:
            handle.cancel()
        for member in self._alive():
            member.channel.send(messages.Stop())
        await self._until(lambda: not self._alive(), STOP_PATIENCE)
        self._unwatch_spawner()
        for member in self._alive():
            self._close(member)
        self._spawner.close()

    # What they are told.

    def _prepare(self, config: Config) -> Callable[[], None]:
        """Have every worker compile ``config`` (``Hub.join``). Raises ``ConfigError`` if one of them cannot use it.

        It takes effect with the :meth:`_swapped` that follows the call of what is returned.
        """
        number = self._next()
        wanted = messages.Prepare(number, messages.changes(self._config, config))
        asked = self._alive()
        for member in asked:
            member.prepared = None
            member.channel.send(wanted)
        self._wait(asked, lambda m: m.prepared is not None and m.prepared.number == number)
        for member in asked:
            answer = member.prepared
            if not member.dead and answer is not None and answer.error is not None:
                raise ConfigError(answer.path, answer.error)

        def commit() -> None:
            self._staged = config

        return commit

    def _swapped(self, old: Runtime, new: Runtime) -> None:
        """Have the workers put into force what they prepared, with the sockets that it needs (``Hub.subscribe``)."""
        assert self._staged is not None
        self._config, self._staged = self._staged, None
        self._endpoints = {n: a for n, a in self._endpoints.items() if n in new.clusters}
        self._health = {n: f for n, f in self._health.items() if n in new.clusters}
        self._runtime = new
        if self._ending or not self._started:
            return
        opened = self._sockets.reconcile(new)
        number = self._next()
        asked = self._alive()
        for member in asked:
            self._send_sockets(member, opened)
            member.channel.send(messages.Commit(number))
        self._wait(asked, lambda m: m.committed >= number)

    def new_identity(self, key_and_chain: bytes, bundle: str) -> None:
        """Give the workload's identity to all workers, now and later."""
        self._identity = messages.NewIdentity(key_and_chain, bundle)
        self._tell(self._identity)

    def endpoints(self, cluster: str, assignment: LoadAssignment) -> None:
        """Give what a lookup found to all workers, now and later."""
        self._endpoints[cluster] = assignment
        self._tell(messages.Endpoints(cluster, assignment))

    def health(self, cluster: str, found: Mapping[Address, int]) -> None:
        """Give what health checks found to all workers, now and later."""
        live = self._hub.current.clusters.get(cluster)
        hosts = {host.address for host in live.hosts} if live is not None else set()
        known = self._health.get(cluster, {}) | dict(found)
        self._health[cluster] = {address: flags for address, flags in known.items() if address in hosts}
        self._tell(messages.Health(cluster, found))

    def has_traffic(self, cluster: str) -> bool:
        """Whether a worker has connected to the cluster, as of the last report."""
        for report in (self._retired, *(m.reported for m in self._members.values())):
            stats = None if report is None else report.clusters.get(cluster)
            if stats is not None and stats.upstream_cx_total:
                return True
        return False

    def reopen_logs(self) -> None:
        self._tell(messages.ReopenLogs())

    def log_level(self, level: str) -> None:
        self._tell(messages.LogLevel(level))

    # What they say.

    async def counted(self) -> Counted:
        """The sum over all workers that are or were."""
        number = self._ask_reports()
        await self._until(lambda: all(m.reports >= number for m in self._alive()), REPORT_PATIENCE)
        current = self._hub.current
        total = Report(StatStore())
        totals.add(total, Report(current.stats))
        totals.add(total, self._retired, alive=False)
        for member in self._members.values():
            if member.reported is not None:
                totals.add(total, member.reported)
        clusters = list(totals.counted(total, current.clusters.values()))
        return Counted(total.store, clusters, total.hosts)

    async def census(self) -> Mapping[str, Any]:
        """What each worker holds, by its process id, and their memory together (what they share counts for each)."""
        number = self._next()
        self._tell(messages.AskCensus(number))

        def answered(member: _Member) -> bool:
            return member.census is not None and member.census.number >= number

        await self._until(lambda: all(answered(m) for m in self._alive()), REPORT_PATIENCE)
        found = {m.pid: m.census.content for m in self._alive() if m.census is not None}
        memory = sum(content.get("memory_physical_size", 0) for content in found.values())
        return {"memory_physical_size": memory, "workers": found}

    # Inside.

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _alive(self) -> list[_Member]:
        return [member for member in self._members.values() if not member.dead]

    def _tell(self, message: object) -> None:
        for member in self._alive():
            member.channel.send(message)

    def _spawn(self, index: int) -> None:
        member = _Member(index)
        sock = self._spawner.spawn(index)
        member.channel = Channel(
            sock,
            lambda message: self._received(member, message),
            lambda: self._lost(member),
            lambda wanted: self._watch_writable(member, wanted),
        )
        self._members[index] = member
        self._loop.add_reader(sock, member.channel.read)
        send = member.channel.send
        options = self._options
        send(
            messages.Begin(options.workers, options.overload, options.listener_limits, options.max_handshakes)
        )
        if self._identity is not None:
            send(self._identity)
        number = self._next()
        send(messages.Prepare(number, messages.changes(Config(), self._config)))
        self._send_sockets(member, self._sockets.keys())
        send(messages.Commit(number))
        for cluster, assignment in self._endpoints.items():
            send(messages.Endpoints(cluster, assignment))
        for cluster, found in self._health.items():
            send(messages.Health(cluster, found))

    def _send_sockets(self, member: _Member, keys: Iterable[SocketKey]) -> None:
        for key in keys:
            descriptor = self._sockets.descriptor(key, member.index)
            member.channel.send(messages.Socket(key), (descriptor,))

    def _received(self, member: _Member, message: object) -> None:
        match message:
            case messages.Prepared():
                member.prepared = message
                if message.error is not None:
                    log.error("worker %d: %s: %s", member.index, message.path, message.error)
            case messages.Committed(number):
                member.committed = number
            case messages.Reported(number, report):
                member.reports, member.reported = number, report
            case messages.Census():
                member.census = message
            case messages.Drained():
                member.drained = True
            case _:
                raise TypeError(f"{type(message).__name__} is not for the leader")
        self._changed.set()

    def _lost(self, member: _Member) -> None:
        """Its end of the channel is closed: it is dead, or of no more use."""
        member.dead = True
        self._close(member)
        if member.pid:
            self._spawner.kill(member.pid)
        self._changed.set()

    def _close(self, member: _Member) -> None:
        self._loop.remove_reader(member.channel.sock)
        self._loop.remove_writer(member.channel.sock)
        member.channel.close()

    def _spawner_spoke(self) -> None:
        try:
            events = self._spawner.events()
        except SpawnerDiedError as error:
            self._unwatch_spawner()
            if not self._ending:
                log.critical("%s; the sidecar ends", error)
                self._on_failed(error)
            return
        for kind, index, pid, status in events:
            member = self._members[index]
            if kind == "spawned":
                member.pid = pid
                if member.dead:
                    self._spawner.kill(pid)
            else:
                self._exited(member, status)

    def _exited(self, member: _Member, status: int) -> None:
        # What it had sent before it died is still to be read.
        if not member.dead:
            member.channel.read()
        if not member.dead:
            self._lost(member)
        if member.reported is not None:
            totals.add(self._retired, member.reported, alive=False)
            member.reported = None
        if self._ending:
            return
        index = member.index
        self._server.worker_restarts += 1
        if time.monotonic() - member.since >= STABLE:
            self._failures[index] = 0
        failures = self._failures[index]
        self._failures[index] += 1
        delay = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(failures - 1, 10)) if failures else 0.0
        log.error(
            "worker %d (process %d) %s; replaced in %.1f s", index, member.pid, _describe(status), delay
        )
        handle: asyncio.TimerHandle

        def replace() -> None:
            self._respawns.discard(handle)
            if not self._ending:
                self._replace(index)

        handle = self._loop.call_later(delay, replace)
        self._respawns.add(handle)

    def _replace(self, index: int) -> None:
        try:
            self._spawn(index)
        except SpawnerDiedError as error:
            self._unwatch_spawner()
            self._on_failed(error)

    def _unwatch_spawner(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._spawner.sock)

    def _watch_writable(self, member: _Member, wanted: bool) -> None:
        if member.channel.ended:
            return
        if wanted:
            self._loop.add_writer(member.channel.sock, member.channel.flush)
        else:
            self._loop.remove_writer(member.channel.sock)

    def _ask_reports(self) -> int:
        number = self._next()
        self._tell(messages.AskReport(number))
        return number

    def _report_in_time(self) -> None:
        self._timer = self._loop.call_later(REPORT_INTERVAL, self._report_in_time)
        self._ask_reports()

    def _wait(self, asked: list[_Member], done: Callable[[_Member], bool]) -> None:
        """Read and write until all of ``asked`` are done or dead; who takes too long is ended."""
        deadline = time.monotonic() + PATIENCE
        while missing := [m for m in asked if not m.dead and not done(m)]:
            left = deadline - time.monotonic()
            if left <= 0:
                for member in missing:
                    log.error("worker %d did not answer within %.0f s", member.index, PATIENCE)
                    self._lost(member)
                return
            poll = select.poll()
            channels = {m.channel.fileno(): m.channel for m in missing}
            for descriptor, channel in channels.items():
                poll.register(descriptor, select.POLLIN | (select.POLLOUT if channel.pending else 0))
            for descriptor, event in poll.poll(left * 1000):
                if event & select.POLLOUT:
                    channels[descriptor].flush()
                if event & ~select.POLLOUT:
                    channels[descriptor].read()

    async def _until(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.WEXITSTATUS(status)}"
