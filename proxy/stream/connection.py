"""What client connections of both versions of HTTP have in common: who is there, under which rules, and how it ends.

It reads and writes no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from proxy.model.connection import ConnectionInfo
from proxy.runtime.runtime import FilterChainRuntime, HttpRuntime, Runtime
from proxy.stream.edge import HttpEdge
from proxy.tls.conn import Transport
from proxy.upstream.loop_state import LoopState
from proxy.upstream.pool import Pool


class ClientConnection(asyncio.Protocol):
    """One client connection. ``added``: fields that every request on it gets that has none of them. ``keep``: whether
    it takes another request.

    ``on_closed`` is called once, when the connection is gone.
    """

    __slots__ = (
        "_certificate_line",
        "_chain",
        "_closed",
        "_closing_size",
        "_cx_stats",
        "_http",
        "_lingering",
        "_on_closed",
        "_runtime",
        "_since",
        "_started",
        "_transport",
        "_until",
        "added",
        "connection",
        "edge",
        "keep",
        "pool",
        "proto_line",
        "state",
    )

    def __init__(
        self,
        state: LoopState,
        pool: Pool,
        connection: ConnectionInfo,
        runtime: Runtime,
        chain: FilterChainRuntime,
        edge: HttpEdge,
        on_closed: Callable[[], None],
    ) -> None:
        """``runtime``: the snapshot that ``chain`` is of, which a swap may have replaced during the handshake."""
        http = chain.http
        assert http is not None
        self.state = state
        self.pool = pool
        self.connection = connection
        self.edge = edge
        self.keep = True
        scheme = b"https" if connection.transport_protocol == "tls" else b"http"
        self.proto_line = b"x-forwarded-proto: " + scheme + b"\r\n"
        self.added = {b"x-forwarded-proto": scheme}
        self._chain = chain
        self._http: HttpRuntime = http
        self._cx_stats = http.stats
        self._runtime = runtime
        self._on_closed = on_closed
        self._lingering = False
        self._closed = False
        self._closing_size = -1
        self._until = 0.0
        self._since = self._started = state.now
        self._certificate_line: bytes | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport: Transport = transport
        stats = self._cx_stats
        stats.downstream_cx_total += 1
        stats.downstream_cx_active += 1
        if self.connection.transport_protocol == "tls":
            stats.downstream_cx_ssl_total += 1
            stats.downstream_cx_ssl_active += 1
        self.state.connections.add(self)

    @property
    def busy(self) -> bool:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError

    def runtime_changed(self) -> None:
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._http.stats.downstream_cx_tx_bytes_total += len(data)
            self._transport.write(data)

    def client_certificate_line(self, received: bytes | None) -> bytes:
        """The ``x-forwarded-client-cert`` line for the upstream, "" = none."""
        line = self._certificate_line
        if line is None or received is not None:
            value = self._http.forwarded_client_cert(self.connection, received)
            line = b"" if value is None else b"x-forwarded-client-cert: " + value + b"\r\n"
            if received is None:
                self._certificate_line = line
                if value is not None:
                    self.added[b"x-forwarded-client-cert"] = value
        return line

    def close(self) -> None:
        """Close when everything written is sent."""
        if not self._closed and self._closing_size < 0:
            self._closing_size = 1 << 62
            self._until = self.state.now + (self._http.config.delayed_close_timeout or 1.0)
            self._lingering = True
            self._transport.close()

    def abort(self) -> None:
        """Close now; what was not sent is lost."""
        if not self._closed:
            self._transport.abort()
            self._gone(remote=False)

    def _gone(self, *, remote: bool) -> None:
        """The connection is lost; called for each way out, does its work once."""
        raise NotImplementedError

    def _leave(self, *, remote: bool) -> None:
        """Count the end of the connection."""
        stats = self._cx_stats
        stats.downstream_cx_active -= 1
        stats.downstream_cx_destroy += 1
        stats.downstream_cx_destroy_remote += remote
        stats.downstream_cx_destroy_local += not remote
        if self.connection.transport_protocol == "tls":
            stats.downstream_cx_ssl_active -= 1
        self.state.connections.discard(self)

    def _linger(self) -> None:
        """Write no more, and wait for the client to close (Envoy's ``delayed_close_timeout``): a reset would take what
        was written from it, if it is still sending."""
        self._lingering = True
        self._until = self.state.now + (self._http.config.delayed_close_timeout or 1.0)
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _rebind(self) -> bool:
        """Follow a configuration swap; false if this connection may not go on."""
        runtime = self.state.hub.current
        self._runtime = runtime
        chain = runtime.rebind(self._chain, self.connection)
        if chain is None:
            # Its listener is gone: it may finish. Its listener goes on with other rules for it: it may not.
            self.keep = False
            return self.connection.listener not in runtime.listeners
        if chain is not self._chain:
            assert chain.http is not None
            for judge in chain.network_filters:
                if judge(self.connection) is not None:
                    return False
            self._chain = chain
            self._http = chain.http
            self.edge = self.state.edge(chain.http, HttpEdge)
            self._certificate_line = None
            self.added.pop(b"x-forwarded-client-cert", None)
        return True

    def _sweep_closing(self, now: float) -> None:
        if now < self._until or self._closed:
            return
        size = self._transport.get_write_buffer_size()
        if 0 < size < self._closing_size:
            # The client is slow but reads: it gets another period.
            self._closing_size = size
            self._until = now + (self._http.config.delayed_close_timeout or 1.0)
            return
        self._http.stats.downstream_cx_delayed_close_timeout += 1
        self.abort()
