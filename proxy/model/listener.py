"""Listeners, filter chains and network filters (``config.listener.v3`` and its filters)."""

from __future__ import annotations

from dataclasses import field
from typing import Literal, TypeAlias

from proxy.model.access_log import FileAccessLog
from proxy.model.address import CidrRange, SocketAddress
from proxy.model.frozen import dataclass
from proxy.model.http2 import HTTP2_DEFAULTS, PREMATURE_RESETS, Http2Options, PrematureResets
from proxy.model.local_reply import LocalReplyConfig
from proxy.model.rbac import Rbac
from proxy.model.route import RouteConfiguration, WeightedCluster
from proxy.model.tls import DownstreamTls

ClientCertDetails = Literal[
    "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"
]
SlashesAction = Literal["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]


@dataclass(frozen=True, slots=True)
class TlsInspector:
    """``TlsInspector``. In ``disabled_ports`` bit ``n`` is set where connections to port ``n`` are not looked at
    (``ListenerFilter.filter_disabled``); so also below."""

    max_client_hello_size: int = 16 * 1024
    close_connection_on_client_hello_parsing_errors: bool = False
    disabled_ports: int = 0


@dataclass(frozen=True, slots=True)
class HttpInspector:
    """``HttpInspector``."""

    disabled_ports: int = 0


@dataclass(frozen=True, slots=True)
class ProxyProtocol:
    """``ProxyProtocol``. ``disallowed_versions`` holds 1 and 2."""

    allow_requests_without_proxy_protocol: bool = False
    disallowed_versions: frozenset[int] = frozenset()
    stat_prefix: str = ""
    disabled_ports: int = 0


ListenerFilter: TypeAlias = (
    Literal["original_dst", "tls_inspector", "http_inspector"] | TlsInspector | HttpInspector | ProxyProtocol
)
"""A bare name is that filter with its defaults."""


@dataclass(frozen=True, slots=True)
class SetClientCertDetails:
    """Which elements ``x-forwarded-client-cert`` has beside ``By`` and ``Hash``."""

    subject: bool = False
    uri: bool = False
    dns: bool = False
    cert: bool = False
    chain: bool = False


@dataclass(frozen=True, slots=True)
class HttpConnectionManager:
    """``HttpConnectionManager``. ``route`` is a table, or the name of one that comes by RDS.

    ``rbac`` holds the RBAC filters before the router, in order. Times in seconds, 0 = off.
    """

    stat_prefix: str
    route: RouteConfiguration | str
    codec_type: Literal["AUTO", "HTTP1", "HTTP2"] = "AUTO"
    http2: Http2Options = HTTP2_DEFAULTS
    rbac: tuple[Rbac, ...] = ()
    access_log: tuple[FileAccessLog, ...] = ()
    generate_request_id: bool = True
    preserve_external_request_id: bool = False
    always_set_request_id_in_response: bool = False
    use_remote_address: bool = False
    skip_xff_append: bool = False
    xff_num_trusted_hops: int = 0
    append_x_forwarded_port: bool = False
    internal_cidr_ranges: tuple[CidrRange, ...] = ()
    via: str = ""
    server_name: str = "envoy"
    server_header_transformation: Literal["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"] = "OVERWRITE"
    forward_client_cert_details: ClientCertDetails = "SANITIZE"
    set_current_client_cert_details: SetClientCertDetails = field(default_factory=SetClientCertDetails)
    normalize_path: bool = False
    merge_slashes: bool = False
    path_with_escaped_slashes_action: SlashesAction = "KEEP_UNCHANGED"
    max_request_headers_kb: int = 60
    max_headers_count: int = 100
    stream_idle_timeout: float = 300.0
    request_timeout: float = 0.0
    request_headers_timeout: float = 0.0
    idle_timeout: float = 3600.0
    max_connection_duration: float = 0.0
    max_requests_per_connection: int = 0
    drain_timeout: float = 5.0
    delayed_close_timeout: float = 1.0
    upgrade_types: tuple[str, ...] = ()
    accept_http_10: bool = False
    allow_custom_methods: bool = False
    suppress_envoy_headers: bool = False
    local_reply: LocalReplyConfig | None = None
    headers_with_underscores_action: Literal["ALLOW", "REJECT_REQUEST", "DROP_HEADER"] = "ALLOW"
    strip_port: Literal["NO", "MATCHING", "ANY"] = "NO"
    strip_trailing_host_dot: bool = False
    default_host_for_http_10: str = ""
    proxy_100_continue: bool = False
    max_stream_duration: float = 0.0
    premature_resets: PrematureResets = PREMATURE_RESETS


@dataclass(frozen=True, slots=True)
class TcpProxy:
    """``TcpProxy``. Times in seconds, 0 = off; the jitter is a percentage.

    ``back_off`` is base and maximum between connection attempts. ``connect_on_data``: the upstream connection waits for
    the first byte (``upstream_connect_mode`` ON_DOWNSTREAM_DATA).
    """

    stat_prefix: str
    clusters: tuple[WeightedCluster, ...]
    access_log: tuple[FileAccessLog, ...] = ()
    idle_timeout: float = 3600.0
    max_connect_attempts: int = 1
    back_off: tuple[float, float] | None = None
    max_downstream_connection_duration: float = 0.0
    max_downstream_connection_duration_jitter: float = 0.0
    connect_on_data: bool = False
    max_early_data_bytes: int = 0
    access_log_flush_interval: float = 0.0
    flush_access_log_on_connected: bool = False


TerminalFilter: TypeAlias = HttpConnectionManager | TcpProxy


@dataclass(frozen=True, slots=True)
class FilterChainMatch:
    """``FilterChainMatch``; an empty part matches everything. Order of evaluation as Envoy documents it."""

    destination_port: int | None = None
    prefix_ranges: tuple[CidrRange, ...] = ()
    server_names: tuple[str, ...] = ()
    transport_protocol: Literal["", "raw_buffer", "tls"] = ""
    application_protocols: tuple[str, ...] = ()
    direct_source_prefix_ranges: tuple[CidrRange, ...] = ()
    source_prefix_ranges: tuple[CidrRange, ...] = ()
    source_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """``ConnectionLimit``. Who is too many is closed after ``delay`` seconds, unread."""

    stat_prefix: str
    max_connections: int
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class FilterChain:
    """Connection limits and network RBAC filters, then one terminal filter."""

    name: str
    terminal: TerminalFilter
    match: FilterChainMatch = field(default_factory=FilterChainMatch)
    tls: DownstreamTls | None = None
    rbac: tuple[Rbac, ...] = ()
    transport_socket_connect_timeout: float = 0.0
    connection_limits: tuple[ConnectionLimit, ...] = ()

    @property
    def terminal_at(self) -> int:
        """The place of the terminal filter."""
        return len(self.rbac) + len(self.connection_limits)


@dataclass(frozen=True, slots=True)
class Listener:
    """``Listener``. With ``bind_to_port`` false it only takes what a ``use_original_dst`` listener hands over."""

    name: str
    address: SocketAddress
    filter_chains: tuple[FilterChain, ...] = ()
    default_filter_chain: FilterChain | None = None
    additional_addresses: tuple[SocketAddress, ...] = ()
    ipv4_compat: bool = False
    bind_to_port: bool = True
    use_original_dst: bool = False
    listener_filters: tuple[ListenerFilter, ...] = ()
    listener_filters_timeout: float = 15.0
    continue_on_listener_filters_timeout: bool = False
    per_connection_buffer_limit_bytes: int = 1024 * 1024
    tcp_backlog_size: int = 4096
    traffic_direction: Literal["UNSPECIFIED", "INBOUND", "OUTBOUND"] = "UNSPECIFIED"
    access_log: tuple[FileAccessLog, ...] = ()
    stat_prefix: str = ""
