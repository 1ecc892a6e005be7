"""The authoritative server as clients see it: dnspython over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import pytest
from dns.rdatatype import RdataType

from control_plane.dns.server import DnsServer
from control_plane.dns.zone import Authority
from proxy.discovery.answers import SrvRecord
from proxy.discovery.resolver import Resolver
from proxy.model.address import SocketAddress

ZONE = """\
$ORIGIN example.test.
$TTL 30
@ IN SOA ns root 1 60 60 600 5
@ IN NS ns
ns IN A 127.0.0.1
a IN A 10.0.0.1
a IN AAAA fd00::1
b IN A 10.0.0.2
alias IN CNAME a
out IN CNAME www.elsewhere.test.
loop IN CNAME loop
_http._tcp.web IN SRV 10 3 80 a
_http._tcp.web IN SRV 20 1 81 b
""" + "".join(f"big IN A 10.1.{i // 250}.{i % 250}\n" for i in range(300))


@pytest.fixture
async def server() -> AsyncIterator[tuple[DnsServer, str, int]]:
    made = DnsServer(Authority.from_text(ZONE), max_tcp=1)
    host, port = await made.start("127.0.0.1", 0)
    yield made, host, port
    await made.stop()


async def ask(
    server: tuple[DnsServer, str, int], name: str, rdtype: str, **options: object
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, **options)  # type: ignore[arg-type]
    return await dns.asyncquery.udp(query, server[1], timeout=5, port=server[2])


async def test_answers_are_authoritative(server: tuple[DnsServer, str, int]) -> None:
    reply = await ask(server, "A.example.TEST.", "A")
    assert reply.flags & dns.flags.AA
    assert [r.address for r in reply.answer[0]] == ["10.0.0.1"]


async def test_srv_brings_its_targets_addresses(server: tuple[DnsServer, str, int]) -> None:
    reply = await ask(server, "_http._tcp.web.example.test.", "SRV")
    assert len(reply.answer[0]) == 2
    assert {(r.name.to_text(), r.rdtype.name) for r in reply.additional} == {
        ("a.example.test.", "A"),
        ("a.example.test.", "AAAA"),
        ("b.example.test.", "A"),
    }


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode", "answers"),
    [
        ("nope.example.test.", "A", dns.rcode.NXDOMAIN, 0),
        ("b.example.test.", "AAAA", dns.rcode.NOERROR, 0),
        ("_tcp.web.example.test.", "A", dns.rcode.NOERROR, 0),  # an empty non-terminal
        ("alias.example.test.", "A", dns.rcode.NOERROR, 2),
        ("out.example.test.", "A", dns.rcode.NOERROR, 1),
        ("other.test.", "A", dns.rcode.REFUSED, 0),
        ("example.test.", "AXFR", dns.rcode.REFUSED, 0),
    ],
)
async def test_response_codes(
    server: tuple[DnsServer, str, int], name: str, rdtype: str, rcode: dns.rcode.Rcode, answers: int
) -> None:
    query = dns.message.make_query(name, rdtype)
    reply = await dns.asyncquery.tcp(query, server[1], timeout=5, port=server[2])
    assert reply.rcode() == rcode
    assert len(reply.answer) == answers
    if rcode != dns.rcode.REFUSED and not answers:
        assert reply.authority[0].rdtype == RdataType.SOA


async def test_a_cname_loop_ends(server: tuple[DnsServer, str, int]) -> None:
    reply = await ask(server, "loop.example.test.", "A")
    assert reply.rcode() == dns.rcode.NOERROR


async def test_large_answers_are_truncated_and_whole_over_tcp(server: tuple[DnsServer, str, int]) -> None:
    reply = await ask(server, "big.example.test.", "A", use_edns=False)
    assert reply.flags & dns.flags.TC
    assert not reply.answer
    whole = await dns.asyncquery.tcp(
        dns.message.make_query("big.example.test.", "A"), server[1], timeout=5, port=server[2]
    )
    assert len(whole.answer[0]) == 300


async def test_other_operations_and_garbage(server: tuple[DnsServer, str, int]) -> None:
    update = dns.message.make_query("example.test.", "SOA")
    update.set_opcode(dns.opcode.NOTIFY)
    reply = await dns.asyncquery.udp(update, server[1], timeout=5, port=server[2])
    assert reply.rcode() == dns.rcode.NOTIMP
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((server[1], server[2]))
        sock.send(b"\x12")  # too short for an id: no answer
        sock.send(b"\x12\x34" + b"\x01\x00\x00\x01" + b"\xff" * 10)
        answer = await asyncio.wait_for(loop.sock_recv(sock, 512), 5)
    assert answer[:2] == b"\x12\x34"
    assert answer[3] & 15 == dns.rcode.FORMERR
    assert server[0].authority.malformed == 2


async def test_tcp_connections_above_the_limit_are_closed_and_counted(
    server: tuple[DnsServer, str, int],
) -> None:
    _, first = await asyncio.open_connection(server[1], server[2])
    reader, second = await asyncio.open_connection(server[1], server[2])
    assert await reader.read() == b""
    assert server[0].tcp_overflows == 1
    first.close()
    second.close()


async def test_the_sidecars_resolver_understands_it(server: tuple[DnsServer, str, int]) -> None:
    answer = await Resolver([SocketAddress(server[1], server[2])]).srv("_http._tcp.web.example.test.")
    assert answer.records == (SrvRecord(10, 3, 80, "a.example.test"), SrvRecord(20, 1, 81, "b.example.test"))
    assert dict(answer.addresses) == {
        "a.example.test": ("10.0.0.1", "fd00::1"),
        "b.example.test": ("10.0.0.2",),
    }
