"""Relay one connection to a host of a cluster: its target, tries to connect, timeouts, end, and log lines.

It looks at no byte. Between two plain sockets the kernel moves them (``proxy.tcp.splice``); else they pass through two
``Side`` objects, and at most what one read brings and what a transport's write buffer may hold is in memory for each
direction: a side that does not read stops the other from being read.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.model.connection import ConnectionInfo
from proxy.model.stats import ClusterStats
from proxy.runtime.runtime import TcpRuntime
from proxy.tcp.session import Session
from proxy.tcp.side import Side
from proxy.tcp.splice import Splice, detach
from proxy.upstream.connect import ConnectError, connect, connect_plain
from proxy.upstream.loop_state import LoopState

QUIET: Final = 1.0
"""Seconds of silence after which a relay does not hold up a drain."""
_FLUSH_TIMEOUT: Final = 3600.0
"""Seconds for a peer to take what is left to send, where there is no ``idle_timeout``."""


class Relay:
    """A downstream connection of a ``TcpProxy``; its application is ``client``.

    ``plain``: the client's transport is a bare socket. ``on_closed`` is called once, when it is over.
    """

    __slots__ = (
        "_cluster",
        "_early",
        "_ends",
        "_epoch",
        "_flushed_at",
        "_flushing",
        "_gone",
        "_host",
        "_last",
        "_limit",
        "_on_closed",
        "_plain",
        "_remote",
        "_server",
        "_splice",
        "_task",
        "_tcp",
        "_unsent",
        "client",
        "done",
        "session",
        "state",
    )

    def __init__(
        self,
        state: LoopState,
        connection: ConnectionInfo,
        tcp: TcpRuntime,
        on_closed: Callable[[], None],
        *,
        plain: bool,
        limit: int,
    ) -> None:
        """``limit``: bytes in flight for each direction (``per_connection_buffer_limit_bytes``)."""
        self.state = state
        self.session = Session(connection)
        self.client = Side(self)
        self.done = False
        self._flushing = False
        self._gone = False
        # Whether it is the server that ended it.
        self._remote = False
        self._tcp = tcp
        self._plain = plain
        self._limit = limit
        self._on_closed = on_closed
        self._server: Side | None = None
        self._splice: Splice | None = None
        self._cluster: Cluster | None = None
        self._host: Host | None = None
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None
        self._early = b""
        self._last = self._flushed_at = state.now
        self._unsent = 0
        duration = tcp.max_duration
        self._ends = state.now + duration() if duration is not None else 0.0

    @property
    def busy(self) -> bool:
        """Whether bytes move. There is no moment between two requests here, but silence."""
        return self.state.now - self._last < QUIET

    # What the client's connection says first.

    def opened(self, side: Side) -> None:
        """A side's connection is up."""
        if side is not self.client:
            return
        tcp = self._tcp
        tcp.stats.downstream_cx_total += 1
        self.state.connections.add(self)
        target = tcp.choose()
        cluster = target.cluster
        if cluster is None:
            tcp.stats.downstream_cx_no_route += 1
            self._refuse("NC", "cluster_not_found")
            return
        self.session.target = target
        if not cluster.breaker.try_connection():
            self._refuse("UO", "upstream_cx_overflow")
            return
        self._cluster = cluster
        cluster.stats.upstream_cx_active += 1
        if not tcp.max_early_data:
            # Until there is somebody to give it to, nothing is read.
            side.hold()
        if not tcp.connect_on_data:
            self._task = self.state.loop.create_task(self._connect(cluster))

    # What the two sides say.

    def received(self, side: Side, data: bytes) -> None:
        """Bytes of one side, for the other."""
        server = self._server
        if side is not self.client:
            self.moved(len(data), upstream=False)
            self.client.write(data)
        elif server is not None:
            self.moved(len(data), upstream=True)
            server.write(data)
        elif not self.done:
            # Early data as configured, or what the loop had read before reading was paused.
            self._early += data
            tcp = self._tcp
            if len(self._early) >= tcp.max_early_data:
                self.client.hold()
            if tcp.connect_on_data and self._task is None:
                assert self._cluster is not None
                self._task = self.state.loop.create_task(self._connect(self._cluster))

    def moved(self, size: int, *, upstream: bool) -> None:
        """So many bytes went that way."""
        session = self.session
        self._last = self.state.now
        assert self._cluster is not None
        cluster = self._cluster.stats
        if upstream:
            session.bytes_received += size
            self._tcp.stats.downstream_cx_rx_bytes_total += size
            cluster.upstream_cx_tx_bytes_total += size
            return
        cluster.upstream_cx_rx_bytes_total += size
        if not session.first_upstream_rx:
            session.first_upstream_rx = time.monotonic()
        session.bytes_sent += size
        self._tcp.stats.downstream_cx_tx_bytes_total += size

    def stalled(self, *, upstream: bool, now: bool) -> None:
        """A side takes no more for now (or takes more again): the other is not read meanwhile."""
        if upstream:
            stats = self._tcp.stats
            stats.downstream_flow_control_paused_reading_total += now
            stats.downstream_flow_control_resumed_reading_total += not now
        elif self._cluster is not None:
            cluster = self._cluster.stats
            cluster.upstream_flow_control_paused_reading_total += now
            cluster.upstream_flow_control_resumed_reading_total += not now

    def side_ended(self, side: Side) -> bool:
        """One side sends no more; whether its connection stays, to be written to."""
        server = self._server
        if server is None:
            if self._task is None:
                # It went before it said anything to connect for.
                self._finish()
            return not self.done
        if server.ended and self.client.ended:
            self._remote = side is server
            self._finish()
            return False
        (server if side is self.client else self.client).write_eof()
        return not self.done

    def side_lost(self, side: Side, exc: Exception | None) -> None:
        """One side is gone; what it sent still reaches the other, unless it was reset."""
        server = self._server
        if not self.done:
            self._remote = side is server
            if side is self.client and server is None:
                self.session.add_flag("DC")
            elif isinstance(exc, ConnectionError) and server is not None:
                if side is server:
                    self.session.add_flag("UR")
                    self.client.reset()
                else:
                    server.reset()
            self._finish()
        self._leave_if_gone()

    def side_full(self, side: Side) -> None:
        if side is not self.client:
            self.stalled(upstream=True, now=True)
            self.client.hold()
        elif self._server is not None:
            self.stalled(upstream=False, now=True)
            self._server.hold()

    def side_free(self, side: Side) -> None:
        self._last = self.state.now
        if side is not self.client:
            self.stalled(upstream=True, now=False)
            self.client.free()
        elif self._server is not None:
            self.stalled(upstream=False, now=False)
            self._server.free()

    # What the splice says.

    def splice_ended(self, *, upstream_last: bool) -> None:
        """Both directions have ended."""
        self._remote = not upstream_last
        self._finish()

    def splice_reset(self, *, by_client: bool) -> None:
        """One side was reset, and so was the other."""
        if not by_client:
            self._remote = True
            self.session.add_flag("UR")
        self._finish()

    # What the worker asks for.

    def sweep(self, now: float) -> None:
        """Look at the timeouts."""
        tcp = self._tcp
        if self.done:
            self._sweep_unsent(now)
            return
        if self._ends and now >= self._ends:
            tcp.stats.max_downstream_connection_duration += 1
            self.session.add_flag("DT")
            self._finish(flush=False)
        elif tcp.idle_timeout and self._task is None and now - self._last >= tcp.idle_timeout:
            # While it connects it is the connect timeout that counts.
            tcp.stats.idle_timeout += 1
            self._finish(flush=False)
        elif tcp.log_interval and now - self._flushed_at >= tcp.log_interval:
            self._flushed_at = now
            self._log("TcpPeriodic")
        host, cluster = self._host, self._cluster
        if (
            host is not None
            and host.epoch != self._epoch
            and cluster is not None
            and cluster.config.close_connections_on_host_health_failure
        ):
            self._finish(flush=True)

    def drain(self) -> None:
        """It goes on, as in Envoy; how long it is waited for, ``busy`` says."""

    def runtime_changed(self) -> None:
        """It keeps the cluster that it was accepted for."""

    def abort(self) -> None:
        self._finish(flush=False)
        self.client.abort()
        if self._server is not None:
            self._server.abort()

    # Its own way.

    async def _connect(self, cluster: Cluster) -> None:
        session = self.session
        tcp = self._tcp
        ends = session.connection.remote, session.connection.local
        failed: Host | None = None
        failure = ConnectError("remote_connection_failure", "")
        for attempt in range(tcp.max_connect_attempts):
            if attempt and tcp.back_off is not None:
                await asyncio.sleep(tcp.back_off(attempt))
            host = self._pick(cluster, failed)
            if host is None:
                cluster.stats.upstream_cx_none_healthy += 1
                self._refuse("UH", "no_healthy_upstream")
                return
            session.host = host
            session.attempts += 1
            stats = cluster.stats
            stats.upstream_cx_total += 1
            stats.upstream_rq_pending_total += 1
            try:
                if self._plain and host.tls is None:
                    self._join_plain(host, await connect_plain(self.state, cluster, host, ends))
                else:
                    self._join(host, await connect(self.state, cluster, host, lambda alpn: Side(self), ends))
            except ConnectError as error:
                host.rq_error += 1
                stats.upstream_cx_destroy += 1
                if error.reason == "remote_connection_failure":
                    stats.upstream_cx_destroy_remote += 1
                else:
                    stats.upstream_cx_destroy_local += 1
                stats.upstream_rq_pending_failure_eject += 1
                failed, failure = host, error
            else:
                return
        if failure.reason != "connection_timeout":
            session.upstream_failure_reason = str(failure).replace(" ", "_")
        session.add_flag("UF")
        self._refuse("URX", f"upstream_reset_before_response_started{{{failure.reason}}}")

    def _pick(self, cluster: Cluster, failed: Host | None) -> Host | None:
        if cluster.config.type != "ORIGINAL_DST":
            return cluster.pick(failed)
        connection = self.session.connection
        # Without an original destination the only address is the proxy's own.
        return cluster.original_dst_host(*connection.local) if connection.restored else None

    def _joined(self, host: Host, sockname: tuple[str, int] | None) -> None:
        """There is a connection to ``host``."""
        session = self.session
        self._task = None
        self._host = host
        self._epoch = host.epoch
        assert self._cluster is not None
        self._cluster.stats.upstream_rq_total += 1
        host.connect_failures = 0
        host.cx_active += 1
        host.active += 1
        self._last = self.state.now
        session.first_upstream_tx = time.monotonic()
        session.upstream_local = (sockname[0], sockname[1]) if sockname else None
        if self._tcp.log_on_connected:
            self._log("TcpUpstreamConnected")

    def _join_plain(self, host: Host, server: socket.socket) -> None:
        """Join two bare sockets. Raises ``ConnectError`` if the client's cannot be had."""
        client = self.client
        assert client.transport is not None
        client.hold()
        sock = None if client.lost else detach(client.transport)
        if sock is None:
            server.close()
            raise ConnectError("local_connection_failure", "no descriptor for the client's socket")
        client.lost = True
        self._joined(host, server.getsockname())
        early = self._early
        self._early = b""
        if early:
            self.moved(len(early), upstream=True)
        self._splice = Splice(self, self.state, sock, server, self._limit)
        self._splice.start(early)

    def _join(self, host: Host, server: Side) -> None:
        assert server.transport is not None
        self._server = server
        self.session.upstream_principal = server.principal
        self._joined(host, server.transport.get_extra_info("sockname"))
        if server.lost or (server.ended and self.client.ended):
            self._finish()
            return
        if self._early:
            self.moved(len(self._early), upstream=True)
            server.write(self._early)
            self._early = b""
        if self.client.ended:
            server.write_eof()
        if server.ended:
            self.client.write_eof()
        self.client.free()

    def _refuse(self, flag: str, details: str) -> None:
        """There is nobody to relay to. What the client has sent was not heard: it is reset then."""
        self.session.add_flag(flag)
        self.session.details = details
        if self._early:
            self.client.reset()
        self._finish(flush=False)

    def _finish(self, *, flush: bool = True) -> None:
        """The one way out: close both sides, give everything back, count, log.

        ``flush``: what is still to be written is sent first, within the idle timeout.
        """
        if self.done:
            return
        self.done = True
        task = self._task
        if task is not None and task is not asyncio.current_task(self.state.loop):
            task.cancel()
        self._task = None
        self._early = b""
        if self._splice is not None:
            self._splice.close()
        for side in (self.client, self._server):
            if side is not None:
                side.free()
                if flush or not side.unsent:
                    side.close()
                else:
                    side.abort()
        if self._host is not None:
            self._host.cx_active -= 1
            self._host.active -= 1
        cluster = self._cluster
        if cluster is not None:
            cluster.breaker.release_connection()
            cluster.stats.upstream_cx_active -= 1
            if self._host is not None:
                self._count_end(cluster.stats)
        if self._server is not None and self._server.unsent:
            self._tcp.stats.upstream_flush_total += 1
            self._tcp.stats.upstream_flush_active += 1
            self._flushing = True
        self._log("TcpConnectionEnd")
        self._leave_if_gone()

    def _count_end(self, stats: ClusterStats) -> None:
        stats.upstream_cx_destroy += 1
        stats.upstream_cx_destroy_with_active_rq += 1
        if self._remote:
            stats.upstream_cx_destroy_remote += 1
            stats.upstream_cx_destroy_remote_with_active_rq += 1
        else:
            stats.upstream_cx_destroy_local += 1
            stats.upstream_cx_destroy_local_with_active_rq += 1

    def _sweep_unsent(self, now: float) -> None:
        """It is over, but for bytes that a peer has not taken: not for ever."""
        server = self._server
        unsent = self.client.unsent + (0 if server is None else server.unsent)
        if unsent != self._unsent:
            self._unsent = unsent
            self._last = now
        elif now - self._last >= (self._tcp.idle_timeout or _FLUSH_TIMEOUT):
            self._tcp.stats.idle_timeout += 1
            self.client.abort()
            if server is not None:
                server.abort()

    def _leave_if_gone(self) -> None:
        """Forget it when both connections are closed."""
        server = self._server
        if not self.done or self._gone or not self.client.lost or not (server is None or server.lost):
            return
        self._gone = True
        if self._flushing:
            self._tcp.stats.upstream_flush_active -= 1
        self.state.connections.discard(self)
        self._on_closed()

    def _log(self, kind: str) -> None:
        session = self.session
        session.log_type = kind
        session.end = time.monotonic()
        for log in self._tcp.access_logs:
            log.log(session)
