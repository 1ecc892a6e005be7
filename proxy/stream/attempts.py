"""The upstream half of an exchange: a host, a connection, and other ones when that fails before a response began.

When to try again is ``proxy.upstream.retry``'s decision; here it is carried out, while the request can still be sent
again as it was.
"""

from __future__ import annotations

import time
from math import inf

from proxy.cluster.host import Host
from proxy.http1.fields import CHUNKED
from proxy.http1.head import Head
from proxy.model.reply import Reply
from proxy.stream import local_reply
from proxy.stream.framing import Chunk, Dechunk
from proxy.stream.state import ExchangeState
from proxy.stream.tunnel import opened
from proxy.upstream.http2 import Http2Connection
from proxy.upstream.pool import PooledConnection, shelf
from proxy.upstream.retry import CONNECT_FAILURES
from proxy.upstream.stream import Fields, UpstreamStream

_CHUNK = Chunk()

monotonic = time.monotonic


class Attempts(ExchangeState):
    """What an exchange does to get a response. The whole exchange is the connection's ``Receiver``."""

    __slots__ = ()

    def reply(self, reply: Reply) -> None:
        """Answer here, without an upstream."""
        raise NotImplementedError

    def response_started(self, head: Head, body: bytes, payload: int, done: bool) -> None:
        """The final response began. ``done``: and it is complete."""
        raise NotImplementedError

    def connected(self, connection: PooledConnection) -> bool:
        """The pool has a connection for us. False: too many requests are under way for us to take it."""
        self._waiting = False
        return self._begin(connection)

    def upstream_done(self) -> None:
        """The host has done with the request: the next may be sent."""
        cluster = self.cluster
        if self._breaker_held and cluster is not None:
            self._breaker_held = False
            cluster.breaker.release_request()
            cluster.stats.upstream_rq_active -= 1

    def connect_failed(self, reason: str, message: str) -> None:
        self._waiting = False
        self.upstream_failure_reason = message.replace(" ", "_")
        self._failed_attempt(reason, message)

    def _attempt(self, failed: Host | None) -> None:
        """Pick a host (another than ``failed``, if there is one) and a connection."""
        cluster = self.cluster
        assert cluster is not None
        self.attempts += 1
        if cluster.config.type == "ORIGINAL_DST":
            # Without an original destination the only address is the proxy's own.
            connection = self.connection
            host = cluster.original_dst_host(*connection.local) if connection.restored else None
        else:
            host = cluster.pick(failed)
        if host is None:
            cluster.stats.upstream_cx_none_healthy += 1
            self.reply(local_reply.NO_HEALTHY_UPSTREAM)
            return
        if cluster.config.proxy_protocol:
            # The upstream connection says for whom it is: nobody else's requests may take it.
            host = cluster.on_behalf(host, (self.connection.remote, self.connection.local))
        self._use_host(host)
        if self.upgrade and self.route is not None and self.route.terminates_connect:
            self._waiting = True
            if not self.down.pool.dedicated(cluster, host, self):
                self._waiting = False
                self._failed_attempt("overflow", "")
            return
        http2 = self.down.http2
        idle: list[PooledConnection] = shelf(cluster, host, http2=True) if http2 else host.idle
        while idle:
            pooled = idle[-1]
            if not pooled.http2:
                idle.pop()
                if pooled.closed:
                    continue
            elif not pooled.takes_request():
                # It has left. One that does stays until it has no room.
                continue
            if not self._begin(pooled) and not pooled.http2:
                idle.append(pooled)
            return
        self._waiting = True
        if not self.request_done and not self.upgrade:
            self.down.hold_for_upstream()
        if not self.down.pool.wait(cluster, host, self, http2=http2):
            self._waiting = False
            self._failed_attempt("overflow", "")

    def _use_host(self, host: Host) -> None:
        before = self.host
        if before is not None:
            before.active -= 1
        self.host = host
        host.active += 1

    def _begin(self, connection: PooledConnection) -> bool:
        """Send the request. False: the breaker does not let it."""
        if not self._breaker_held:
            # Requests that wait for a connection do not count, as in Envoy.
            if not connection.cluster.breaker.try_request():
                self._failed_attempt("overflow", "")
                return False
            self._breaker_held = True
            connection.cluster.stats.upstream_rq_active += 1
        connection.cluster.stats.upstream_rq_total += 1
        self.upstream_local = connection.local
        self.upstream_principal = connection.principal
        if not self.first_upstream_tx:
            self.first_upstream_tx = monotonic()
        route = self.route
        connection.host.rq_total += 1
        assert route is not None and self._outgoing is not None
        body = self._replay
        if self._retry is None:
            self._replay = b""
        else:
            body = bytes(body)
            assert route.retry is not None
            if route.retry.per_try_timeout:
                self._try_deadline = self.down.state.loop.time() + route.retry.per_try_timeout
        more = b"x-envoy-attempt-count: %d\r\n" % self.attempts if route.counts_attempts else b""
        # Before the write, which may hold the client back again at once.
        down = self.down
        down.release_for_upstream()
        if connection.http2:
            self._begin_http2(connection, more, body)
            return True
        self._upstream = connection
        if down.write_paused:
            # It was said before there was a connection to pause.
            connection.pause_reading()
        if self.upgrade and route.terminates_connect:
            early = connection.begin_raw(self)  # type: ignore[arg-type]
            self.response_started(opened(), early, len(early), False)
            return True
        block = down.edge.request_block(self, self._outgoing, more)
        if self.unframed and self.head.length < 0 and not self.upgrade:
            self._reframe = _CHUNK
            connection.begin(self, block)  # type: ignore[arg-type]
            self._send_kept(body)
        else:
            connection.begin(self, block + body if body else block)  # type: ignore[arg-type]
        return True

    def _begin_http2(self, connection: Http2Connection, more: bytes, body: bytes | bytearray) -> None:
        assert self._outgoing is not None
        head = self.head
        fields = self.down.edge.request_fields(self, self._outgoing, more)
        has_body = not self.request_done or bool(body) or self._replay_trailers is not None or self.upgrade
        stream = connection.begin(self, fields, not has_body)  # type: ignore[arg-type]
        self._upstream = stream
        if self.down.write_paused:
            stream.pause_reading()
        if head.flags & CHUNKED:
            self._reframe = Dechunk(self.http.max_request_headers_bytes)
        if has_body and not self.upgrade:
            self._send_kept(body)

    def _send_kept(self, body: bytes | bytearray) -> None:
        """Send what has come of the body before there was somebody to send it to."""
        upstream = self._upstream
        if upstream is None:
            return
        trailers = self._replay_trailers
        done = self.request_done and trailers is None
        if body or done:
            if self._reframe is None:
                upstream.send(bytes(body), done)
            else:
                self._reframe.send(upstream, bytes(body), done)
        if trailers is not None and self._upstream is upstream:
            self._send_trailers(upstream, trailers)

    def _send_trailers(self, upstream: UpstreamStream, fields: Fields) -> None:
        if self._reframe is None:
            upstream.send_trailers(fields)
        else:
            self._reframe.send_trailers(upstream, fields)

    def _failed_attempt(self, reason: str, message: str) -> None:
        """No response came. Try again or say so."""
        cluster = self.cluster
        assert cluster is not None
        self._upstream = None
        if self.host is not None:
            self.host.rq_error += 1
        retry = self._retry
        if (
            retry is not None
            and retry.after_reset(reason, started=bool(self.first_upstream_tx))
            and self._again(keep_connection=True)
        ):
            return
        if reason in CONNECT_FAILURES:
            self.reply(local_reply.reset_before_response(reason, message, retried=self.attempts > 1))
        else:
            self.reply(local_reply.reset_before_response(reason, retried=self.attempts > 1))

    def _again(self, *, keep_connection: bool) -> bool:
        """Schedule another attempt, if one is left, allowed and possible."""
        retry = self._retry
        cluster = self.cluster
        assert retry is not None and cluster is not None
        if not self._kept or self.upgrade:
            return False
        if not self._retrying:
            if retry.left and not cluster.breaker.try_retry():
                self._add_flag("UO")
                return False
            self._retrying = retry.left > 0
        delay = retry.take()
        if delay is None:
            cluster.stats.upstream_rq_retry_limit_exceeded += 1
            self._add_flag("URX")
            return False
        cluster.stats.upstream_rq_retry += 1
        cluster.stats.upstream_rq_retry_backoff_exponential += 1
        if self._upstream is not None:
            if not keep_connection:
                self._upstream.detach()
            self._upstream = None
        self._try_deadline = inf
        self.down.state.loop.call_later(delay, self._attempt_after_backoff)
        return True

    def _attempt_after_backoff(self) -> None:
        if not self.done:
            self._attempt(self.host)

    def _try_timed_out(self) -> None:
        cluster = self.cluster
        assert cluster is not None
        cluster.stats.upstream_rq_per_try_timeout += 1
        self._try_deadline = inf
        if self._upstream is not None and self.host is not None:
            self.host.rq_error += 1
        self._drop_upstream()
        retry = self._retry
        if (
            retry is not None
            and retry.after_timeout(started=bool(self.first_upstream_tx))
            and self._again(keep_connection=False)
        ):
            return
        self.reply(local_reply.PER_TRY_TIMEOUT)

    def _drop_upstream(self) -> None:
        upstream = self._upstream
        if upstream is not None:
            self._upstream = None
            upstream.detach()

    def _add_flag(self, flag: str) -> None:
        self.flags = f"{self.flags},{flag}" if self.flags else flag
