"""Envoy's ``/clusters`` page: limits of each cluster and the state of each host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from proxy.cluster import flags
from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.observe.totals import HostCounts

_STATUS = (
    (flags.FAILED_ACTIVE_HC, "failed_active_health_check"),
    (flags.DEGRADED_ACTIVE_HC, "failed_active_degraded_check"),
    (flags.PENDING_DYNAMIC_REMOVAL, "pending_dynamic_removal"),
    (flags.PENDING_ACTIVE_HC, "pending_active_hc"),
    (flags.EXCLUDED_VIA_IMMEDIATE_HC_FAIL, "excluded_via_immediate_hc_fail"),
    (flags.ACTIVE_HC_TIMEOUT, "active_hc_timeout"),
)
Hosts = Mapping[str, Mapping[str, HostCounts]]


def clusters_text(clusters: Iterable[Cluster], counts: Hosts) -> str:
    """``cluster::key::value`` and ``cluster::host::key::value`` lines, as Envoy prints them.

    ``counts``: by cluster and host label, what others count; a host that is not in it counts for itself.
    """
    lines: list[str] = []
    for cluster in sorted(clusters, key=lambda c: c.name):
        limits = cluster.breaker.limits
        name = cluster.name
        lines.append(f"{name}::observability_name::{cluster.config.alt_stat_name or name}")
        for key in ("max_connections", "max_pending_requests", "max_requests", "max_retries"):
            lines.append(f"{name}::default_priority::{key}::{getattr(limits, key)}")
        lines.append(f"{name}::added_via_api::{str(cluster.config.type != 'STATIC').lower()}")
        for host in cluster.hosts:
            facts = host_facts(host, counts.get(name, {}).get(host.label, host))
            lines.extend(f"{name}::{host.label}::{key}::{value}" for key, value in facts)
    return "".join(f"{line}\n" for line in lines)


def host_facts(host: Host, counts: Host | HostCounts) -> list[tuple[str, object]]:
    """What there is to say of a host, under Envoy's names."""
    return [
        ("cx_active", counts.cx_active),
        ("rq_active", counts.active),
        ("rq_error", counts.rq_error),
        ("rq_success", counts.rq_success),
        ("rq_total", counts.rq_total),
        ("hostname", host.hostname),
        ("health_flags", health_flags(counts)),
        ("weight", host.weight),
        ("priority", host.priority),
        ("transport_socket", "tls" if host.tls is not None else "raw_buffer"),
    ]


def health_flags(host: Host | HostCounts) -> str:
    """``healthy``, or Envoy's flags for what is wrong."""
    return flags.text(host.flags)


def health_status(of: int) -> dict[str, Any]:
    """Envoy's ``admin.v3.HostHealthStatus``."""
    said = {name: True for flag, name in _STATUS if of & flag}
    if of & (flags.FAILED_EDS_HEALTH | flags.UNREACHABLE):
        eds = "UNHEALTHY"
    else:
        eds = "DEGRADED" if of & flags.DEGRADED_EDS_HEALTH else "HEALTHY"
    return {**said, "eds_health_status": eds}


def clusters_json(clusters: Iterable[Cluster], counts: Hosts) -> dict[str, Any]:
    """Envoy's ``admin.v3.Clusters``."""

    def counted(cluster: Cluster, host: Host) -> Host | HostCounts:
        return counts.get(cluster.name, {}).get(host.label, host)

    return {
        "cluster_statuses": [
            {
                "name": cluster.name,
                "added_via_api": cluster.config.type != "STATIC",
                "host_statuses": [
                    {
                        "address": {
                            "socket_address": {"address": host.address[0], "port_value": host.address[1]}
                        },
                        "hostname": host.hostname,
                        "weight": host.weight,
                        "priority": host.priority,
                        "health_status": health_status(counted(cluster, host).flags),
                        "stats": [
                            {"name": key, "value": str(value)}
                            for key, value in host_facts(host, counted(cluster, host))
                            if isinstance(value, int) and key not in ("weight", "priority")
                        ],
                    }
                    for host in cluster.hosts
                ],
            }
            for cluster in sorted(clusters, key=lambda c: c.name)
        ]
    }
