"""The listener filters that read a connection's first bytes, one after the other, before its chain is chosen.

Each is shown everything that has come and was not consumed; only the PROXY protocol's header is ever consumed. What
they find goes into the ``ConnectionInfo``. Nothing here knows the transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.accept.http_inspector import HttpInspector
from proxy.accept.proxy_protocol import ProxyProtocolError, ProxyProtocolReader
from proxy.model import listener as model
from proxy.model.connection import ConnectionInfo
from proxy.model.stats import HttpInspectorStats, ProxyProtocolStats, TlsInspectorStats
from proxy.observe.store import StatStore
from proxy.tls.inspector import InspectionError, Inspector

# Whether a filter is done with what has come. Raises ``FirstBytesError``.
_Look = Callable[[bytearray], bool]


class FirstBytesError(Exception):
    """A listener filter refuses the connection."""


class FirstBytes:
    """What has been read of a connection that has no application yet, and who still looks at it."""

    __slots__ = ("_left", "early")

    def __init__(
        self,
        filters: tuple[model.TlsInspector | model.HttpInspector | model.ProxyProtocol, ...],
        connection: ConnectionInfo,
        stats: StatStore,
    ) -> None:
        self.early = bytearray()
        port = connection.local[1]
        self._left = [
            _look(item, connection, stats)
            for item in filters
            if not (item.disabled_ports and item.disabled_ports >> port & 1)
        ]
        # Taken from the end.
        self._left.reverse()

    @property
    def waiting(self) -> bool:
        """Whether a filter wants to see more."""
        return bool(self._left)

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether all filters are done. Raises ``FirstBytesError``."""
        self.early += data
        left = self._left
        while left:
            # A filter whose turn comes with nothing left to see waits for the next bytes.
            if not self.early or not left[-1](self.early):
                return False
            left.pop()
        return True

    def take(self) -> bytes:
        """What was read to look at, which is the first that the application gets."""
        early = bytes(self.early)
        self.early = bytearray()
        return early


def _look(
    item: model.TlsInspector | model.HttpInspector | model.ProxyProtocol,
    connection: ConnectionInfo,
    stats: StatStore,
) -> _Look:
    if isinstance(item, model.TlsInspector):
        return _Tls(item, connection, stats.tls_inspector)
    if isinstance(item, model.HttpInspector):
        return _Http(connection, stats.http_inspector)
    return _Proxy(item, connection, stats.proxy_protocol_stats(item.stat_prefix))


class _Tls:
    __slots__ = ("_config", "_connection", "_inspector", "_stats")

    def __init__(
        self, config: model.TlsInspector, connection: ConnectionInfo, stats: TlsInspectorStats
    ) -> None:
        self._config = config
        self._connection = connection
        self._stats = stats
        self._inspector = Inspector(config.max_client_hello_size)

    def __call__(self, early: bytearray) -> bool:
        stats = self._stats
        try:
            found = self._inspector.look(early)
        except InspectionError as error:
            stats.client_hello_too_large += error.too_large
            if error.too_large or self._config.close_connection_on_client_hello_parsing_errors:
                raise FirstBytesError(f"tls_inspector: {error}") from error
            # As in Envoy a ClientHello that nobody could understand is somebody else's protocol.
            stats.tls_not_found += 1
            return True
        if found is None:
            return False
        if found.transport_protocol != "tls":
            if self._config.close_connection_on_client_hello_parsing_errors:
                raise FirstBytesError("tls_inspector: not TLS")
            stats.tls_not_found += 1
            return True
        connection = self._connection
        connection.transport_protocol = "tls"
        connection.sni = found.sni
        connection.alpn_offered = found.alpn
        stats.tls_found += 1
        if found.sni:
            stats.sni_found += 1
        else:
            stats.sni_not_found += 1
        if found.alpn:
            stats.alpn_found += 1
        else:
            stats.alpn_not_found += 1
        return True


_COUNTERS: Final = {
    "http/1.0": "http10_found",
    "http/1.1": "http11_found",
    "h2c": "http2_found",
    "": "http_not_found",
}


class _Http:
    __slots__ = ("_connection", "_inspector", "_stats")

    def __init__(self, connection: ConnectionInfo, stats: HttpInspectorStats) -> None:
        self._connection = connection
        self._stats = stats
        self._inspector = HttpInspector()

    def __call__(self, early: bytearray) -> bool:
        connection = self._connection
        if connection.transport_protocol == "tls":
            return True
        found = self._inspector.look(early)
        if found is None:
            return False
        counter = _COUNTERS[found]
        setattr(self._stats, counter, getattr(self._stats, counter) + 1)
        if found:
            connection.alpn_offered = (found,)
        return True


class _Proxy:
    __slots__ = ("_config", "_connection", "_reader", "_stats")

    def __init__(
        self, config: model.ProxyProtocol, connection: ConnectionInfo, stats: ProxyProtocolStats
    ) -> None:
        self._config = config
        self._connection = connection
        self._stats = stats
        self._reader = ProxyProtocolReader(optional=config.allow_requests_without_proxy_protocol)

    def __call__(self, early: bytearray) -> bool:
        stats = self._stats
        try:
            header = self._reader.look(early)
        except ProxyProtocolError as error:
            if error.version:
                stats.error[error.version] += 1
            else:
                stats.not_found_disallowed += 1
            raise FirstBytesError(f"proxy_protocol: {error}") from error
        if header is None:
            return False
        if not header.version:
            stats.not_found_allowed += 1
            return True
        if header.version in self._config.disallowed_versions:
            stats.disallowed[header.version] += 1
            raise FirstBytesError(f"proxy_protocol: version {header.version} is disallowed")
        stats.found[header.version] += 1
        del early[: header.size]
        connection = self._connection
        if header.source is not None and header.destination is not None:
            connection.remote = header.source
            connection.restored = connection.restored or header.destination != connection.local
            connection.local = header.destination
        return True
