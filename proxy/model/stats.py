"""The numbers that the data path counts, under Envoy's names.

Each class is a bag of integers that its owner increments in place (``stats.downstream_rq_total += 1``); nothing is
looked up by name on the way of a request. ``proxy.observe.metrics`` reads them on demand. They outlive a configuration
swap: the same object serves as long as its name (stat prefix, cluster, listener) does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


class Histogram:
    """Logarithmic buckets, four to each power of two (at most 19 % wide either way), of non-negative integers.

    ``record`` costs one ``bit_length``. Values of 2**62 and more are counted in the last bucket.
    """

    __slots__ = ("buckets", "count", "total")
    SIZE: Final = 256

    def __init__(self) -> None:
        self.buckets = [0] * self.SIZE
        self.count = 0
        self.total = 0

    def record(self, value: int) -> None:
        """Count ``value`` (a negative one, from a clock that was set back, counts as 0)."""
        if value < 4:
            if value < 0:
                value = 0
            index = value
        else:
            bits = value.bit_length()
            index = (bits << 2) - 8 | ((value >> (bits - 3)) & 3)
            if index > 255:
                index = 255
        self.buckets[index] += 1
        self.count += 1
        self.total += value

    @staticmethod
    def upper_bound(index: int) -> int:
        """The largest value that bucket ``index`` holds."""
        if index < 4:
            return index
        bits, quarter = (index + 8) >> 2, index & 3
        return ((4 + quarter + 1) << (bits - 3)) - 1

    def quantile(self, q: float) -> float:
        """The value below which a share ``q`` (0..1) lies, as the upper bound of its bucket; 0.0 when empty."""
        if not self.count:
            return 0.0
        rank = q * self.count
        seen = 0
        for index, n in enumerate(self.buckets):
            seen += n
            if n and seen >= rank:
                return float(self.upper_bound(index))
        return float(self.upper_bound(self.SIZE - 1))


@dataclass(slots=True, eq=False)
class HttpStats:
    """``http.<stat_prefix>.*`` (Envoy: HTTP connection manager and router statistics).

    ``rq_xx[n]`` counts responses of class ``n`` hundred; ``rq_time`` is in microseconds.
    """

    downstream_cx_total: int = 0
    downstream_cx_active: int = 0
    downstream_cx_ssl_total: int = 0
    downstream_cx_ssl_active: int = 0
    downstream_cx_http1_total: int = 0
    downstream_cx_http1_active: int = 0
    downstream_cx_http2_total: int = 0
    downstream_cx_http2_active: int = 0
    downstream_cx_destroy: int = 0
    downstream_cx_destroy_remote: int = 0
    downstream_cx_destroy_local: int = 0
    downstream_cx_destroy_remote_active_rq: int = 0
    downstream_cx_destroy_local_active_rq: int = 0
    downstream_cx_protocol_error: int = 0
    downstream_cx_rx_bytes_total: int = 0
    downstream_cx_tx_bytes_total: int = 0
    downstream_cx_drain_close: int = 0
    downstream_cx_idle_timeout: int = 0
    downstream_cx_max_duration_reached: int = 0
    downstream_cx_max_requests_reached: int = 0
    downstream_cx_delayed_close_timeout: int = 0
    downstream_cx_overload_disable_keepalive: int = 0
    downstream_cx_upgrades_total: int = 0
    downstream_cx_upgrades_active: int = 0
    downstream_flow_control_paused_reading_total: int = 0
    downstream_flow_control_resumed_reading_total: int = 0
    downstream_rq_total: int = 0
    downstream_rq_active: int = 0
    downstream_rq_http1_total: int = 0
    downstream_rq_http2_total: int = 0
    downstream_rq_completed: int = 0
    downstream_rq_timeout: int = 0
    downstream_rq_max_duration_reached: int = 0
    dropped_headers_with_underscores: int = 0
    requests_rejected_with_underscores_in_headers: int = 0
    downstream_rq_idle_timeout: int = 0
    downstream_rq_header_timeout: int = 0
    downstream_rq_too_large: int = 0
    downstream_rq_overload_close: int = 0
    downstream_rq_non_relative_path: int = 0
    downstream_rq_failed_path_normalization: int = 0
    downstream_rq_response_before_rq_complete: int = 0
    downstream_rq_rx_reset: int = 0
    downstream_rq_tx_reset: int = 0
    downstream_rq_too_many_premature_resets: int = 0
    downstream_rq_ws_on_non_ws_route: int = 0
    rq_total: int = 0
    rq_direct_response: int = 0
    rq_redirect: int = 0
    rq_reset_after_downstream_response_started: int = 0
    no_route: int = 0
    no_cluster: int = 0
    rs_too_large: int = 0
    rq_xx: list[int] = field(default_factory=lambda: [0] * 6)
    rq_time: Histogram = field(default_factory=Histogram)


@dataclass(slots=True, eq=False)
class Http2Stats:
    """``http2.*`` for all downstream connections together, ``cluster.<name>.http2.*`` for those to one cluster.

    Each ``*_flood`` is a connection that was ended, so is ``keepalive_timeout``. ``header_overflow`` counts messages
    with more fields than allowed, ``header_list_size_too_large`` larger ones (cookies count for both), and
    ``headers_cb_no_stream`` those for a stream that is no more.
    """

    dropped_headers_with_underscores: int = 0
    goaway_sent: int = 0
    header_list_size_too_large: int = 0
    header_overflow: int = 0
    headers_cb_no_stream: int = 0
    inbound_empty_frames_flood: int = 0
    inbound_priority_frames_flood: int = 0
    inbound_window_update_frames_flood: int = 0
    keepalive_timeout: int = 0
    outbound_control_flood: int = 0
    outbound_flood: int = 0
    requests_rejected_with_underscores_in_headers: int = 0
    rx_messaging_error: int = 0
    rx_reset: int = 0
    stream_refused_errors: int = 0
    trailers: int = 0
    tx_flush_timeout: int = 0
    tx_reset: int = 0
    streams_active: int = 0
    pending_send_bytes: int = 0
    outbound_frames_active: int = 0
    outbound_control_frames_active: int = 0


@dataclass(slots=True, eq=False)
class TcpStats:
    """``tcp.<stat_prefix>.*`` (TCP proxy)."""

    downstream_cx_total: int = 0
    downstream_cx_no_route: int = 0
    downstream_cx_rx_bytes_total: int = 0
    downstream_cx_tx_bytes_total: int = 0
    downstream_flow_control_paused_reading_total: int = 0
    downstream_flow_control_resumed_reading_total: int = 0
    idle_timeout: int = 0
    max_downstream_connection_duration: int = 0
    upstream_flush_total: int = 0
    upstream_flush_active: int = 0


@dataclass(slots=True, eq=False)
class ListenerStats:
    """``listener.<address>.*``; the ``ssl_*`` ones print as ``ssl.*``."""

    downstream_cx_total: int = 0
    downstream_cx_active: int = 0
    downstream_cx_destroy: int = 0
    downstream_cx_overflow: int = 0
    downstream_cx_overload_reject: int = 0
    downstream_global_cx_overflow: int = 0
    downstream_cx_transport_socket_connect_timeout: int = 0
    downstream_pre_cx_active: int = 0
    downstream_pre_cx_timeout: int = 0
    downstream_listener_filter_error: int = 0
    downstream_listener_filter_remote_close: int = 0
    no_filter_chain_match: int = 0
    connections_accepted_per_socket_event: int = 0
    ssl_handshake: int = 0
    ssl_handshake_queued: int = 0
    ssl_handshake_evicted: int = 0
    ssl_session_reused: int = 0
    ssl_connection_error: int = 0
    ssl_no_certificate: int = 0
    ssl_fail_verify_no_cert: int = 0
    ssl_fail_verify_error: int = 0
    ssl_fail_verify_san: int = 0
    ssl_fail_verify_cert_hash: int = 0


@dataclass(slots=True, eq=False)
class SpliceStats:
    """``splice.*`` (Tulle's own): pipes that are open, how often none was free, and bytes that were copied for that."""

    pipes_active: int = 0
    pipes_exhausted: int = 0
    copied_bytes: int = 0


@dataclass(slots=True, eq=False)
class TlsInspectorStats:
    """``tls_inspector.*``, one object for all listeners."""

    client_hello_too_large: int = 0
    tls_found: int = 0
    tls_not_found: int = 0
    alpn_found: int = 0
    alpn_not_found: int = 0
    sni_found: int = 0
    sni_not_found: int = 0


@dataclass(slots=True, eq=False)
class HttpInspectorStats:
    """``http_inspector.*``, one object for all listeners."""

    http10_found: int = 0
    http11_found: int = 0
    http2_found: int = 0
    http_not_found: int = 0


@dataclass(slots=True, eq=False)
class ProxyProtocolStats:
    """``proxy_proto.[<stat_prefix>.]*``; ``found[1]`` is ``versions.v1.found``, and so on; errors without a version
    are Envoy's ``not_found_disallowed``."""

    not_found_disallowed: int = 0
    not_found_allowed: int = 0
    found: list[int] = field(default_factory=lambda: [0] * 3)
    disallowed: list[int] = field(default_factory=lambda: [0] * 3)
    error: list[int] = field(default_factory=lambda: [0] * 3)


@dataclass(slots=True, eq=False)
class RbacStats:
    """``http.<stat_prefix>.rbac.*``, or ``<rbac stat prefix>rbac.*`` on a connection."""

    allowed: int = 0
    denied: int = 0


@dataclass(slots=True, eq=False)
class AccessLogStats:
    """``access_log_file.*``, one object for all files."""

    write_total_buffered: int = 0
    write_completed: int = 0
    write_failed: int = 0
    flushed_by_timer: int = 0
    reopen_failed: int = 0
    write_dropped: int = 0


@dataclass(slots=True, eq=False)
class HealthCheckStats:
    """``cluster.<name>.health_check.*``; ``healthy`` and ``degraded`` are numbers of hosts now."""

    attempt: int = 0
    success: int = 0
    failure: int = 0
    passive_failure: int = 0
    network_failure: int = 0
    verify_cluster: int = 0
    healthy: int = 0
    degraded: int = 0


@dataclass(slots=True, eq=False)
class ClusterStats:
    """``cluster.<name>.*`` (upstream statistics). ``rq_xx[n]``: answers of class ``n`` hundred; times: microseconds.

    ``http2``: ``None`` before the first HTTP/2 connection, as Envoy has no such statistics until then.
    ``health_check``: ``None`` where hosts are not checked.
    """

    upstream_cx_total: int = 0
    upstream_cx_active: int = 0
    upstream_cx_http1_total: int = 0
    upstream_cx_http2_total: int = 0
    upstream_cx_connect_fail: int = 0
    upstream_cx_connect_timeout: int = 0
    upstream_cx_idle_timeout: int = 0
    upstream_cx_overflow: int = 0
    upstream_cx_destroy: int = 0
    upstream_cx_destroy_local: int = 0
    upstream_cx_destroy_remote: int = 0
    upstream_cx_destroy_with_active_rq: int = 0
    upstream_cx_destroy_local_with_active_rq: int = 0
    upstream_cx_destroy_remote_with_active_rq: int = 0
    upstream_cx_close_notify: int = 0
    upstream_cx_rx_bytes_total: int = 0
    upstream_cx_tx_bytes_total: int = 0
    upstream_cx_protocol_error: int = 0
    upstream_cx_max_requests: int = 0
    upstream_cx_max_duration_reached: int = 0
    upstream_cx_none_healthy: int = 0
    upstream_rq_total: int = 0
    upstream_rq_active: int = 0
    upstream_rq_active_overflow: int = 0
    upstream_rq_completed: int = 0
    upstream_rq_pending_total: int = 0
    upstream_rq_pending_active: int = 0
    upstream_rq_pending_overflow: int = 0
    upstream_rq_pending_failure_eject: int = 0
    upstream_rq_cancelled: int = 0
    upstream_rq_maintenance_mode: int = 0
    upstream_rq_timeout: int = 0
    upstream_rq_per_try_timeout: int = 0
    upstream_rq_rx_reset: int = 0
    upstream_rq_tx_reset: int = 0
    upstream_rq_retry: int = 0
    upstream_rq_retry_backoff_exponential: int = 0
    upstream_rq_retry_success: int = 0
    upstream_rq_retry_overflow: int = 0
    upstream_rq_retry_limit_exceeded: int = 0
    retry_or_shadow_abandoned: int = 0
    upstream_flow_control_paused_reading_total: int = 0
    upstream_flow_control_backed_up_total: int = 0
    upstream_flow_control_drained_total: int = 0
    upstream_flow_control_resumed_reading_total: int = 0
    upstream_internal_redirect_failed_total: int = 0
    bind_errors: int = 0
    membership_change: int = 0
    membership_healthy: int = 0
    membership_degraded: int = 0
    membership_excluded: int = 0
    membership_total: int = 0
    update_attempt: int = 0
    update_success: int = 0
    update_failure: int = 0
    update_empty: int = 0
    update_no_rebuild: int = 0
    lb_healthy_panic: int = 0
    max_host_weight: int = 0
    ssl_handshake: int = 0
    ssl_session_reused: int = 0
    ssl_connection_error: int = 0
    ssl_fail_verify_error: int = 0
    ssl_fail_verify_san: int = 0
    ssl_fail_verify_cert_hash: int = 0
    rq_xx: list[int] = field(default_factory=lambda: [0] * 6)
    rq_codes: dict[int, int] = field(default_factory=dict)
    rq_time: Histogram = field(default_factory=Histogram)
    cx_connect_ms: Histogram = field(default_factory=Histogram)
    http2: Http2Stats | None = None
    health_check: HealthCheckStats | None = None

    def http2_stats(self) -> Http2Stats:
        """``cluster.<name>.http2.``, from now on there."""
        if self.http2 is None:
            self.http2 = Http2Stats()
        return self.http2


@dataclass(slots=True, eq=False)
class RouteStats:
    """Per route: ``vhost.<virtual host>.route.<route>.upstream_rq_*``."""

    rq_total: int = 0
    rq_xx: list[int] = field(default_factory=lambda: [0] * 6)


@dataclass(slots=True, eq=False)
class OverloadActionStats:
    """``overload.<action>.*``"""

    active: int = 0
    scale_percent: int = 0
    shrink_count: int = 0


@dataclass(slots=True, eq=False)
class OverloadMonitorStats:
    """``overload.<monitor>.*``; ``pressure`` in percent."""

    pressure: int = 0
    failed_updates: int = 0


@dataclass(slots=True, eq=False)
class OverloadStats:
    """``overload.*``"""

    actions: dict[str, OverloadActionStats] = field(default_factory=dict)
    monitors: dict[str, OverloadMonitorStats] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class ConnectionLimitStats:
    """``connection_limit.<stat_prefix>.*``"""

    active_connections: int = 0
    limited_connections: int = 0


@dataclass(slots=True, eq=False)
class ServerStats:
    """``server.*``: what the process holds now, renewed about once a second.

    ``concurrency`` is the number of workers, ``worker_restarts`` how many were replaced because they had died.

    The ``memory_*`` ones, ``total_connections`` and ``uptime`` are Envoy's; the others are what must be back at the
    start when a load is over.
    """

    concurrency: int = 0
    worker_restarts: int = 0
    uptime: int = 0
    memory_physical_size: int = 0
    total_connections: int = 0
    open_descriptors: int = 0
    tasks: int = 0
    exchanges: int = 0
    upstream_connections: int = 0
    upstream_waiting: int = 0
