"""One request and its response: routing, policy, attempts, streaming both ways, timeouts, the log line.

No task, future or timer is made for it. Bytes come from ``downstream`` and from the upstream connection; every way
out goes through ``_finish``, once. What the client is told on errors is decided in ``local_reply``.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from math import inf
from typing import Final

from proxy.cluster.host import Host
from proxy.cluster.outcome import End, succeeded
from proxy.grpc.message import CONTENT_TYPE, is_grpc_request
from proxy.http1.errors import ProtocolError
from proxy.http1.fields import CHUNKED, EXPECT, NOMINATED, PLAIN, UPGRADE
from proxy.http1.head import Head
from proxy.http1.splice import forget_nominated
from proxy.model.reply import Reply
from proxy.overload.actions import OverloadActions, hit
from proxy.runtime.entry import RouteEntry
from proxy.stream import local_reply
from proxy.stream.asked import as_asked
from proxy.stream.attempts import Attempts
from proxy.stream.authority import resolve
from proxy.stream.grpc_reply import as_grpc
from proxy.stream.head_options import has_underscore
from proxy.stream.state import NO_HEAD
from proxy.stream.timeouts import GRPC_TIMEOUT, response_timeout, stream_limit, told
from proxy.stream.tunnel import CONNECT, WEBSOCKET, may_upgrade, upgrade_type
from proxy.upstream.retry import RetryState
from proxy.upstream.stream import Fields

_CLOSING: Final = frozenset(
    (
        "missing_host_header",
        "path_normalization_failed",
        "query_missing_content_type",
        "request_header_timeout",
    )
)
"""Details of replies after which Envoy closes: the client and the proxy may not mean the same by what follows."""

monotonic = time.monotonic


class HttpExchange(Attempts):
    """One request, from its head to its log line."""

    __slots__ = ()

    # The way of a request.

    def run(self, body: bytes, payload: int, *, ended: bool = False) -> None:
        """Take the request as far as it goes; ``body`` is what of it has come (framed), ``payload`` its size.

        ``ended``: that is the rest of it, which is taken (``request_done``) only if an upstream is to get it.
        """
        if not ended:
            self.bytes_received = payload
        down = self.down
        http = self.http
        head = self.head
        stats = http.stats
        stats.downstream_rq_total += 1
        stats.downstream_rq_active += 1
        down.state.exchanges.add(self)
        if down.state.overload is not None and self._shed(down.state.overload):
            return
        if not head.minor and not http.config.accept_http_10:
            self.head = NO_HEAD
            self.protocol = "HTTP/1.1"
            self._reply_early(local_reply.LOW_VERSION)
            return
        if not head.minor and head.host is None and http.config.default_host_for_http_10:
            head.set_host(http.config.default_host_for_http_10.encode())
            self.host_changed = True
        flags = head.flags
        if flags & (PLAIN | NOMINATED) == PLAIN and not http.reject_underscores:
            target = head.target
        else:
            found = self._find_target()
            if found is None:
                return
            target = found
        query = target.find(b"?")
        self.path = target if query < 0 else target[:query]
        down.edge.arrive(self)
        if flags & EXPECT and self._answers_expectation():
            # As Envoy does: the proxy answers for the upstream, which then sees no expectation.
            self.continued = True
            if head.minor:
                down.send_continue()
                # Envoy counts it as a response.
                stats.downstream_rq_completed += 1
                stats.rq_xx[1] += 1
        if target:
            route = http.table.match(head, self.connection, self.path)
        else:
            route = http.table.match_connect(head, self.connection)
        self.route = route
        if (flags & UPGRADE or not target) and not self._accept_upgrade(route):
            stats.downstream_rq_ws_on_non_ws_route += 1
            # The client and the proxy may not mean the same by what follows.
            down.drain()
            self.reply(local_reply.UPGRADE_REFUSED)
            return
        for judge in http.filters:
            verdict = judge(self)
            if verdict is not None:
                self.reply(verdict)
                return
        # As in Envoy this counts what comes to the router, whatever that answers.
        stats.rq_total += 1
        if route is None:
            stats.no_route += 1
            self.reply(http.no_route)
            return
        choose = route.choose
        if choose is None:
            self._answer(route)
            return
        if route.stream_duration is not None:
            limit = stream_limit(route, head, http.config.max_stream_duration, grpc=is_grpc_request(head))
            self._longest = limit.seconds
            if limit.grpc_timeout is not None:
                self.also |= GRPC_TIMEOUT
                self.extra += limit.line()
        elif route.max_grpc_timeout is not None and is_grpc_request(head):
            seconds = response_timeout(route, head)
            self.route = route = replace(route, timeout=seconds)
            if seconds:
                self.also |= GRPC_TIMEOUT
                self.extra += told(seconds)
        self.target = chosen = choose()
        self.cluster = cluster = chosen.cluster
        if cluster is None:
            stats.no_cluster += 1
            self.reply(chosen.not_found)
            return
        if self.internal:
            self.route = route = as_asked(route, head)
        route.stats.rq_total += 1
        if route.idle_timeout is not None:
            self._idle_timeout = route.idle_timeout
        if route.retry is not None:
            self._retry = RetryState(route.retry, random.random)
        if ended:
            self.bytes_received = payload
            self.request_done = True
            self.request_end = monotonic()
        if self.request_done or self.upgrade:
            self._request_ended()
        self._outgoing = down.edge.outgoing(self)
        self._replay = body
        self._attempt(None)

    def _find_target(self) -> bytes | None:
        """The normalised request target, "" for one that has no path. ``None``: the client was refused."""
        head = self.head
        http = self.http
        try:
            target = resolve(head, any_method=http.config.allow_custom_methods or self.down.http2)
            if head.flags & NOMINATED:
                forget_nominated(head)
            if http.reject_underscores and self.down.http2 and has_underscore(head):
                http.http2_stats.requests_rejected_with_underscores_in_headers += 1
                self.head = NO_HEAD
                self.down.cut_off()
                self.downstream_reset("http2.unexpected_underscore")
                return None
            if http.reject_underscores and has_underscore(head):
                http.stats.requests_rejected_with_underscores_in_headers += 1
                raise ProtocolError("a header name with _", details="http1.unexpected_underscore")
        except ProtocolError as error:
            # As in Envoy, whose codec says so: there was no request to log anything of.
            self.head = NO_HEAD
            self.bytes_received = 0
            self.refuse(error)
            return None
        if isinstance(target, Reply):
            self.http.stats.downstream_rq_non_relative_path += target is local_reply.NOT_A_PATH
            self._reply_early(target)
            return None
        if target is not head.target:
            self.host_changed = True
        if not target:
            return target
        normal = http.normalize(target)
        if isinstance(normal, Reply):
            http.stats.downstream_rq_failed_path_normalization += 1
            self._reply_early(normal)
            return None
        if normal is not head.target:
            self.target_changed = normal != head.target
            head.target = normal
        return normal

    def request_body(self, data: bytes, payload: int, done: bool) -> None:
        """More of the request's body (framed)."""
        self.bytes_received += payload
        self._last = self.down.state.now
        if done:
            self.request_done = True
            self.request_end = monotonic()
            self._request_ended()
        upstream = self._upstream
        if upstream is None:
            self._add(data)
            if not done and not self._responded:
                self.down.hold_for_upstream()
            return
        if self._reframe is not None:
            self._reframe.send(upstream, data, done)
        elif data or done:
            upstream.send(data, done)
        if data and self._kept and self._retry is not None:
            self._keep(data)

    def request_trailers(self, fields: Fields) -> None:
        """The request ends with trailers."""
        self._last = self.down.state.now
        self.request_done = True
        self.request_end = monotonic()
        self._request_ended()
        if self._upstream is None or (self._kept and self._retry is not None):
            self._replay_trailers = fields
        if self._upstream is not None:
            self._send_trailers(self._upstream, fields)

    def _keep(self, data: bytes) -> None:
        """Keep more of the request, so that it can be sent again; one that is too long is tried once."""
        assert self.route is not None and self.cluster is not None
        kept = self._replay
        if len(kept) + len(data) > self.route.buffers.limit(self.http.buffer_limit):
            self.cluster.stats.retry_or_shadow_abandoned += 1
            self._kept = False
            self._replay = b""
        else:
            self._add(data)

    def _add(self, data: bytes) -> None:
        kept = self._replay
        if not kept:
            self._replay = data
        elif isinstance(kept, bytes):
            # Grown in place: bytes would be copied whole for each piece of a client that sends small ones.
            self._replay = bytearray(kept + data)
        else:
            kept += data

    def refuse(self, error: ProtocolError) -> None:
        """The client broke the protocol, in this request's head or in the middle of its body."""
        self.http.stats.downstream_cx_protocol_error += 1
        self.request_done = False
        self._reply_early(local_reply.malformed(error))

    def downstream_lost(self, *, remote: bool, why: str = "") -> None:
        """The client is gone, or (``why``) was given up."""
        if not self.done:
            self.http.stats.downstream_rq_rx_reset += remote and self.request_done
            self._add_flag("DC")
            self.details = "downstream_remote_disconnect" if remote else "downstream_local_disconnect"
            if why:
                self.details += f"({why})"
            self._finish()

    def downstream_reset(self, details: str = "http2.remote_reset") -> None:
        """The stream was reset, by the client or for what it asks."""
        if not self.done:
            self.http.stats.downstream_rq_rx_reset += self.request_done
            self._add_flag("DR")
            self.details = details
            self._finish()

    def downstream_broke(self, details: str) -> None:
        """The client broke the protocol of HTTP/2, where nothing is answered."""
        if not self.done:
            self.http.stats.downstream_rq_rx_reset += self.request_done
            self._add_flag("DPE")
            self.details = details
            self._finish()

    # What the upstream connection and the pool say.

    def response_started(self, head: Head, body: bytes, payload: int, done: bool) -> None:
        status = head.status
        retry = self._retry
        if retry is not None and retry.after_response(head) and self._again(keep_connection=done):
            assert self.host is not None
            self.host.rq_error += 1
            return
        self._replay = b""
        self._try_deadline = inf
        self.response = head
        self.status = self._charged = status
        self.first_upstream_rx = now = monotonic()
        self._last = self.down.state.now
        self._responded = True
        self.details = "via_upstream"
        if done:
            self._upstream = None
        if self.upgrade and not self._upgrade_answered(status):
            return
        if not self.request_done:
            self.http.stats.downstream_rq_response_before_rq_complete += 1
        self.bytes_sent = payload
        self.down.send_response(self, head, body, done, now)
        if done:
            self._finish()

    def response_body(self, data: bytes, payload: int, done: bool) -> None:
        self.bytes_sent += payload
        self._last = self.down.state.now
        if done:
            if self.tunnel and not self.flags and self._tunnel_lost():
                self.http.stats.downstream_rq_tx_reset += 1
                self._add_flag("UC")
                self.details = local_reply.reset_after_response("connection_termination")
            # Before the write, which may say that the client does not read: the connection is the pool's again.
            self._upstream = None
        if data or done:
            self.down.send_body(data, done)
        if done:
            self._finish()

    def response_trailers(self, fields: Fields) -> None:
        self._last = self.down.state.now
        self._upstream = None
        self.trailers = fields
        self.down.send_trailers(fields)
        self._finish()

    def _answers_expectation(self) -> bool:
        """Whether 100 (Continue) is ours to say."""
        return (
            not self.http.config.proxy_100_continue
            and (self.head.get(b"expect") or b"").lower() == b"100-continue"
        )

    def informational(self, head: Head) -> None:
        """A 1xx of the upstream: passed on (RFC 9110 section 15.2), but for a 100 that nobody asked it for."""
        if self.cluster is not None:
            upstream_stats = self.cluster.stats
            upstream_stats.rq_xx[1] += 1
            codes = upstream_stats.rq_codes
            codes[head.status] = codes.get(head.status, 0) + 1
        if self.head.minor and (head.status != 100 or self.http.config.proxy_100_continue):
            self.down.send_informational(head)

    def upstream_reset(self, reason: str, message: str) -> None:
        self._upstream = None
        if not self._responded:
            self._failed_attempt(reason, message)
            return
        # As in Envoy, which counts it where it still waits for trailers to judge the host by.
        self.http.stats.rq_reset_after_downstream_response_started += is_grpc_request(self.head)
        self._add_flag(local_reply.reset_flag(reason))
        self.details = local_reply.reset_after_response(reason, message)
        self._cut_off()

    def upstream_paused(self) -> None:
        self.http.stats.downstream_flow_control_paused_reading_total += 1
        self.down.hold_for_upstream()

    def upstream_resumed(self) -> None:
        self.http.stats.downstream_flow_control_resumed_reading_total += 1
        self.down.release_for_upstream()

    # What downstream asks for.

    def downstream_paused(self) -> None:
        """The client does not read: neither do we."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def downstream_resumed(self) -> None:
        if self._upstream is not None:
            self._upstream.resume_reading()

    def tunnel_data(self, data: bytes) -> None:
        """Bytes of the client in a tunnel."""
        self.bytes_received += len(data)
        self._last = self.down.state.now
        if self._upstream is not None:
            self._upstream.send(data, False)

    def tunnel_ended(self) -> None:
        """The client ended its half of the tunnel. A connection of HTTP/1.1 that ends so is gone for Envoy."""
        if self.down.http2:
            self.request_done = True
        else:
            self._add_flag("DC")
            self.details = "downstream_remote_disconnect"
        if self._upstream is not None:
            self._upstream.finish_tunnel()

    def sweep(self, now: float) -> None:
        """Look at the deadlines; called every 100 ms. ``now`` is the loop's time."""
        idle_timeout = self._idle_timeout
        shortened = self.down.state.shortened
        if shortened is not None:
            idle_timeout = shortened.timeout("HTTP_DOWNSTREAM_STREAM_IDLE", idle_timeout)
        longest = self._longest
        if longest and self._since_start() >= longest:
            self.http.stats.downstream_rq_max_duration_reached += 1
            self._timed_out(
                local_reply.MAX_DURATION_AFTER_REQUEST_END
                if self.request_done
                else local_reply.MAX_DURATION_BEFORE_REQUEST_END
            )
        elif now >= self._deadline:
            self._timed_out(local_reply.RESPONSE_TIMEOUT)
        elif now >= self._try_deadline:
            self._try_timed_out()
        elif idle_timeout and now - self._last >= idle_timeout:
            self.http.stats.downstream_rq_idle_timeout += 1
            self._timed_out(
                local_reply.IDLE_AFTER_REQUEST_END
                if self.request_done
                else local_reply.IDLE_BEFORE_REQUEST_END
            )
        elif (
            self.http.request_timeout
            and not self.request_done
            and not self._responded
            and self._since_start() >= self.http.request_timeout
        ):
            self.http.stats.downstream_rq_timeout += 1
            self._timed_out(local_reply.REQUEST_TIMEOUT)

    def reply(self, reply: Reply) -> None:
        """Answer here and end the exchange; cut the connection if a response is already under way."""
        if reply.flag:
            self._add_flag(reply.flag)
        self.details = reply.details
        if self._responded:
            self._cut_off()
            return
        down = self.down
        if not self.request_done:
            self.http.stats.downstream_rq_response_before_rq_complete += 1
        if not self.request_done or self.upgrade or reply.flag == "DPE":
            down.keep = False
        elif self.host is None:
            head = self.head
            self.bytes_received = 0
            # Envoy answers before it looks at the body, so that it has to close even if all of it came.
            if not down.http2 and (head.length > 0 or head.flags & CHUNKED):
                down.keep = False
                self.http.stats.downstream_rq_rx_reset += self.request_done
                self.http.stats.downstream_rq_response_before_rq_complete += self.request_done
            elif (reply.status == 400 and not down.http2) or (
                reply.status >= 400 and reply.details in _CLOSING
            ):
                down.keep = False
        self._responded = True
        if reply.flag[:1] == "U":
            self._charged = reply.status
        self.answer_with(reply.status, reply.body)
        edits = also = None
        if self.target is not None:
            edits = self.target.response_edits
        elif self.route is not None:
            edits = self.route.response_edits
        if self.http.rewrite_reply is not None:
            reply, also = self.http.rewrite_reply(self, reply)
        if is_grpc_request(self.head):
            reply = as_grpc(reply, is_head=self.is_head)
        if reply.status == 204 or reply.status == 304:
            # RFC 9110 section 6.4.1: the client would take a body for the next response.
            reply = replace(reply, body=b"")
        if not self.is_head:
            self.bytes_sent = len(reply.body)
        down.send_reply(self, reply, (edits, also))
        if reply.grpc_message is not None:
            # Not before: what is added to the head may depend on what happened.
            self.status = reply.status
        self._finish()

    def _reply_early(self, reply: Reply) -> None:
        """Answer a request whose target is not resolved; the log shows it as it came."""
        if not self.path:
            self.path = self.head.target.partition(b"?")[0]
        self.reply(reply)

    def _shed(self, actions: OverloadActions) -> bool:
        """What overload asks of a request: whether it was refused."""
        if hit(actions.disable_keepalive) and self.down.keep:
            self.http.stats.downstream_cx_overload_disable_keepalive += 1
            self.down.keep = False
        if not hit(actions.stop_requests):
            return False
        self.http.stats.downstream_rq_overload_close += 1
        self._reply_early(local_reply.OVERLOADED)
        return True

    def _answer(self, route: RouteEntry) -> None:
        """A direct response or a redirect."""
        if route.direct is not None:
            self.http.stats.rq_direct_response += 1
            self.reply(route.direct)
        else:
            assert route.redirect is not None
            self.http.stats.rq_redirect += 1
            scheme = b"https" if self.connection.transport_protocol == "tls" else b"http"
            self.reply(route.redirect(self.head.host or b"", self.head.target, scheme))

    # Ends.

    def _accept_upgrade(self, route: RouteEntry | None) -> bool:
        """Whether an upgrade may go on, as an upgrade or (h2c) as a plain request."""
        kind = upgrade_type(self.head)
        if kind == b"h2c":
            # RFC 9113 section 3.1: the upgrade is obsolete and may be ignored.
            return True
        if not self.head.minor:
            return False
        # The connection is not used for another request, whatever becomes of this one; and that one goes on until its
        # tunnel ends.
        self.upgrade = True
        self.request_done &= self.down.http2
        if may_upgrade(kind, route, self.http):
            self.http.stats.downstream_cx_upgrades_total += 1
            return True
        return kind == CONNECT and route is None

    def _upgrade_answered(self, status: int) -> bool:
        """Open the tunnel, or see that none will be. False: the answer is none for a client, and was replaced."""
        self.down.keep = False
        if status == 101 or (self.connect and status < 300):
            self._start_tunnel()
        elif status < 300 and upgrade_type(self.head) == WEBSOCKET:
            self._responded = False
            # As in Envoy it is charged to nobody.
            self._charged = 0
            self._drop_upstream()
            self.reply(Reply(status, details="websocket_handshake_unsuccessful"))
            return False
        return True

    def _start_tunnel(self) -> None:
        self.tunnel = True
        self._deadline = inf
        self.http.stats.downstream_cx_upgrades_active += 1
        self.down.start_tunnel()

    def _tunnel_lost(self) -> bool:
        """Whether the end of a tunnel is, as in Envoy, the loss of its upstream: an end of HTTP/1.1's connection is."""
        assert self.route is not None and self._upstream is not None
        return not self._upstream.http2 and not self.route.terminates_connect

    def _request_ended(self) -> None:
        """Envoy's route timeout counts from the end of the request."""
        route = self.route
        if route is not None and route.timeout and not self.tunnel:
            self._deadline = self.down.state.loop.time() + route.timeout

    def _since_start(self) -> float:
        return monotonic() - self.start

    def _timed_out(self, reply: Reply) -> None:
        if reply.flag == "UT" and self.cluster is not None:
            self.cluster.stats.upstream_rq_timeout += 1
            if self._upstream is not None and not self._responded and self.host is not None:
                self.host.rq_error += 1
        self._drop_upstream()
        self.reply(reply)

    def _cut_off(self) -> None:
        """The response cannot be finished; the client must not take what it has for the whole."""
        self.http.stats.downstream_rq_tx_reset += 1
        # As in Envoy, whose streams say so whoever resets them; the other ones are counted at the end.
        self.http.stats.downstream_rq_rx_reset += self.request_done
        self.down.cut_off()
        self._finish()

    def _judge(self, host: Host) -> None:
        """Count what the response says of its host. Attempts without a response are counted where they fail."""
        response = self.response
        assert response is not None
        details = self.details
        if details == "via_upstream":
            end: End = "whole"
        elif details.startswith("upstream_reset_after"):
            end = "cut_off"
        else:
            end = "abandoned"
        verdict = succeeded(
            response,
            grpc=is_grpc_request(self.head),
            trailers=self.trailers,
            empty=not self.bytes_sent,
            end=end,
        )
        if verdict:
            host.rq_success += 1
        elif verdict is False:
            host.rq_error += 1

    def _finish(self) -> None:
        """The one way out: give everything back, count, log, tell downstream."""
        if self.done:
            return
        self.done = True
        self.end = now = monotonic()
        down = self.down
        http = self.http
        down.state.exchanges.discard(self)
        host = self.host
        if self._upstream is not None:
            self._drop_upstream()
        if self._waiting and host is not None:
            self._waiting = False
            down.pool.cancel(host, self)
        status = self.status
        # As in Envoy, the cluster's and the route's counts know nothing of mappers, of gRPC and of what the connection
        # manager has decided.
        charged = self._charged
        duration = int((now - self.start) * 1000000)
        stats = http.stats
        stats.downstream_rq_active -= 1
        stats.downstream_rq_completed += 1
        if not self.request_done:
            # What is left of it will not be read (or does not come).
            stats.downstream_rq_rx_reset += 1
        stats.rq_xx[status // 100 if status < 600 else 0] += 1
        stats.rq_time.record(duration)
        if self.tunnel:
            stats.downstream_cx_upgrades_active -= 1
        cluster = self.cluster
        if cluster is not None:
            self.upstream_done()
            if self._retrying:
                cluster.breaker.release_retry()
                if 0 < charged < 500 and "URX" not in self.flags:
                    cluster.stats.upstream_rq_retry_success += 1
        if cluster is not None and charged:
            upstream_stats = cluster.stats
            upstream_stats.upstream_rq_completed += 1
            upstream_stats.rq_xx[charged // 100 if charged < 600 else 0] += 1
            codes = upstream_stats.rq_codes
            codes[charged] = codes.get(charged, 0) + 1
            upstream_stats.rq_time.record(duration)
        if host is not None:
            host.active -= 1
            if self.first_upstream_rx:
                kind = self.head.get(b"content-type")
                if (kind is None or kind[:16] != CONTENT_TYPE) and status < 500:
                    host.rq_success += 1
                else:
                    self._judge(host)
        route = self.route
        if charged and route is not None:
            route.stats.rq_xx[charged // 100 if charged < 600 else 0] += 1
        for log in http.access_logs:
            log.log(self)
        down.exchange_done(self)
