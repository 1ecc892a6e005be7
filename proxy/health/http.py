"""A check over HTTP or gRPC: a connection, one request, one answer. It keeps no time and judges nothing."""

from __future__ import annotations

import asyncio

from proxy.cluster.health_answer import Judge
from proxy.health.answer import Answer, GrpcAnswer, HttpAnswer
from proxy.health.connection import Line
from proxy.health.outcome import Outcome
from proxy.health.request import Request
from proxy.http1.head import Head
from proxy.model.tls import ALPN_OFFERS
from proxy.upstream.connect import ConnectError
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.http2 import Http2Connection
from proxy.upstream.stream import Fields, UpstreamStream


class _Exchange:
    """One request under way (``proxy.upstream.stream.Receiver``)."""

    __slots__ = ("_answer", "connect", "dechunk", "done", "is_head", "request_done", "stream", "upgrade")

    def __init__(self, answer: Answer, done: asyncio.Future[Outcome], *, is_head: bool) -> None:
        self._answer = answer
        self.done = done
        self.request_done = True
        self.is_head = is_head
        self.upgrade = False
        self.connect = False
        self.dechunk = True
        self.stream: UpstreamStream | None = None

    def response_started(self, head: Head, body: bytes, payload: int, done: bool) -> None:
        outcome = self._answer.head(head, done and not body)
        if outcome is None and body:
            outcome = self._answer.body(body, done)
        self._take(outcome, done)

    def response_body(self, data: bytes, payload: int, done: bool) -> None:
        if not self.done.done():
            self._take(self._answer.body(data, done), done)

    def response_trailers(self, fields: Fields) -> None:
        if not self.done.done():
            self._take(self._answer.trailers(fields), True)

    def informational(self, head: Head) -> None:
        """It says nothing yet."""

    def upstream_done(self) -> None:
        """No other request waits for its place."""

    def upstream_reset(self, reason: str, message: str) -> None:
        if not self.done.done():
            self.done.set_result(Outcome("network", f"{reason} {message}".strip()))

    def upstream_paused(self) -> None:
        """The request is small, and is all there."""

    def upstream_resumed(self) -> None:
        """Likewise."""

    def _take(self, outcome: Outcome | None, ended: bool) -> None:
        if outcome is None or self.done.done():
            return
        self.done.set_result(outcome)
        if not ended and self.stream is not None:
            # Nothing that is still to come changes it.
            self.stream.detach()


class HttpProber:
    """Asks by HTTP/1.1 or HTTP/2.

    A check that takes too long ends the connection; one of gRPC ends its stream alone, as in Envoy.
    """

    __slots__ = (
        "_answer",
        "_connection",
        "_exchange",
        "_http2",
        "_line",
        "_request",
        "_reset_alone",
        "_reuse",
    )

    def __init__(
        self,
        line: Line,
        request: Request,
        answer: type[GrpcAnswer] | tuple[Judge, int, bool],
        *,
        http2: bool,
        reuse: bool,
    ) -> None:
        """``answer``: for HTTP, what judges it, how much of its body is kept, and whether that is looked at."""
        self._line = line
        self._request = request
        self._answer = answer
        self._http2 = http2
        self._reuse = reuse
        self._reset_alone = isinstance(answer, type)
        self._connection: UpstreamConnection | Http2Connection | None = None
        self._exchange: _Exchange | None = None

    @property
    def _offer(self) -> tuple[str, ...]:
        return ALPN_OFFERS["HTTP2" if self._http2 else "HTTP1"]

    def ready(self) -> bool:
        return self._line.ready(self._offer)

    async def ask(self) -> Outcome:
        connection = self._connection
        if connection is None or connection.closed or (connection.http2 and connection.draining):
            self._connection = None
            try:
                connection = self._connection = await self._connect()
            except ConnectError as error:
                return Outcome("network", str(error))
        answer: Answer
        if isinstance(self._answer, type):
            answer = self._answer()
        else:
            judge, limit, wanted = self._answer
            answer = HttpAnswer(judge, limit, wanted=wanted)
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        exchange = self._exchange = _Exchange(answer, done, is_head=self._request.is_head)
        if connection.http2:
            body = self._request.body
            stream = connection.begin(exchange, self._request.fields, not body)
            exchange.stream = stream
            if body:
                stream.send(body, True)
        else:
            exchange.stream = connection
            connection.begin(exchange, self._request.http1())
        outcome = await done
        self._exchange = None
        if not self._reuse or (connection.http2 and connection.draining):
            self.close()
        return outcome

    async def _connect(self) -> UpstreamConnection | Http2Connection:
        line = self._line
        if self._http2:
            return await line.connect(lambda alpn: line.http2(), self._offer)
        return await line.connect(lambda alpn: line.http1(), self._offer)

    def give_up(self) -> None:
        exchange, self._exchange = self._exchange, None
        connection = self._connection
        if exchange is not None and connection is not None and connection.http2 and self._reset_alone:
            assert exchange.stream is not None
            exchange.stream.detach()
            if self._reuse and not connection.draining:
                return
        self.close()

    async def rest(self, seconds: float) -> Outcome | None:
        await asyncio.sleep(seconds)
        return None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            connection.abort()
