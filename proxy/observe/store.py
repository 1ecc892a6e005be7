"""Where statistics live between configurations: one object for each name, made when first asked for."""

from __future__ import annotations

from proxy.model.stats import (
    AccessLogStats,
    ConnectionLimitStats,
    Http2Stats,
    HttpInspectorStats,
    HttpStats,
    ListenerStats,
    OverloadStats,
    ProxyProtocolStats,
    RbacStats,
    RouteStats,
    ServerStats,
    SpliceStats,
    TcpStats,
    TlsInspectorStats,
)


class StatStore:
    """All statistics but those of clusters (a cluster carries its own). Keys come from configuration only, so their
    number is bounded by it."""

    __slots__ = (
        "access_log",
        "connection_limit",
        "http",
        "http2",
        "http_inspector",
        "listener",
        "overload",
        "proxy_protocol",
        "rbac",
        "route",
        "server",
        "splice",
        "tcp",
        "tls_inspector",
    )

    def __init__(self, access_log: AccessLogStats | None = None) -> None:
        self.http: dict[str, HttpStats] = {}
        self.http2 = Http2Stats()
        self.tcp: dict[str, TcpStats] = {}
        self.listener: dict[str, ListenerStats] = {}
        self.rbac: dict[str, RbacStats] = {}
        self.route: dict[tuple[str, str], RouteStats] = {}
        self.connection_limit: dict[str, ConnectionLimitStats] = {}
        self.http_inspector = HttpInspectorStats()
        self.overload = OverloadStats()
        self.proxy_protocol: dict[str, ProxyProtocolStats] = {}
        self.server = ServerStats()
        self.splice = SpliceStats()
        self.tls_inspector = TlsInspectorStats()
        self.access_log = AccessLogStats() if access_log is None else access_log

    def http_stats(self, prefix: str) -> HttpStats:
        """``http.<prefix>.``"""
        return self.http.setdefault(prefix, HttpStats())

    def tcp_stats(self, prefix: str) -> TcpStats:
        """``tcp.<prefix>.``"""
        return self.tcp.setdefault(prefix, TcpStats())

    def listener_stats(self, address: str) -> ListenerStats:
        """``listener.<address>.``, with ``_`` for the colons."""
        return self.listener.setdefault(address, ListenerStats())

    def proxy_protocol_stats(self, prefix: str) -> ProxyProtocolStats:
        """``proxy_proto.<prefix>.``, or ``proxy_proto.`` without a prefix."""
        return self.proxy_protocol.setdefault(prefix, ProxyProtocolStats())

    def rbac_stats(self, prefix: str) -> RbacStats:
        """``<prefix>allowed`` and so on: ``prefix`` ends in a dot."""
        return self.rbac.setdefault(prefix, RbacStats())

    def connection_limit_stats(self, prefix: str) -> ConnectionLimitStats:
        """``connection_limit.<prefix>.``"""
        return self.connection_limit.setdefault(prefix, ConnectionLimitStats())

    def route_stats(self, virtual_host: str, route: str) -> RouteStats:
        """``vhost.<virtual host>.route.<route>.``"""
        return self.route.setdefault((virtual_host, route), RouteStats())
