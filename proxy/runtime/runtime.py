"""The compiled configuration as one read-only snapshot.

A request takes ``hub.current`` once and keeps what it found; nothing here changes afterwards, apart from counters and
the hosts of clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxy.cluster.cluster import Cluster
from proxy.filters.connection_limit import ConnectionLimiter
from proxy.model.address import SocketAddress
from proxy.model.config import Config
from proxy.model.connection import ConnectionInfo
from proxy.model.exchange import Exchange
from proxy.model.listener import (
    FilterChain,
    HttpConnectionManager,
    HttpInspector,
    Listener,
    ProxyProtocol,
    TcpProxy,
    TlsInspector,
)
from proxy.model.reply import Denied, Reply
from proxy.model.stats import Http2Stats, HttpStats, ListenerStats, TcpStats
from proxy.model.tls import DownstreamTls
from proxy.observe.access_log import AccessLogWriter
from proxy.observe.store import StatStore
from proxy.route.edits import HeaderEdits
from proxy.route.match import RouteTable
from proxy.runtime.entry import CompiledTable, RouteEntry, Target

NetworkFilter = Callable[[ConnectionInfo], Denied | None]
HttpFilter = Callable[[Exchange], Reply | None]
RewriteReply = Callable[[Exchange, Reply], tuple[Reply, HeaderEdits | None]]


@dataclass(frozen=True, slots=True, eq=False)
class HttpRuntime:
    """A compiled ``HttpConnectionManager``.

    ``normalize(target)`` gives the request target to match, judge and forward (path and query), or the reply that
    refuses it. ``forwarded_client_cert(connection, received)`` gives the ``x-forwarded-client-cert`` value to send
    upstream, ``None`` = none; the received header is always left out. ``filters`` run in order on the exchange, after
    its route was found; the first reply ends it. The rest of the options is read from ``config`` (Envoy's names);
    those read for each request are attributes here. ``rewrite_reply`` is for ``local_reply_config``: it takes the
    proxy's own answer and gives the one to send, and further edits of its head. ``http2_stats`` is one object for all.
    """

    config: HttpConnectionManager
    table: RouteTable[RouteEntry]
    filters: tuple[HttpFilter, ...]
    stats: HttpStats
    http2_stats: Http2Stats
    access_logs: tuple[AccessLogWriter, ...]
    normalize: Callable[[bytes], bytes | Reply]
    forwarded_client_cert: Callable[[ConnectionInfo, bytes | None], bytes | None]
    server_header: bytes
    via_header: bytes
    max_request_headers_bytes: int
    max_headers_count: int
    buffer_limit: int
    stream_idle_timeout: float
    request_timeout: float
    request_headers_timeout: float
    idle_timeout: float
    upgrade_types: frozenset[bytes]
    no_route: Reply
    reject_underscores: bool = False
    rewrite_reply: RewriteReply | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TcpRuntime:
    """A compiled ``TcpProxy``. ``choose()`` gives the cluster of one connection, one of ``clusters``.

    ``max_duration()`` gives the seconds that a connection may last, ``back_off(n)`` those before the connection attempt
    after ``n`` failures.
    """

    config: TcpProxy
    choose: Callable[[], Target]
    stats: TcpStats
    access_logs: tuple[AccessLogWriter, ...]
    idle_timeout: float
    max_connect_attempts: int
    max_duration: Callable[[], float] | None
    back_off: Callable[[int], float] | None
    connect_on_data: bool
    max_early_data: int
    log_interval: float
    log_on_connected: bool
    clusters: tuple[tuple[str, Cluster | None], ...]


@dataclass(frozen=True, slots=True, eq=False)
class FilterChainRuntime:
    """A compiled filter chain; exactly one of ``http`` and ``tcp`` is set. ``network_filters`` run after the TLS
    handshake and before anything is read or relayed; ``connection_limits`` before the handshake."""

    name: str
    listener: str
    config: FilterChain
    tls: DownstreamTls | None
    network_filters: tuple[NetworkFilter, ...]
    http: HttpRuntime | None
    tcp: TcpRuntime | None
    connection_limits: tuple[ConnectionLimiter, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ListenerRuntime:
    """A compiled listener. ``find_chain`` needs ``local``, ``remote``, ``sni``, ``transport_protocol`` and
    ``alpn_offered`` of the connection; ``None`` = close it (``no_filter_chain_match``, flag ``NR``).
    ``inspections`` are the listener filters that read the first bytes before that, in their order."""

    name: str
    config: Listener
    find_chain: Callable[[ConnectionInfo], FilterChainRuntime | None]
    chains: tuple[FilterChainRuntime, ...]
    inspections: tuple[TlsInspector | HttpInspector | ProxyProtocol, ...]
    original_dst: bool
    use_original_dst: bool
    stats: ListenerStats
    access_logs: tuple[AccessLogWriter, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """Everything compiled.

    ``warming`` names the listeners that wait for their route configuration. ``commit`` is run once by the hub.
    ``tables`` is for the next compilation.
    """

    version: str
    config: Config
    listeners: Mapping[str, ListenerRuntime]
    clusters: Mapping[str, Cluster]
    stats: StatStore
    warming: frozenset[str] = frozenset()
    commit: tuple[Callable[[], None], ...] = ()
    handoffs: Mapping[tuple[str, int], ListenerRuntime] = field(default_factory=dict)
    tables: Mapping[str, CompiledTable] = field(default_factory=dict)

    def handoff(self, address: str, port: int) -> ListenerRuntime | None:
        """Which ``bind_to_port: false`` listener takes a connection that was dialled to ``address``:``port``.

        The exact address wins over the wildcard of its family; ``None`` = the accepting listener keeps it.
        """
        found = self.handoffs.get((address, port))
        if found is None:
            found = self.handoffs.get(("::" if ":" in address else "0.0.0.0", port))
        return found

    def rebind(self, chain: FilterChainRuntime, connection: ConnectionInfo) -> FilterChainRuntime | None:
        """The chain that serves the next request of a connection accepted under an earlier snapshot.

        ``None``: the connection must be drained, because its listener is gone, it matches no chain now, or the chain it
        matches has other TLS settings or another kind of terminal filter than the one it was accepted under.
        """
        listener = self.listeners.get(chain.listener)
        now = None if listener is None else listener.find_chain(connection)
        if now is None or now.tls != chain.tls or (now.http is None) != (chain.http is None):
            return None
        return now


def bound_addresses(listener: Listener) -> tuple[SocketAddress, ...]:
    """The addresses that the listener's sockets bind; empty for ``bind_to_port: false``."""
    return (listener.address, *listener.additional_addresses) if listener.bind_to_port else ()
