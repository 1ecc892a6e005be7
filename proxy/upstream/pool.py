"""Connections to reuse, and requests that wait for one.

Idle connections lie on ``Host.idle``, the one used last on top. ``wants_connection`` is the decision, pure; ``Pool``
carries it out. It knows nothing of what is sent on a connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Literal, Protocol

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.model.tls import ALPN_OFFERS
from proxy.upstream.connect import ConnectError, ConnectFailure, connect
from proxy.upstream.connection import QueueKey, UpstreamConnection
from proxy.upstream.http2 import Http2Connection
from proxy.upstream.loop_state import LoopState

PooledConnection = UpstreamConnection | Http2Connection


class Waiter(Protocol):
    """A request that waits for a connection. Exactly one of the two is called, unless it was cancelled.

    ``connected`` says whether it takes the connection.
    """

    def connected(self, connection: PooledConnection, /) -> bool: ...
    def connect_failed(self, reason: ConnectFailure, message: str, /) -> None: ...


def wants_connection(
    *, waiting: int, connecting: int, open_connections: int, room: bool, streams: int = 1
) -> bool:
    """Whether to open one more connection to a host. ``streams``: requests that one will take at a time.

    As many connections as the waiting requests need, while the cluster has room; a host without any connection gets
    one even so, or its requests would wait for ever (Envoy's rule).
    """
    if waiting <= connecting * streams:
        return False
    return room or (open_connections == 0 and connecting == 0)


class _Queue:
    """What waits for one host. ``protocol`` is what its connections are to speak, ``shelf`` where they lie idle."""

    __slots__ = ("cluster", "connecting", "key", "protocol", "shelf", "waiting")

    def __init__(self, cluster: Cluster, host: Host, *, http2: bool) -> None:
        self.cluster = cluster
        protocol = cluster.config.protocol
        if protocol == "DOWNSTREAM":
            protocol = "HTTP2" if http2 else "HTTP1"
        self.protocol: Literal["HTTP1", "HTTP2", "AUTO"] = protocol
        self.key = queue_key(cluster, host, http2=http2)
        self.shelf = shelf(cluster, host, http2=http2)
        self.connecting = 0
        self.waiting: deque[Waiter] = deque()


def queue_key(cluster: Cluster, host: Host, *, http2: bool) -> QueueKey:
    """What a request waits for. ``http2``: it came by HTTP/2."""
    return (host, "HTTP2") if http2 and cluster.config.protocol == "DOWNSTREAM" else host


def shelf(cluster: Cluster, host: Host, *, http2: bool) -> list[PooledConnection]:
    """Where the connections lie that such a request may use."""
    return host.http2_idle if http2 and cluster.config.protocol == "DOWNSTREAM" else host.idle


class Pool:
    """The upstream connections of one event loop."""

    __slots__ = ("_connections", "_dedicated", "_queues", "_state", "_tasks")

    def __init__(self, state: LoopState) -> None:
        self._state = state
        self._queues: dict[QueueKey, _Queue] = {}
        self._connections: set[PooledConnection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._dedicated: dict[Waiter, asyncio.Task[bool]] = {}

    @property
    def open(self) -> int:
        """Connections that are up, idle or busy."""
        return len(self._connections)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    def wait(self, cluster: Cluster, host: Host, waiter: Waiter, *, http2: bool = False) -> bool:
        """Have ``waiter`` told when it has a connection; false if too many wait already (flag ``UO``). ``http2``: its
        request came by HTTP/2."""
        if not cluster.breaker.try_pending():
            return False
        cluster.stats.upstream_rq_pending_total += 1
        cluster.stats.upstream_rq_pending_active += 1
        key = queue_key(cluster, host, http2=http2)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(cluster, host, http2=http2)
        queue.waiting.append(waiter)
        self._open_more(host, queue)
        return True

    def dedicated(self, cluster: Cluster, host: Host, waiter: Waiter) -> bool:
        """Have ``waiter`` told when it has a connection of its own, which nobody used before or will use again; false
        if the cluster has too many."""
        breaker = cluster.breaker
        if not breaker.try_pending():
            return False
        if not breaker.try_connection():
            breaker.release_pending()
            return False
        stats = cluster.stats
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        stats.upstream_cx_total += 1
        stats.upstream_cx_active += 1
        host.cx_active += 1
        task = self._state.loop.create_task(self._connect_dedicated(cluster, host, waiter))
        self._dedicated[waiter] = task
        self._tasks.add(task)

        def over(task: asyncio.Task[bool]) -> None:
            # Not in the task: one that is cancelled at once never begins.
            self._tasks.discard(task)
            breaker.release_pending()
            stats.upstream_rq_pending_active -= 1
            if task.cancelled() or task.exception() is not None or not task.result():
                host.cx_active -= 1
                breaker.release_connection()
                stats.upstream_cx_active -= 1

        task.add_done_callback(over)
        return True

    async def _connect_dedicated(self, cluster: Cluster, host: Host, waiter: Waiter) -> bool:
        """Whether ``waiter`` got it."""
        connection: UpstreamConnection | None = None
        failure = ConnectError("local_connection_failure", "the connection ended at once")
        try:
            connection = await connect(
                self._state,
                cluster,
                host,
                lambda alpn: UpstreamConnection(self, cluster, host, dedicated=True),
                offer=ALPN_OFFERS["HTTP1"],
            )
        except ConnectError as error:
            failure = error
        finally:
            self._dedicated.pop(waiter, None)
        if connection is None or connection.closed:
            waiter.connect_failed(failure.reason, str(failure))
            return False
        self._connections.add(connection)
        host.connect_failures = 0
        connection.pooled = True
        if not waiter.connected(connection):
            connection.close()
        return True

    def cancel(self, host: Host, waiter: Waiter) -> None:
        """Forget a waiter. A connection that was begun for it is kept for others."""
        task = self._dedicated.pop(waiter, None)
        if task is not None:
            task.cancel()
            return
        for key in (host, (host, "HTTP2")):
            queue = self._queues.get(key)
            if queue is not None and waiter in queue.waiting:
                queue.waiting.remove(waiter)
                self._left(queue)
                queue.cluster.stats.upstream_rq_cancelled += 1
                self._forget_if_empty(queue)

    def release(self, connection: PooledConnection) -> None:
        """Take a connection back that can carry another request."""
        host = connection.host
        limit = connection.cluster.config.max_requests_per_connection
        if limit and connection.requests >= limit:
            connection.cluster.stats.upstream_cx_max_requests += 1
            # Its end opens another one for those who wait.
            connection.close()
            return
        queue = self._queues.get(connection.key)
        while queue is not None and queue.waiting and (not connection.http2 or connection.has_room):
            waiter = queue.waiting.popleft()
            self._left(queue)
            self._forget_if_empty(queue)
            if not waiter.connected(connection):
                continue
            if isinstance(connection, UpstreamConnection):
                return
            if not connection.has_room:
                self._open_more(host, queue)
                return
        if host.removed:
            connection.retire()
            return
        connection.idle_since = self._state.now
        if connection not in connection.shelf:
            connection.shelf.append(connection)

    def closed(self, connection: PooledConnection) -> None:
        """A connection ended, by either side."""
        self._connections.discard(connection)
        host = connection.host
        if connection in connection.shelf:
            connection.shelf.remove(connection)
        host.cx_active -= 1
        cluster = connection.cluster
        cluster.breaker.release_connection()
        cluster.stats.upstream_cx_active -= 1
        cluster.stats.upstream_cx_destroy += 1
        queue = self._queues.get(connection.key)
        if queue is not None:
            self._open_more(host, queue)

    def sweep(self, now: float) -> None:
        """Close connections that were idle too long, or whose host is gone or has failed its health checks since."""
        for connection in list(self._connections):
            if isinstance(connection, Http2Connection) and not connection.sweep(now):
                continue
            failed = connection.epoch != connection.host.epoch
            if connection.busy:
                if failed and connection.http2:
                    connection.retire()
                continue
            timeout = connection.cluster.config.idle_timeout
            if connection.host.removed or failed:
                connection.close()
            elif timeout and now - connection.idle_since >= timeout:
                connection.cluster.stats.upstream_cx_idle_timeout += 1
                connection.close()

    def close(self) -> None:
        """End everything at once."""
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    def _open_more(self, host: Host, queue: _Queue) -> None:
        cluster = queue.cluster
        config = cluster.config
        # Which version the server will choose is not known before it has.
        streams = (
            (host.max_streams or config.http2.max_concurrent_streams) if queue.protocol == "HTTP2" else 1
        )
        while wants_connection(
            waiting=len(queue.waiting),
            connecting=queue.connecting,
            open_connections=host.cx_active - queue.connecting,
            room=True,
            streams=streams,
        ):
            if not cluster.breaker.try_connection():
                if not wants_connection(
                    waiting=len(queue.waiting),
                    connecting=queue.connecting,
                    open_connections=host.cx_active - queue.connecting,
                    room=False,
                ):
                    return
                cluster.breaker.active_connections += 1
            queue.connecting += 1
            host.cx_active += 1
            task = self._state.loop.create_task(self._connect(host, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, host: Host, queue: _Queue) -> None:
        cluster = queue.cluster
        connection: PooledConnection | None = None
        failure = ConnectError("local_connection_failure", "the proxy is stopping")
        cluster.stats.upstream_cx_total += 1
        cluster.stats.upstream_cx_active += 1
        try:
            connection = await connect(
                self._state,
                cluster,
                host,
                lambda alpn: self._make(host, queue, alpn),
                host.ends,
                ALPN_OFFERS[queue.protocol],
            )
        except ConnectError as error:
            failure = error
        finally:
            queue.connecting -= 1
            if connection is None:
                host.cx_active -= 1
                cluster.breaker.release_connection()
                cluster.stats.upstream_cx_active -= 1
        if connection is None:
            out_of_use = cluster.unreachable(host)
            if out_of_use:
                self._state.loop.call_later(out_of_use, self._try_again, cluster, host)
            self._fail_all(host, queue, failure)
        elif connection.closed:
            # It ended between being made and being handed over; the pool was not told, since it had not taken it.
            host.cx_active -= 1
            cluster.breaker.release_connection()
            cluster.stats.upstream_cx_active -= 1
            self._fail_all(host, queue, ConnectError("remote_connection_failure", "connection termination"))
        else:
            self._connections.add(connection)
            host.connect_failures = 0
            connection.pooled = True
            self.release(connection)
        self._forget_if_empty(queue)

    def _make(self, host: Host, queue: _Queue, alpn: str) -> PooledConnection:
        """A connection of the version that configuration or the server chose."""
        cluster = queue.cluster
        made: PooledConnection
        if queue.protocol == "HTTP2" or (queue.protocol == "AUTO" and alpn == "h2"):
            cluster.stats.upstream_cx_http2_total += 1
            made = Http2Connection(self, self._state, cluster, host)
        else:
            cluster.stats.upstream_cx_http1_total += 1
            made = UpstreamConnection(self, cluster, host)
        made.key = queue.key
        made.shelf = queue.shelf
        return made

    def _try_again(self, cluster: Cluster, host: Host) -> None:
        # The configuration may have changed meanwhile; the host went over to the cluster's successor.
        self._state.hub.current.clusters.get(cluster.name, cluster).try_again(host)

    def _fail_all(self, host: Host, queue: _Queue, error: ConnectError) -> None:
        """Requests would be stuck behind a host that refuses connections: all of them decide anew (as in Envoy)."""
        waiting = list(queue.waiting)
        queue.waiting.clear()
        for waiter in waiting:
            self._left(queue)
            queue.cluster.stats.upstream_rq_pending_failure_eject += 1
            waiter.connect_failed(error.reason, str(error))

    def _left(self, queue: _Queue) -> None:
        queue.cluster.breaker.release_pending()
        queue.cluster.stats.upstream_rq_pending_active -= 1

    def _forget_if_empty(self, queue: _Queue) -> None:
        if not queue.waiting and not queue.connecting and self._queues.get(queue.key) is queue:
            del self._queues[queue.key]
