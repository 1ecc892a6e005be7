"""Relay one connection to a host of a cluster: both directions, half-closes, backpressure, idle timeout, log line.

It looks at no byte. At most what one read brings and what a transport's write buffer may hold is in memory for each
direction: a side that does not read stops the other from being read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.model.connection import ConnectionInfo
from proxy.runtime.runtime import TcpRuntime
from proxy.tcp.session import Session
from proxy.tls.conn import Transport
from proxy.upstream.connect import ConnectError, connect
from proxy.upstream.loop_state import LoopState


class Side(asyncio.BufferedProtocol):
    """One of a relay's two connections. ``ended``: it sends no more; ``lost``: it is gone."""

    __slots__ = ("_held", "_relay", "ended", "lost", "principal", "transport")

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._held = False
        self.ended = False
        self.lost = False
        self.principal = ""
        self.transport: Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._relay.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._relay.state.buffers.read

    def buffer_updated(self, nbytes: int) -> None:
        self._relay.received(self, bytes(self._relay.state.buffers.read[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self._relay.received(self, data)

    def eof_received(self) -> bool:
        self.ended = True
        return self._relay.side_ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.ended = True
        self._relay.side_lost(self)

    def pause_writing(self) -> None:
        self._relay.side_full(self)

    def resume_writing(self) -> None:
        self._relay.side_free(self)

    # What the relay does with it.

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.lost and not self.transport.is_closing():
            self.transport.write(data)

    def write_eof(self) -> None:
        if self.transport is not None and not self.lost and not self.transport.is_closing():
            self.transport.write_eof()

    def hold(self) -> None:
        """Read no more from it for now."""
        if not self._held and not self.lost and self.transport is not None:
            self._held = True
            self.transport.pause_reading()

    def free(self) -> None:
        if self._held and not self.lost and self.transport is not None:
            self._held = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def close(self) -> None:
        if self.transport is not None and not self.lost:
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None and not self.lost:
            self.transport.abort()


class Relay:
    """A downstream connection of a ``TcpProxy``; its application is ``client``.

    ``on_closed`` is called once, when it is over.
    """

    __slots__ = (
        "_cluster",
        "_early",
        "_host",
        "_last",
        "_on_closed",
        "_server",
        "_task",
        "_tcp",
        "client",
        "done",
        "session",
        "state",
    )

    def __init__(
        self, state: LoopState, connection: ConnectionInfo, tcp: TcpRuntime, on_closed: Callable[[], None]
    ) -> None:
        self.state = state
        self.session = Session(connection)
        self.client = Side(self)
        self.done = False
        self._tcp = tcp
        self._on_closed = on_closed
        self._server: Side | None = None
        self._cluster: Cluster | None = None
        self._host: Host | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = b""
        self._last = state.now

    @property
    def busy(self) -> bool:
        return not self.done

    # What the two sides say.

    def opened(self, side: Side) -> None:
        """A side's connection is up."""
        if side is not self.client:
            return
        self._tcp.stats.downstream_cx_total += 1
        self.state.connections.add(self)
        self.session.target = target = self._tcp.choose()
        cluster = target.cluster
        if cluster is None:
            self._tcp.stats.downstream_cx_no_route += 1
            self._refuse("NC", "cluster_not_found")
        elif not cluster.breaker.try_connection():
            self._refuse("UO", "upstream_cx_overflow")
        else:
            self._cluster = cluster
            cluster.stats.upstream_cx_active += 1
            # Until there is somebody to give it to, nothing is read.
            side.hold()
            self._task = self.state.loop.create_task(self._connect(cluster))

    def received(self, side: Side, data: bytes) -> None:
        """Bytes of one side, for the other."""
        size = len(data)
        session = self.session
        self._last = self.state.now
        if side is self.client:
            session.bytes_received += size
            self._tcp.stats.downstream_cx_rx_bytes_total += size
            if self._server is None:
                # The loop may deliver what it had read before reading was paused.
                self._early += data
            else:
                self._server.write(data)
        else:
            if not session.first_upstream_rx:
                session.first_upstream_rx = time.monotonic()
            session.bytes_sent += size
            self._tcp.stats.downstream_cx_tx_bytes_total += size
            self.client.write(data)

    def side_ended(self, side: Side) -> bool:
        """One side sends no more; whether its connection stays, to be written to."""
        server = self._server
        if server is None:
            return not self.done
        if server.ended and self.client.ended:
            self._finish()
            return False
        (server if side is self.client else self.client).write_eof()
        return not self.done

    def side_lost(self, side: Side) -> None:
        """One side is gone; what it sent still reaches the other."""
        if self.done:
            return
        if side is self.client:
            if self._server is None:
                self.session.add_flag("DC")
            self._finish()
        elif side is self._server:
            self._finish()

    def side_full(self, side: Side) -> None:
        """A side takes no more for now: the other is not read."""
        if side is self.client:
            if self._server is not None:
                self._server.hold()
        else:
            self._tcp.stats.downstream_flow_control_paused_reading_total += 1
            self.client.hold()

    def side_free(self, side: Side) -> None:
        if side is self.client:
            if self._server is not None:
                self._server.free()
        else:
            self._tcp.stats.downstream_flow_control_resumed_reading_total += 1
            self.client.free()

    # What the worker asks for.

    def sweep(self, now: float) -> None:
        """End it when neither side has sent anything for ``idle_timeout``."""
        timeout = self._tcp.idle_timeout
        if timeout and now - self._last >= timeout:
            self._tcp.stats.idle_timeout += 1
            self._finish()

    def drain(self) -> None:
        """A relayed connection has no moment at which it is between two requests: it goes on to its end."""

    def runtime_changed(self) -> None:
        """It keeps the cluster that it was accepted for."""

    def abort(self) -> None:
        self.client.abort()
        if self._server is not None:
            self._server.abort()
        self._finish()

    # Its own way.

    async def _connect(self, cluster: Cluster) -> None:
        session = self.session
        failed: Host | None = None
        failure = ConnectError("remote_connection_failure", "")
        for _ in range(max(1, self._tcp.max_connect_attempts)):
            if cluster.config.type == "ORIGINAL_DST":
                host: Host | None = cluster.original_dst_host(*session.connection.local)
            else:
                host = cluster.pick(failed)
            if host is None:
                cluster.stats.upstream_cx_none_healthy += 1
                self._refuse("UH", "no_healthy_upstream")
                return
            session.host = host
            session.attempts += 1
            cluster.stats.upstream_cx_total += 1
            try:
                server = await connect(self.state, cluster, host, lambda: Side(self))
            except ConnectError as error:
                host.rq_error += 1
                failed, failure = host, error
            else:
                self._join(host, server)
                return
        session.upstream_failure_reason = str(failure).replace(" ", "_")
        self._refuse("UF", f"upstream_reset_before_response_started{{{failure.reason}}}")

    def _join(self, host: Host, server: Side) -> None:
        session = self.session
        assert server.transport is not None
        self._task = None
        self._host = host
        host.cx_active += 1
        host.active += 1
        self._server = server
        session.upstream_principal = server.principal
        session.first_upstream_tx = time.monotonic()
        name = server.transport.get_extra_info("sockname")
        session.upstream_local = (name[0], name[1]) if name else None
        if server.lost or (server.ended and self.client.ended):
            self._finish()
            return
        if self._early:
            server.write(self._early)
            self._early = b""
        if self.client.ended:
            server.write_eof()
        if server.ended:
            self.client.write_eof()
        self.client.free()

    def _refuse(self, flag: str, details: str) -> None:
        self.session.add_flag(flag)
        self.session.details = details
        self._finish()

    def _finish(self) -> None:
        """The one way out: close both sides, give everything back, count, log."""
        if self.done:
            return
        self.done = True
        task = self._task
        if task is not None and task is not asyncio.current_task(self.state.loop):
            task.cancel()
        self._task = None
        self.client.free()
        self.client.close()
        if self._server is not None:
            self._server.free()
            self._server.close()
        if self._host is not None:
            self._host.cx_active -= 1
            self._host.active -= 1
        cluster = self._cluster
        if cluster is not None:
            cluster.breaker.release_connection()
            cluster.stats.upstream_cx_active -= 1
            cluster.stats.upstream_cx_destroy += 1
        self.session.end = time.monotonic()
        for log in self._tcp.access_logs:
            log.log(self.session)
        self.state.connections.discard(self)
        self._on_closed()
