"""One DNS query over UDP, or over TCP when the answer was truncated (RFC 1035 section 4.2, RFC 7766).

Messages are dnspython's; sockets are asyncio's, so nothing here blocks the loop. Choosing servers and names
is ``resolver``'s work.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype

from proxy.discovery.answers import LookupFailed
from proxy.model.address import SocketAddress

SO_MARK = 36
#: EDNS0 payload size that crosses common paths without fragments (DNS flag day 2020).
UDP_PAYLOAD = 1232


class _Exchange(asyncio.DatagramProtocol):
    """Waits for the datagram that answers ``query``; others (wrong id or question) are ignored and counted."""

    def __init__(self, query: dns.message.QueryMessage, done: asyncio.Future[dns.message.Message]) -> None:
        self.query = query
        self.done = done
        self.ignored = 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self.done.done():
            return
        try:
            answer = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
        except (dns.exception.DNSException, ValueError, IndexError, struct.error):
            self.ignored += 1
            return
        if self.query.is_response(answer):
            self.done.set_result(answer)
        else:
            self.ignored += 1

    def error_received(self, exc: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(LookupFailed(str(exc)))


def _socket(kind: socket.SocketKind, server: SocketAddress, mark: int) -> socket.socket:
    family = socket.AF_INET6 if ipaddress.ip_address(server.host).version == 6 else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    if mark:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    return sock


async def _over_udp(
    query: dns.message.QueryMessage, server: SocketAddress, timeout: float, mark: int
) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[dns.message.Message] = loop.create_future()
    sock = _socket(socket.SOCK_DGRAM, server, mark)
    # A connected socket takes datagrams from the server alone; the kernel picks a random source port.
    try:
        sock.connect((server.host, server.port))
        transport, _ = await loop.create_datagram_endpoint(lambda: _Exchange(query, done), sock=sock)
    except OSError:
        sock.close()
        raise
    try:
        transport.sendto(query.to_wire())
        return await asyncio.wait_for(done, timeout)
    finally:
        transport.close()


async def _over_tcp(
    query: dns.message.QueryMessage, server: SocketAddress, timeout: float, mark: int
) -> dns.message.Message:
    async with asyncio.timeout(timeout):
        loop = asyncio.get_running_loop()
        sock = _socket(socket.SOCK_STREAM, server, mark)
        try:
            await loop.sock_connect(sock, (server.host, server.port))
            reader, writer = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            wire = query.to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = dns.message.from_wire(await reader.readexactly(length))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    if not query.is_response(answer):
        raise LookupFailed("the answer does not belong to the question")
    return answer


async def ask(
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    server: SocketAddress,
    *,
    timeout: float = 2.0,
    mark: int = 0,
) -> dns.message.Message:
    """The answer of ``server``. Raises :class:`LookupFailed` on timeouts, network errors and malformed answers."""
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=UDP_PAYLOAD)
    try:
        answer = await _over_udp(query, server, timeout, mark)
        if answer.flags & dns.flags.TC:
            answer = await _over_tcp(query, server, timeout, mark)
    except (TimeoutError, OSError, asyncio.IncompleteReadError, dns.exception.DNSException) as error:
        reason = str(error) or type(error).__name__
        raise LookupFailed(f"{name} {rdtype.name} at {server}: {reason}") from error
    return answer
