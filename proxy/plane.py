"""What serves, seen from the process that leads: this process itself, or workers (``proxy.workers``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from proxy.accept.worker import Worker
from proxy.model.cluster import LoadAssignment
from proxy.model.connection import Address
from proxy.observe.log_file import LogFiles
from proxy.observe.store import StatStore
from proxy.runtime.hub import Hub

if TYPE_CHECKING:
    from proxy.observe.metrics import CountedCluster
    from proxy.observe.totals import HostCounts


@dataclass(frozen=True, slots=True)
class Counted:
    """All statistics. ``hosts`` by cluster and label; those that are missing count for themselves."""

    stats: StatStore
    clusters: Iterable[CountedCluster]
    hosts: Mapping[str, Mapping[str, HostCounts]] = field(default_factory=dict)


class DataPlane(Protocol):
    """It follows the hub by itself. ``serving``: whether somebody serves now."""

    @property
    def serving(self) -> bool: ...
    async def start(self) -> None: ...
    async def drain(self, timeout: float) -> None: ...
    async def stop(self) -> None: ...
    def new_identity(self, key_and_chain: bytes, bundle: str) -> None: ...
    def endpoints(self, cluster: str, assignment: LoadAssignment) -> None: ...
    def health(self, cluster: str, found: Mapping[Address, int]) -> None: ...
    def has_traffic(self, cluster: str) -> bool: ...
    def reopen_logs(self) -> None: ...
    def log_level(self, level: str) -> None: ...
    def pids(self) -> list[int]: ...
    async def counted(self) -> Counted: ...
    async def census(self) -> Mapping[str, Any]: ...


class SingleProcess:
    """This process serves. Identity, endpoints, health and log level are its own already."""

    serving = True

    def __init__(self, hub: Hub, worker: Worker, log_files: LogFiles) -> None:
        self._hub = hub
        self._worker = worker
        self._log_files = log_files
        hub.current.stats.server.concurrency = 1

    async def start(self) -> None:
        await self._worker.start()

    async def drain(self, timeout: float) -> None:
        await self._worker.drain(timeout)

    async def stop(self) -> None:
        await self._worker.stop()

    def new_identity(self, key_and_chain: bytes, bundle: str) -> None:
        return

    def endpoints(self, cluster: str, assignment: LoadAssignment) -> None:
        return

    def health(self, cluster: str, found: Mapping[Address, int]) -> None:
        return

    def has_traffic(self, cluster: str) -> bool:
        """Whether the cluster was ever connected to for a request."""
        found = self._hub.current.clusters.get(cluster)
        return found is not None and found.stats.upstream_cx_total > 0

    def log_level(self, level: str) -> None:
        return

    def reopen_logs(self) -> None:
        self._log_files.reopen()

    def pids(self) -> list[int]:
        return [os.getpid()]

    async def counted(self) -> Counted:
        current = self._hub.current
        return Counted(current.stats, current.clusters.values())

    async def census(self) -> Mapping[str, Any]:
        return self._worker.census()
