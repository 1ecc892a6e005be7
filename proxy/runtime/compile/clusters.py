"""Clusters. Nothing that is in use changes here: take-overs and endpoints are returned as steps for the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from proxy.cluster.cluster import Cluster
from proxy.match.cidr import parse
from proxy.model.cluster import Cluster as ClusterConfig
from proxy.model.cluster import LoadAssignment
from proxy.model.config import Config, ConfigError
from proxy.runtime.compile.env import CompileEnv
from proxy.runtime.compile.health_check import check_health_check

Step = Callable[[], None]
# Whose endpoints are IP addresses in the configuration itself; the DNS types get theirs from ``proxy.discovery``.
_ADDRESSED = frozenset(("STATIC", "EDS"))


def compile_clusters(
    config: Config, previous: Mapping[str, Cluster], env: CompileEnv
) -> tuple[dict[str, Cluster], tuple[Step, ...]]:
    """Clusters by name, unchanged ones as they were, and the steps that put them into force.

    An EDS cluster whose assignment has not come keeps the hosts it had. Raises ``ConfigError``.
    """
    clusters: dict[str, Cluster] = {}
    steps: list[Step] = []
    for name, cluster_config in config.clusters.items():
        field = f"cluster[{name}]"
        before = previous.get(name)
        if before is not None and before.config == cluster_config:
            cluster = before
        else:
            _check(cluster_config, field)
            cluster = Cluster(cluster_config, env.random, env.on_host_removed)
            if before is not None:
                steps.append(partial(cluster.adopt, before))
        clusters[name] = cluster
        if cluster_config.type in _ADDRESSED:
            assignment = _assignment(config, cluster_config)
            known = None if before is None else before.assignment
            if assignment is not None and (cluster is not before or assignment != known):
                _check_assignment(assignment, f"{field}.load_assignment")
                steps.append(partial(cluster.set_endpoints, assignment))
    steps += [cluster.close for name, cluster in previous.items() if name not in clusters]
    return clusters, tuple(steps)


def _assignment(config: Config, cluster: ClusterConfig) -> LoadAssignment | None:
    if cluster.type == "EDS":
        return config.assignments.get(cluster.eds_service_name or cluster.name)
    return cluster.load_assignment


def _check(config: ClusterConfig, field: str) -> None:
    if (config.type == "ORIGINAL_DST") != (config.lb_policy == "CLUSTER_PROVIDED"):
        raise ConfigError(
            f"{field}.lb_policy", "CLUSTER_PROVIDED goes with type ORIGINAL_DST, and only with it"
        )
    if config.type == "DNS_SRV" and config.dns_srv is None:
        raise ConfigError(f"{field}.cluster_type.typed_config", "srv_name is missing")
    if config.health_check is not None:
        check_health_check(config.health_check, f"{field}.health_checks[0]")
    if config.choice_count < 2:
        raise ConfigError(f"{field}.least_request_lb_config.choice_count", "must be at least 2")


def _check_assignment(assignment: LoadAssignment, field: str) -> None:
    for n, locality in enumerate(assignment.localities):
        for m, endpoint in enumerate(locality.endpoints):
            if parse(endpoint.address.host) is None:
                raise ConfigError(
                    f"{field}.endpoints[{n}].lb_endpoints[{m}].endpoint.address",
                    f"{endpoint.address.host!r} is not an IP address; use a DNS cluster for names",
                )
