"""Speaks DNS over UDP and TCP (RFC 1035, RFC 7766) for an :class:`~control_plane.dns.zone.Authority`."""

from __future__ import annotations

import asyncio
import logging
import struct

from control_plane.dns.zone import Authority

log = logging.getLogger(__name__)

#: TCP connections served at once; more are closed and counted.
MAX_TCP = 128
TCP_IDLE = 10.0


class DnsServer:
    """One address, both transports. ``authority`` may be replaced while it runs."""

    def __init__(self, authority: Authority, *, max_tcp: int = MAX_TCP, idle: float = TCP_IDLE) -> None:
        self.authority = authority
        self.tcp_overflows = 0
        self._max_tcp = max_tcp
        self._idle = idle
        self._tcp = 0
        self._server: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Bind; port 0 takes one that is free for both. Returns the address. Raises OSError."""
        self._server = await asyncio.start_server(self._stream, host, port)
        bound = self._server.sockets[0].getsockname()
        loop = asyncio.get_running_loop()
        try:
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(host, bound[1])
            )
        except OSError:
            self._server.close()
            raise
        return bound[0], bound[1]

    async def stop(self) -> None:
        """Close both."""
        if self._udp is not None:
            self._udp.close()
        if self._server is not None:
            self._server.close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tcp >= self._max_tcp:
            self.tcp_overflows += 1
            writer.close()
            return
        self._tcp += 1
        try:
            while True:
                async with asyncio.timeout(self._idle):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    wire = await reader.readexactly(length)
                    answer = self.authority.answer_wire(wire, udp=False)
                    if answer is None:
                        return
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            log.debug("DNS connection ended: %s", error)
        finally:
            self._tcp -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.authority.answer_wire(data, udp=True)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        # An ICMP error about an answer: its client has gone.
        log.debug("DNS datagram: %s", exc)
