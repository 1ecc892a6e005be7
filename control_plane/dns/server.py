"""The DNS server's sockets: UDP and TCP on one port, and the zones that they answer from.

What is answered is decided in :mod:`control_plane.dns.answer`. Malformed queries get FORMERR if they have a
header, and nothing otherwise; responses are never answered, so that two servers cannot talk to each other.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.zone

from control_plane.dns.answer import answer, udp_limit

log = logging.getLogger(__name__)

_HEADER = 12


@dataclass(frozen=True, slots=True)
class DnsOptions:
    """``tcp_idle``: seconds after which a silent TCP connection is closed."""

    max_connections: int = 128
    tcp_idle: float = 10.0


class DnsServer:
    """Authoritative for ``zones``, which may be replaced at any time."""

    def __init__(self, zones: Sequence[dns.zone.Zone], options: DnsOptions | None = None) -> None:
        self.zones = tuple(zones)
        self.options = options or DnsOptions()
        self.queries = 0
        self.malformed = 0
        self.truncated = 0
        self.connections_refused = 0
        self._connections: set[asyncio.StreamWriter] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen on UDP and TCP; port 0 = any that is free for both. Raises :class:`OSError`."""
        self._tcp = await asyncio.start_server(self._serve_tcp, host, port)
        bound: int = self._tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        try:
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Udp(self._respond), local_addr=(host, bound)
            )
        except OSError:
            await self.stop()
            raise
        return host, bound

    async def stop(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for writer in [*self._connections]:
            writer.close()
        if self._tcp is not None:
            await self._tcp.wait_closed()

    def _respond(self, wire: bytes, *, udp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException as error:
            self.malformed += 1
            log.debug("malformed query: %s", error)
            return _format_error(wire)
        if query.flags & dns.flags.QR:
            self.malformed += 1
            return None
        self.queries += 1
        response = answer(self.zones, query)
        if not udp:
            return response.to_wire(max_size=65535)
        try:
            return response.to_wire(max_size=udp_limit(query))
        except dns.exception.TooBig:
            return self._shortened(response, udp_limit(query))

    def _shortened(self, response: dns.message.Message, limit: int) -> bytes:
        """Without the addresses that nobody asked for; if that is too long, the client is to use TCP."""
        response.additional = []
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            self.truncated += 1
            response.answer = []
            response.authority = []
            response.flags |= dns.flags.TC
            return response.to_wire(max_size=limit)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self.options.max_connections:
            self.connections_refused += 1
            writer.close()
            return
        self._connections.add(writer)
        try:
            while True:
                async with asyncio.timeout(self.options.tcp_idle):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    response = self._respond(await reader.readexactly(length), udp=False)
                    if response is None:
                        return
                    writer.write(struct.pack("!H", len(response)) + response)
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError) as error:
            log.debug("TCP client is gone: %s", error)
        finally:
            self._connections.discard(writer)
            writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, respond: Callable[..., bytes | None]) -> None:
        self._respond = respond
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        response = self._respond(data, udp=True)
        if response is not None:
            self._transport.sendto(response, addr)


def _format_error(wire: bytes) -> bytes | None:
    """FORMERR with the query's ID, if what came has a header and is a query."""
    if len(wire) < _HEADER or wire[2] & 0x80:
        return None
    response = dns.message.Message(id=int.from_bytes(wire[:2], "big"))
    response.flags = dns.flags.Flag(dns.flags.QR)
    response.set_rcode(dns.rcode.FORMERR)
    return response.to_wire()


def zone_from_text(text: str, origin: str | None = None) -> dns.zone.Zone:
    """A zone from a zone file's text, which must have an SOA and, without ``origin``, an ``$ORIGIN``.

    Raises ``ValueError`` saying what is wrong.
    """
    try:
        return dns.zone.from_text(text, origin=origin, relativize=False)
    except dns.exception.DNSException as error:
        raise ValueError(f"zone: {error or type(error).__name__}") from error


def zone_from_records(origin: str, records: Sequence[str], *, ttl: int = 5) -> dns.zone.Zone:
    """A zone from lines such as ``_http._tcp.web SRV 0 5 80 a``; SOA and NS are added. Raises ``ValueError``."""
    name = dns.name.from_text(origin)
    head = (f"$ORIGIN {name}", f"$TTL {ttl}", f"@ SOA ns hostmaster 1 3600 600 86400 {ttl}", "@ NS ns")
    return zone_from_text("\n".join((*head, *records)) + "\n", origin=str(name))
