"""The authoritative DNS server, asked by dnspython's resolver and by hand."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.asyncresolver
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.resolver
import pytest

from control_plane.dns.server import DnsOptions, DnsServer, zone_from_records, zone_from_text

RECORDS = [
    "ns A 127.0.0.1",
    "_http._tcp.web SRV 0 70 8080 a",
    "_http._tcp.web SRV 0 30 8080 b",
    "_http._tcp.web SRV 1 0 8081 c.elsewhere.net.",
    "a A 10.0.0.1",
    "a AAAA fd00::1",
    "b A 10.0.0.2",
    "alias CNAME a",
    "away CNAME www.elsewhere.net.",
    "loop1 CNAME loop2",
    "loop2 CNAME loop1",
    "deep.empty A 10.0.0.3",
    *(f"_many._tcp SRV 0 1 80 host-with-a-long-name-{n}" for n in range(60)),
]


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    server = DnsServer(
        [zone_from_records("example.org", RECORDS)], DnsOptions(max_connections=2, tcp_idle=0.5)
    )
    server.address = await server.start("127.0.0.1", 0)  # type: ignore[attr-defined]
    yield server
    await server.stop()


async def ask(
    server: DnsServer, name: str, rdtype: str, *, tcp: bool = False, **options
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, **options)
    host, port = server.address
    send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await send(query, host, port=port, timeout=5)


def resolver(server: DnsServer) -> dns.asyncresolver.Resolver:
    found = dns.asyncresolver.Resolver(configure=False)
    found.nameservers, found.port = ["127.0.0.1"], server.address[1]
    return found


async def test_srv_with_the_targets_addresses(server: DnsServer) -> None:
    response = await ask(server, "_http._tcp.web.example.org", "SRV")
    assert response.flags & dns.flags.AA
    assert not response.flags & dns.flags.RA
    assert sorted((r.priority, r.weight, r.port, str(r.target)) for r in response.answer[0]) == [
        (0, 30, 8080, "b.example.org."),
        (0, 70, 8080, "a.example.org."),
        (1, 0, 8081, "c.elsewhere.net."),
    ]
    assert response.answer[0].ttl == 5
    additional = {(str(rrset.name), str(rdata)) for rrset in response.additional for rdata in rrset}
    assert additional == {
        ("a.example.org.", "10.0.0.1"),
        ("a.example.org.", "fd00::1"),
        ("b.example.org.", "10.0.0.2"),
    }


async def test_the_resolver_sees_names_of_any_case(server: DnsServer) -> None:
    found = await resolver(server).resolve("A.Example.ORG", "A")
    assert [str(one) for one in found] == ["10.0.0.1"]
    found = await resolver(server).resolve("alias.example.org", "AAAA")
    assert [str(one) for one in found] == ["fd00::1"]


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode"),
    [
        ("nobody.example.org", "A", "NXDOMAIN"),
        ("b.example.org", "AAAA", "NOERROR"),
        ("empty.example.org", "A", "NOERROR"),
    ],
    ids=["no such name", "no such type", "empty non-terminal"],
)
async def test_no_comes_with_the_soa(server: DnsServer, name: str, rdtype: str, rcode: str) -> None:
    response = await ask(server, name, rdtype)
    assert dns.rcode.to_text(response.rcode()) == rcode
    assert response.answer == []
    assert [rrset.rdtype for rrset in response.authority] == [dns.rdatatype.SOA]
    assert response.flags & dns.flags.AA


async def test_aliases_out_of_the_zone_and_in_circles(server: DnsServer) -> None:
    away = await ask(server, "away.example.org", "A")
    assert (away.rcode(), len(away.answer)) == (dns.rcode.NOERROR, 1)
    assert (await ask(server, "loop1.example.org", "A")).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    ("name", "rdtype"), [("example.com", "A"), ("example.org", "AXFR"), ("notexample.org", "A")]
)
async def test_what_is_not_ours_is_refused(server: DnsServer, name: str, rdtype: str) -> None:
    # dnspython's TCP would read a transfer as a stream of messages, so the answer is read by hand.
    query = dns.message.make_query(name, rdtype)
    reader, writer = await asyncio.open_connection(*server.address)
    wire = query.to_wire()
    writer.write(len(wire).to_bytes(2, "big") + wire)
    length = int.from_bytes(await reader.readexactly(2), "big")
    response = dns.message.from_wire(await reader.readexactly(length))
    assert response.rcode() == dns.rcode.REFUSED
    assert not response.answer
    writer.close()


async def test_long_answers_are_truncated_and_whole_over_tcp(server: DnsServer) -> None:
    response = await ask(server, "_many._tcp.example.org", "SRV")
    assert response.flags & dns.flags.TC
    assert not response.answer
    assert server.truncated == 1
    whole = await ask(server, "_many._tcp.example.org", "SRV", tcp=True)
    assert len(whole.answer[0]) == 60
    found = await resolver(server).resolve("_many._tcp.example.org", "SRV")
    assert len(found) == 60, "the resolver goes to TCP by itself"


async def test_additional_records_go_before_the_answer_does(server: DnsServer) -> None:
    server.zones = (
        zone_from_records(
            "example.org",
            [f"s SRV 0 1 80 t{n}" for n in range(12)] + [f"t{n} AAAA fd00::{n}" for n in range(12)],
        ),
    )
    response = await ask(server, "s.example.org", "SRV")
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 12
    assert not response.additional


async def test_edns(server: DnsServer) -> None:
    response = await ask(server, "a.example.org", "A", use_edns=0, payload=4096)
    assert response.edns == 0
    assert (await ask(server, "a.example.org", "A")).edns == -1
    assert (await ask(server, "a.example.org", "A", use_edns=1)).rcode() == dns.rcode.BADVERS


async def test_other_opcodes(server: DnsServer) -> None:
    query = dns.message.make_query("example.org", "SOA")
    query.set_opcode(dns.opcode.NOTIFY)
    response = await dns.asyncquery.udp(query, *server.address[:1], port=server.address[1], timeout=5)
    assert response.rcode() == dns.rcode.NOTIMP


async def test_garbage_is_harmless(server: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(server.address)
        loop = asyncio.get_running_loop()
        for junk in (b"", b"x", b"\x12\x34\x81\x80" + b"\0" * 8):
            client.send(junk)  # too short, or a response: no answer, or two servers would talk for ever
        client.send(b"\x12\x34\x01\x00\x00\x01" + b"\0" * 6 + b"\xff")
        answer = await asyncio.wait_for(loop.sock_recv(client, 512), 5)
    assert answer[:2] == b"\x12\x34"
    assert dns.message.from_wire(answer).rcode() == dns.rcode.FORMERR
    assert (await ask(server, "a.example.org", "A")).rcode() == dns.rcode.NOERROR


async def test_tcp_connections_are_limited_and_do_not_stay(server: DnsServer) -> None:
    first = [await asyncio.open_connection(*server.address) for _ in range(2)]
    third, writer = await asyncio.open_connection(*server.address)
    assert await asyncio.wait_for(third.read(), 5) == b""
    assert server.connections_refused == 1
    writer.close()
    for reader, writer in first:
        assert await asyncio.wait_for(reader.read(), 5) == b"", "idle connections are closed"
        writer.close()


@pytest.mark.parametrize(
    "text", ["a A 10.0.0.1", "$ORIGIN x.\na A 10.0.0.1\n", "$ORIGIN x.\n@ SOA nonsense\n"]
)
def test_bad_zones(text: str) -> None:
    with pytest.raises(ValueError, match=r"zone: ."):
        zone_from_text(text)


async def test_the_command_reloads_on_sighup(tmp_path) -> None:
    file = tmp_path / "zone"
    head = "$ORIGIN example.org.\n$TTL 5\n@ SOA ns root 1 1 1 1 1\n@ NS ns\n"
    file.write_text(head + "a A 10.0.0.1\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "control_plane.dns", "--zone", str(file), "--listen", "127.0.0.1:0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        host, port = line.split(":")

        async def lookup() -> str:
            query = dns.message.make_query("a.example.org", "A")
            return str((await dns.asyncquery.udp(query, host, port=int(port), timeout=5)).answer[0][0])

        assert await lookup() == "10.0.0.1"
        file.write_text(head + "a A 10.0.0.2\n")
        process.send_signal(signal.SIGHUP)
        assert b"read again" in await asyncio.wait_for(process.stderr.readline(), 5)
        assert await lookup() == "10.0.0.2"
        file.write_text("nonsense")
        process.send_signal(signal.SIGHUP)
        assert b"stay" in await asyncio.wait_for(process.stderr.readline(), 5)
        assert await lookup() == "10.0.0.2"
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 5) == 0
