"""The statistics of several workers as one: each sends a report, and reports are added up.

Counters and histograms are summed, gauges too, but for those that say the same in every worker. What a worker that died
had counted stays in the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from proxy.model.stats import ClusterStats, Histogram, Http2Stats, ServerStats
from proxy.observe.metrics import is_gauge
from proxy.observe.store import StatStore

#: What every worker sees alike: the largest is taken.
_ALIKE = frozenset(
    {
        *("membership_change", "membership_healthy", "membership_degraded", "membership_total"),
        "membership_excluded",
        *("update_attempt", "update_success", "update_failure", "update_empty", "update_no_rebuild"),
        *("max_host_weight", "uptime", "pressure", "scale_percent", "active"),
    }
)


class LiveHost(Protocol):
    """``proxy.cluster.host.Host``, as far as it is counted."""

    label: str
    cx_active: int
    active: int
    rq_error: int
    rq_success: int
    rq_total: int
    healthy: bool
    degraded: bool
    flags: int


class LiveCluster(Protocol):
    """``proxy.cluster.cluster.Cluster``, likewise."""

    @property
    def name(self) -> str: ...
    @property
    def stats(self) -> ClusterStats: ...
    @property
    def hosts(self) -> Iterable[LiveHost]: ...


@dataclass(slots=True, eq=False)
class HostCounts:
    """What one worker, or all together, count about a host; the names are those of ``proxy.cluster.host.Host``."""

    cx_active: int = 0
    active: int = 0
    rq_error: int = 0
    rq_success: int = 0
    rq_total: int = 0
    healthy: bool = True
    degraded: bool = False
    flags: int = 0


@dataclass(slots=True, eq=False)
class Report:
    """What one worker has counted: its store, and of its clusters and routes those that were used.

    A mesh has thousands of clusters and a workload calls a few: the others would make reports large for nothing.
    """

    store: StatStore
    clusters: dict[str, ClusterStats] = field(default_factory=dict)
    hosts: dict[str, dict[str, HostCounts]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CountedStats:
    """A cluster's name and statistics (``metrics.CountedCluster``)."""

    name: str
    stats: ClusterStats


def report(store: StatStore, clusters: Iterable[LiveCluster]) -> Report:
    """What there is to say now. It is to be pickled at once: it holds the live objects."""
    shown = StatStore(store.access_log)
    for name in StatStore.__slots__:
        setattr(shown, name, getattr(store, name))
    shown.route = {key: stats for key, stats in store.route.items() if stats.rq_total}
    made = Report(shown)
    for cluster in clusters:
        if _used(cluster.stats):
            made.clusters[cluster.name] = cluster.stats
        hosts = {
            host.label: HostCounts(
                host.cx_active,
                host.active,
                host.rq_error,
                host.rq_success,
                host.rq_total,
                host.healthy,
                host.degraded,
                host.flags,
            )
            for host in cluster.hosts
            if host.rq_total or host.cx_active or host.rq_error or host.flags
        }
        if hosts:
            made.hosts[cluster.name] = hosts
    return made


def add(total: Report, part: Report, *, alive: bool = True) -> None:
    """Add ``part`` to ``total``. Not ``alive``: its worker has ended, only what it counted counts."""
    for name in StatStore.__slots__:
        into, value = getattr(total.store, name), getattr(part.store, name)
        if isinstance(value, dict):
            _add_all(into, value, alive)
        else:
            _add(into, value, alive)
    _add_all(total.clusters, part.clusters, alive)
    if not alive:
        return
    for cluster, hosts in part.hosts.items():
        known = total.hosts.setdefault(cluster, {})
        for label, counts in hosts.items():
            host = known.setdefault(label, HostCounts())
            for name in ("cx_active", "active", "rq_error", "rq_success", "rq_total"):
                setattr(host, name, getattr(host, name) + getattr(counts, name))
            # Whoever cannot reach a host makes it one to look at.
            host.healthy &= counts.healthy
            host.degraded |= counts.degraded
            host.flags |= counts.flags


def counted(made: Report, clusters: Iterable[LiveCluster]) -> Iterator[CountedStats]:
    """The clusters of ``made``, and those that nobody used."""
    for cluster in clusters:
        stats = made.clusters.get(cluster.name)
        if stats is None:
            stats = ClusterStats()
        _take_largest(stats, cluster.stats)
        # Hosts are checked by the process that leads.
        stats.health_check = cluster.stats.health_check
        yield CountedStats(cluster.name, stats)


def _add_all(into: dict[Any, Any], parts: dict[Any, Any], alive: bool) -> None:
    for key, part in parts.items():
        if isinstance(part, int):
            into[key] = into.get(key, 0) + part
            continue
        total = into.get(key)
        if total is None:
            total = into[key] = type(part)()
        _add(total, part, alive)


def _add(total: Any, part: Any, alive: bool) -> None:
    if isinstance(part, ServerStats) and not alive:
        return
    for attribute in fields(part):
        name = attribute.name
        value = getattr(part, name)
        if isinstance(value, Histogram):
            _add_histogram(getattr(total, name), value)
        elif isinstance(value, list):
            setattr(total, name, [a + b for a, b in zip(getattr(total, name), value, strict=True)])
        elif isinstance(value, dict):
            _add_all(getattr(total, name), value, alive)
        elif isinstance(value, Http2Stats):
            _add(total.http2_stats(), value, alive)
        elif value is None or name == "health_check":
            continue
        elif name in _ALIKE:
            if alive:
                setattr(total, name, max(getattr(total, name), value))
        elif alive or not is_gauge(name):
            setattr(total, name, getattr(total, name) + value)


def _add_histogram(total: Histogram, part: Histogram) -> None:
    if part.count:
        total.buckets = [a + b for a, b in zip(total.buckets, part.buckets, strict=True)]
        total.count += part.count
        total.total += part.total


def _take_largest(total: ClusterStats, own: ClusterStats) -> None:
    for name in _ALIKE:
        if hasattr(own, name):
            setattr(total, name, max(getattr(total, name), getattr(own, name)))


def _used(stats: ClusterStats | Http2Stats) -> bool:
    for attribute in fields(stats):
        value = getattr(stats, attribute.name)
        if isinstance(value, Histogram):
            value = value.count
        elif isinstance(value, list):
            value = any(value)
        elif isinstance(value, Http2Stats):
            value = _used(value)
        if value and attribute.name not in _ALIKE:
            return True
    return False
