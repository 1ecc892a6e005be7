"""A check over TCP (or TLS): connect, and if so configured, send bytes and look for others. It keeps no time."""

from __future__ import annotations

import asyncio
from typing import Any

from proxy.cluster.health_answer import holds
from proxy.health.connection import Line
from proxy.health.outcome import PASSED, Outcome
from proxy.model.health_check import TcpCheck
from proxy.tls.conn import Transport
from proxy.upstream.connect import ConnectError


class TcpConnection(asyncio.Protocol):
    """``lost``: it has ended; ``found``: all of ``receive`` has come."""

    __slots__ = ("_buffer", "_changed", "_limit", "_receive", "_transport", "found", "lost", "principal")

    def __init__(self, receive: tuple[bytes, ...], limit: int) -> None:
        """``limit``: bytes that are kept while nothing is found, 0 = any number."""
        self._receive = receive
        self._limit = limit
        self._buffer = b""
        self.principal = ""
        self.found = False
        self.lost = False
        self._changed = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport: Transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if holds(self._buffer, self._receive):
            self._buffer = b""
            self.found = True
            self._changed.set()
        elif self._limit and len(self._buffer) > self._limit:
            # It never comes: the check will take too long.
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._changed.set()

    def pause_writing(self) -> None:
        """What is sent is small."""

    def resume_writing(self) -> None:
        """Likewise."""

    def send(self, data: bytes) -> None:
        if data:
            self._transport.write(data)

    async def until_found_or_lost(self) -> None:
        while not (self.found or self.lost):
            self._changed.clear()
            await self._changed.wait()

    def abort(self) -> None:
        self._transport.abort()


class TcpProber:
    """Asks by TCP. Without bytes to look for, a connection is enough and is closed at once."""

    __slots__ = ("_check", "_connection", "_line", "_reuse")

    def __init__(self, line: Line, check: TcpCheck, *, reuse: bool) -> None:
        self._line = line
        self._check = check
        self._reuse = reuse
        self._connection: TcpConnection | None = None

    def ready(self) -> bool:
        return self._line.ready()

    async def ask(self) -> Outcome:
        check = self._check
        connection = self._connection
        if connection is None:
            limit = self._line.cluster.config.per_connection_buffer_limit_bytes
            try:
                connection = await self._line.connect(lambda alpn: TcpConnection(check.receive, limit))
            except ConnectError as error:
                return Outcome("network", str(error))
            self._connection = connection
        if not check.receive:
            # As in Envoy nothing is sent either.
            self.close()
            return PASSED
        connection.found = False
        connection.send(check.send)
        await connection.until_found_or_lost()
        if not connection.found:
            self._connection = None
            return Outcome("network", "connection closed")
        connection.found = False
        if not self._reuse:
            self.close()
        return PASSED

    def give_up(self) -> None:
        self.close()

    async def rest(self, seconds: float) -> Outcome | None:
        """A connection that ends between two checks is a failure, as in Envoy, and what is looked for a success."""
        connection = self._connection
        if connection is None:
            await asyncio.sleep(seconds)
            return None
        try:
            async with asyncio.timeout(seconds):
                await connection.until_found_or_lost()
        except TimeoutError:
            return None
        if connection.found:
            connection.found = False
            return PASSED
        self._connection = None
        return Outcome("network", "connection closed")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
