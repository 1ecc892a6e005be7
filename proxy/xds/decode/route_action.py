"""What a route does with a request that it forwards: ``RouteAction``, ``WeightedCluster``, ``RetryPolicy``."""

from __future__ import annotations

from typing import Any

from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2

from proxy.model.config import ConfigError
from proxy.model.route import RetryPolicy, RouteAction, StreamDuration, WeightedCluster
from proxy.upstream.retry import GRPC_CONDITIONS, HTTP_CONDITIONS
from proxy.xds.decode import headers
from proxy.xds.decode.fields import (
    UNSUPPORTED,
    check,
    duration,
    enum,
    forbid,
    known,
    required,
    unpack,
    wrapped,
)

_ACTION = known(
    "cluster",
    "weighted_clusters",
    "cluster_not_found_response_code",
    "prefix_rewrite",
    "host_rewrite_literal",
    "timeout",
    "idle_timeout",
    "retry_policy",
    "priority",
    "upgrade_configs",
    "max_stream_duration",
    "append_x_forwarded_host",
    "max_grpc_timeout",
    "grpc_timeout_offset",
)
_WEIGHTED = known("clusters", "total_weight")
_SHARE = known("name", "weight", *headers.FIELDS)
_RETRY = known(
    "retry_on",
    "num_retries",
    "per_try_timeout",
    "retriable_status_codes",
    "retry_back_off",
    "retry_host_predicate",
    without_effect={
        "host_selection_retry_max_attempts": "another host than before is chosen directly, not by trying again"
    },
)
_PREDICATE = known("typed_config", without_effect={"name": "is a label; the type URL decides"})
_BACK_OFF = known("base_interval", "max_interval")
_EMPTY = known()
_DURATION = known("max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset")
_UPGRADE = known("upgrade_type", "enabled", "connect_config")

_NOT_FOUND_CODES = {"SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404, "INTERNAL_SERVER_ERROR": 500}


def route_action(message: Any, path: str, inherited: RetryPolicy | None) -> RouteAction:
    """A ``RouteAction``; ``inherited`` is the virtual host's retry policy, for a route without one."""
    check(message, path, _ACTION)
    enum(message, path, "priority", {"DEFAULT": None})
    kind = message.WhichOneof("cluster_specifier")
    if kind == "cluster":
        clusters: tuple[WeightedCluster, ...] = (
            WeightedCluster(required(message.cluster, f"{path}.cluster"), 1),
        )
    elif kind == "weighted_clusters":
        clusters = weighted_clusters(message.weighted_clusters, f"{path}.weighted_clusters")
    else:
        raise ConfigError(path, "has no cluster: set cluster or weighted_clusters")
    policy = inherited
    if message.HasField("retry_policy"):
        policy = retry_policy(message.retry_policy, f"{path}.retry_policy")
    for name in ("prefix_rewrite", "host_rewrite_literal"):
        text = getattr(message, name)
        forbid(
            any(ord(char) <= 32 or ord(char) == 127 for char in text), f"{path}.{name}", "holds white space"
        )
    return RouteAction(
        clusters,
        enum(message, path, "cluster_not_found_response_code", _NOT_FOUND_CODES),
        message.prefix_rewrite,
        message.host_rewrite_literal,
        duration(message, path, "timeout", 15.0),
        duration(message, path, "idle_timeout", None),
        policy,
        *_upgrades(message.upgrade_configs, f"{path}.upgrade_configs"),
        _stream_duration(message, path),
        message.append_x_forwarded_host,
        duration(message, path, "max_grpc_timeout", None),
        duration(message, path, "grpc_timeout_offset", 0.0),
    )


def _stream_duration(message: Any, path: str) -> StreamDuration | None:
    if not message.HasField("max_stream_duration"):
        return None
    found, at = message.max_stream_duration, f"{path}.max_stream_duration"
    check(found, at, _DURATION)
    return StreamDuration(
        duration(found, at, "max_stream_duration", None),
        duration(found, at, "grpc_timeout_header_max", None),
        duration(found, at, "grpc_timeout_header_offset", 0.0),
    )


def _upgrades(messages: Any, path: str) -> tuple[tuple[tuple[str, bool], ...], bool]:
    """What the route says of upgrade types, and whether it ends CONNECT tunnels itself."""
    found: dict[str, bool] = {}
    terminates = False
    for index, item in enumerate(messages):
        at = f"{path}[{index}]"
        check(item, at, _UPGRADE)
        kind = required(item.upgrade_type, f"{at}.upgrade_type").lower()
        forbid(kind in found, f"{at}.upgrade_type", f"{item.upgrade_type!r} is there twice")
        found[kind] = wrapped(item, "enabled", True)
        if item.HasField("connect_config"):
            forbid(kind != "connect", f"{at}.connect_config", "is for the upgrade type CONNECT alone")
            check(item.connect_config, f"{at}.connect_config", _EMPTY)
            terminates = found[kind]
    return tuple(found.items()), terminates


def weighted_clusters(
    message: Any, path: str, allowed: frozenset[str] = _WEIGHTED, share_allowed: frozenset[str] = _SHARE
) -> tuple[WeightedCluster, ...]:
    """A ``WeightedCluster`` of a route, or (with other ``allowed``) of a TCP proxy."""
    check(message, path, allowed)
    forbid(not message.clusters, f"{path}.clusters", "is empty")
    shares = []
    for index, item in enumerate(message.clusters):
        at = f"{path}.clusters[{index}]"
        check(item, at, share_allowed)
        name = required(item.name, f"{at}.name")
        weight = item.weight if isinstance(item.weight, int) else wrapped(item, "weight", 0)
        edits = headers.mutations(item, at) if "request_headers_to_add" in share_allowed else None
        shares.append(
            WeightedCluster(name, weight) if edits is None else WeightedCluster(name, weight, edits)
        )
    total = sum(share.weight for share in shares)
    forbid(total == 0, f"{path}.clusters", "all weights are 0")
    forbid(total >= 2**32, f"{path}.clusters", "the sum of the weights is above 4294967295")
    if "total_weight" in allowed:
        declared = wrapped(message, "total_weight", total)
        forbid(declared != total, f"{path}.total_weight", f"is {declared}, but the weights' sum is {total}")
    return tuple(shares)


def retry_policy(message: Any, path: str) -> RetryPolicy:
    """A ``RetryPolicy``. A condition that is not implemented is refused, not ignored."""
    check(message, path, _RETRY)
    conditions = tuple(part for part in (item.strip() for item in message.retry_on.split(",")) if part)
    for condition in conditions:
        forbid(
            condition not in HTTP_CONDITIONS | GRPC_CONDITIONS,
            f"{path}.retry_on",
            f"{condition!r} {UNSUPPORTED}",
        )
    for index, item in enumerate(message.retry_host_predicate):
        at = f"{path}.retry_host_predicate[{index}]"
        check(item, at, _PREDICATE)
        predicate = unpack(
            item.typed_config, f"{at}.typed_config", (previous_hosts_pb2.PreviousHostsPredicate,)
        )
        check(predicate, f"{at}.typed_config", _EMPTY)
    base, longest = 0.025, 0.25
    if message.HasField("retry_back_off"):
        at = f"{path}.retry_back_off"
        check(message.retry_back_off, at, _BACK_OFF)
        base = duration(message.retry_back_off, at, "base_interval", 0.0)
        forbid(base <= 0, f"{at}.base_interval", "is required, and above 0")
        longest = duration(message.retry_back_off, at, "max_interval", 10 * base)
        forbid(longest < base, f"{at}.max_interval", "is below base_interval")
    return RetryPolicy(
        conditions,
        wrapped(message, "num_retries", 1),
        duration(message, path, "per_try_timeout", None),
        tuple(message.retriable_status_codes),
        base,
        longest,
    )
