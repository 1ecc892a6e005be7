"""The TCP proxy (``extensions.filters.network.tcp_proxy.v3``)."""

from __future__ import annotations

from typing import Any

from proxy.model.config import ConfigError
from proxy.model.listener import TcpProxy
from proxy.model.route import WeightedCluster
from proxy.xds.decode.access_log import access_logs
from proxy.xds.decode.fields import check, duration, enum, forbid, known, required, wrapped
from proxy.xds.decode.route_action import weighted_clusters

_TCP_PROXY = known(
    "stat_prefix",
    "cluster",
    "weighted_clusters",
    "idle_timeout",
    "access_log",
    "access_log_options",
    "access_log_flush_interval",
    "flush_access_log_on_connected",
    "max_connect_attempts",
    "backoff_options",
    "max_downstream_connection_duration",
    "max_downstream_connection_duration_jitter_percentage",
    "upstream_connect_mode",
    "max_early_data_bytes",
)
_WEIGHTED = known("clusters")
_SHARE = known("name", "weight")
_LOG_OPTIONS = known("access_log_flush_interval", "flush_access_log_on_connected")
_BACK_OFF = known("base_interval", "max_interval")
_PERCENT = known("value")

# Whether the upstream connection waits for data. With TLS it always waits for the handshake, that nobody who has not
# said who they are makes the proxy connect.
_MODES = {"IMMEDIATE": False, "ON_DOWNSTREAM_TLS_HANDSHAKE": False, "ON_DOWNSTREAM_DATA": True}


def tcp_proxy(message: Any, path: str) -> TcpProxy:
    """A ``TcpProxy``."""
    check(message, path, _TCP_PROXY)
    attempts: int = wrapped(message, "max_connect_attempts", 1)
    forbid(attempts < 1, f"{path}.max_connect_attempts", "must be at least 1")
    on_data = enum(message, path, "upstream_connect_mode", _MODES)
    early: int = wrapped(message, "max_early_data_bytes", 0)
    forbid(
        message.upstream_connect_mode != 0 and not message.HasField("max_early_data_bytes"),
        f"{path}.max_early_data_bytes",
        "must be set when upstream_connect_mode is not IMMEDIATE",
    )
    forbid(on_data and not early, f"{path}.max_early_data_bytes", "0 lets no data come to wait for")
    interval, on_connected = _log_options(message, path)
    return TcpProxy(
        required(message.stat_prefix, f"{path}.stat_prefix"),
        _clusters(message, path),
        access_logs(message.access_log, f"{path}.access_log"),
        duration(message, path, "idle_timeout", 3600.0),
        attempts,
        _back_off(message, path),
        duration(message, path, "max_downstream_connection_duration", 0.0),
        _jitter(message, path),
        on_data,
        early,
        interval,
        on_connected,
    )


def _clusters(message: Any, path: str) -> tuple[WeightedCluster, ...]:
    kind = message.WhichOneof("cluster_specifier")
    if kind == "cluster":
        return (WeightedCluster(required(message.cluster, f"{path}.cluster"), 1),)
    if kind == "weighted_clusters":
        return weighted_clusters(message.weighted_clusters, f"{path}.weighted_clusters", _WEIGHTED, _SHARE)
    raise ConfigError(path, "has no cluster: set cluster or weighted_clusters")


def _log_options(message: Any, path: str) -> tuple[float, bool]:
    """Seconds between two lines of one connection, and whether one is written when it is connected upstream."""
    if message.HasField("access_log_options"):
        for name in ("access_log_flush_interval", "flush_access_log_on_connected"):
            forbid(
                any(field.name == name for field, _ in message.ListFields()),
                f"{path}.{name}",
                "does not go with access_log_options",
            )
        path = f"{path}.access_log_options"
        message = message.access_log_options
        check(message, path, _LOG_OPTIONS)
    interval = duration(message, path, "access_log_flush_interval", 0.0)
    forbid(0 < interval < 0.001, f"{path}.access_log_flush_interval", "must be at least 1 ms")
    return interval, message.flush_access_log_on_connected


def _back_off(message: Any, path: str) -> tuple[float, float] | None:
    if not message.HasField("backoff_options"):
        return None
    path = f"{path}.backoff_options"
    check(message.backoff_options, path, _BACK_OFF)
    base = duration(message.backoff_options, path, "base_interval", 0.0)
    forbid(base < 0.001, f"{path}.base_interval", "must be at least 1 ms")
    longest = duration(message.backoff_options, path, "max_interval", 10 * base)
    forbid(longest < base, f"{path}.max_interval", "is below base_interval")
    return base, longest


def _jitter(message: Any, path: str) -> float:
    name = "max_downstream_connection_duration_jitter_percentage"
    if not message.HasField(name):
        return 0.0
    path = f"{path}.{name}"
    percent = getattr(message, name)
    check(percent, path, _PERCENT)
    value: float = percent.value
    forbid(not 0 <= value <= 100, f"{path}.value", f"{value:g} is not from 0 to 100")
    return value
