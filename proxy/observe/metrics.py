"""Statistics as Envoy prints them: ``/stats`` text and Prometheus text, gathered when asked for.

It counts nothing itself. Names and labels come from configuration, never from traffic, so their number is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol

from proxy.match.regex import compile_regex
from proxy.model.stats import ClusterStats, Histogram, ProxyProtocolStats
from proxy.observe.store import StatStore

Labels = tuple[tuple[str, str], ...]

# Upper bounds in milliseconds, Envoy's defaults.
BUCKETS_MS = (
    0.5,
    1,
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10000,
    30000,
    60000,
    300000,
    600000,
    1800000,
    3600000,
)
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0)
_GAUGE = re.compile(
    r"_(?:active|buffered)$"
    r"|^(?:(?:membership_)?(?:healthy|degraded)|membership_(?:total|excluded)|max_host_weight|active|active_connections|scale_percent|pressure"
    r"|pending_send_bytes)$"
)

# Among the gauges of the server.
_COUNTERS = frozenset({"worker_restarts"})


def is_gauge(name: str) -> bool:
    """Whether the field ``name`` of a class in ``proxy.model.stats`` goes down, too."""
    return _GAUGE.search(name) is not None


@dataclass(frozen=True, slots=True)
class Metric:
    """One series: Envoy's dotted ``name``; ``family`` and ``labels`` are the same with its tags taken out."""

    name: str
    family: str
    labels: Labels
    value: int | Histogram
    gauge: bool = False


class CountedCluster(Protocol):
    """A cluster, as far as its statistics go."""

    @property
    def name(self) -> str: ...
    @property
    def stats(self) -> ClusterStats: ...


def gather(store: StatStore, clusters: Iterable[CountedCluster]) -> Iterator[Metric]:
    """Every series."""
    labels: Labels
    for prefix, http in store.http.items():
        labels = (("envoy_http_conn_manager_prefix", prefix),)
        yield from _group(
            http, f"http.{prefix}.", "http.", labels, classes="downstream_rq", times="downstream_rq_time"
        )
    yield from _group(store.http2, "http2.", "http2.", ())
    for prefix, tcp in store.tcp.items():
        yield from _group(tcp, f"tcp.{prefix}.", "tcp.", (("envoy_tcp_prefix", prefix),))
    for address, listener in store.listener.items():
        yield from _group(
            listener, f"listener.{address}.", "listener.", (("envoy_listener_address", address),)
        )
    for prefix, rbac in store.rbac.items():
        http_prefix = re.fullmatch(r"http\.(.*)\.(rbac\..*)", prefix)
        if http_prefix:
            labels = (("envoy_http_conn_manager_prefix", http_prefix[1]),)
            yield from _group(rbac, prefix, f"http.{http_prefix[2]}", labels)
        else:
            yield from _group(rbac, prefix, prefix, ())
    for (host, route), stats in store.route.items():
        if route:
            labels = (("envoy_virtual_host", host), ("envoy_route", route))
            prefix = f"vhost.{host}.route.{route}."
            yield from _group(
                stats,
                prefix,
                "vhost.route.",
                labels,
                classes="upstream_rq",
                rename={"rq_total": "upstream_rq_total"},
            )
    for prefix, limit in store.connection_limit.items():
        labels = (("envoy_connection_limit_prefix", prefix),)
        yield from _group(limit, f"connection_limit.{prefix}.", "connection_limit.", labels)
    for name, watched in (*store.overload.monitors.items(), *store.overload.actions.items()):
        yield from _group(watched, f"overload.{name}.", f"overload.{name}.", ())
    yield from _group(store.server, "server.", "server.", (), gauges=True)
    yield from _group(store.splice, "splice.", "splice.", ())
    yield from _group(store.tls_inspector, "tls_inspector.", "tls_inspector.", ())
    yield from _group(store.http_inspector, "http_inspector.", "http_inspector.", ())
    for prefix, proxy_protocol in store.proxy_protocol.items():
        yield from _proxy_protocol(proxy_protocol, f"proxy_proto.{prefix}." if prefix else "proxy_proto.")
    yield from _group(store.access_log, "access_log_file.", "access_log_file.", ())
    for cluster in clusters:
        labels = (("envoy_cluster_name", cluster.name),)
        prefix = f"cluster.{cluster.name}."
        yield from _group(
            cluster.stats, prefix, "cluster.", labels, classes="upstream_rq", times="upstream_rq_time"
        )
        if cluster.stats.http2 is not None:
            yield from _group(cluster.stats.http2, f"{prefix}http2.", "cluster.http2.", labels)
        if cluster.stats.health_check is not None:
            yield from _group(
                cluster.stats.health_check, f"{prefix}health_check.", "cluster.health_check.", labels
            )
        for code, count in sorted(cluster.stats.rq_codes.items()):
            if 100 <= code <= 599:
                yield Metric(
                    f"{prefix}upstream_rq_{code}",
                    "cluster.upstream_rq",
                    (("envoy_response_code", str(code)), *labels),
                    count,
                )


def _proxy_protocol(stats: ProxyProtocolStats, prefix: str) -> Iterator[Metric]:
    for name in ("not_found_disallowed", "not_found_allowed"):
        yield Metric(prefix + name, f"proxy_proto.{name}", (), getattr(stats, name))
    for name in ("found", "disallowed", "error"):
        for version in (1, 2):
            labels = (("envoy_proxy_protocol_version", str(version)),)
            value = getattr(stats, name)[version]
            yield Metric(f"{prefix}versions.v{version}.{name}", f"proxy_proto.versions.{name}", labels, value)


def _group(
    stats: object,
    prefix: str,
    family: str,
    labels: Labels,
    *,
    classes: str = "",
    times: str = "",
    rename: dict[str, str] | None = None,
    gauges: bool = False,
) -> Iterator[Metric]:
    for attribute in fields(stats):  # type: ignore[arg-type]  # all of proxy.model.stats are dataclasses
        name = attribute.name
        value = getattr(stats, name)
        if isinstance(value, dict) or name in ("http2", "health_check"):
            continue
        if isinstance(value, list):
            for hundreds, count in enumerate(value):
                if hundreds:
                    yield Metric(
                        f"{prefix}{classes}_{hundreds}xx",
                        f"{family}{classes}_xx",
                        (("envoy_response_code_class", str(hundreds)), *labels),
                        count,
                    )
            continue
        if name == "rq_time":
            name = times
        elif name == "cx_connect_ms":
            name = "upstream_cx_connect_ms"
        elif rename is not None:
            name = rename.get(name, name)
        elif name.startswith("ssl_"):
            name = "ssl." + name[4:]
        yield Metric(
            prefix + name,
            family + name,
            labels,
            value,
            gauge=(gauges and name not in _COUNTERS) or is_gauge(name),
        )


def stats_text(
    store: StatStore,
    clusters: Iterable[CountedCluster],
    *,
    pattern: str | None = None,
    used_only: bool = False,
) -> str:
    """Envoy's ``/stats``: ``name: value`` lines by name, histograms last.

    ``pattern`` is its ``filter``, found anywhere in a name; ``used_only`` leaves out what is still zero. Raises
    ``ValueError`` when ``pattern`` is not a usable regular expression.
    """
    # The pattern comes from whoever reaches the admin port: it gets linear time, as everybody's does.
    matches = None if pattern is None else compile_regex(f".*(?:{pattern}).*", "filter")
    counters: list[str] = []
    histograms: list[str] = []
    for metric in gather(store, clusters):
        value = metric.value
        if matches is not None and not matches(metric.name.encode()):
            continue
        if isinstance(value, Histogram):
            if value.count or not used_only:
                histograms.append(f"{metric.name}: {_quantiles(value)}\n")
        elif value or not used_only:
            counters.append(f"{metric.name}: {value}\n")
    return "".join(sorted(counters)) + "".join(sorted(histograms))


def _quantiles(histogram: Histogram) -> str:
    if not histogram.count:
        return "No recorded values"
    # Envoy writes (interval, cumulative); there is no interval here.
    return " ".join(f"P{q * 100:g}(nan,{histogram.quantile(q) / 1000:g})" for q in QUANTILES)


def prometheus_text(store: StatStore, clusters: Iterable[CountedCluster]) -> str:
    """Envoy's ``/stats/prometheus`` (text format 0.0.4), families by name."""
    families: dict[str, list[Metric]] = {}
    for metric in gather(store, clusters):
        families.setdefault("envoy_" + re.sub(r"[^A-Za-z0-9_]", "_", metric.family), []).append(metric)
    out: list[str] = []
    for family, members in sorted(families.items()):
        first = members[0]
        kind = "histogram" if isinstance(first.value, Histogram) else "gauge" if first.gauge else "counter"
        out.append(f"# TYPE {family} {kind}\n")
        for metric in members:
            labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in metric.labels)
            if isinstance(metric.value, Histogram):
                out.append(_histogram(family, labels, metric.value))
            else:
                out.append(f"{family}{{{labels}}} {metric.value}\n")
    return "".join(out)


def _histogram(family: str, labels: str, histogram: Histogram) -> str:
    comma = "," if labels else ""
    lines = []
    counted, index = 0, 0
    for bound in BUCKETS_MS:
        while index < Histogram.SIZE and Histogram.upper_bound(index) <= bound * 1000:
            counted += histogram.buckets[index]
            index += 1
        lines.append(f'{family}_bucket{{{labels}{comma}le="{bound:g}"}} {counted}\n')
    lines.append(f'{family}_bucket{{{labels}{comma}le="+Inf"}} {histogram.count}\n')
    lines.append(f"{family}_sum{{{labels}}} {histogram.total / 1000:g}\n")
    lines.append(f"{family}_count{{{labels}}} {histogram.count}\n")
    return "".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
