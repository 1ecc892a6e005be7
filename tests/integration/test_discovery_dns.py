"""Lookups against a real DNS server on loopback that the test writes answer by answer."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from proxy.discovery.answers import LookupFailed, SrvRecord
from proxy.discovery.discovery import Discovery, lookup
from proxy.discovery.resolver import Resolver
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, DnsSrv, Endpoint, LoadAssignment, LocalityEndpoints

Answer = Callable[[dns.message.Message], dns.message.Message | bytes | None]


class Server(asyncio.DatagramProtocol):
    """Answers over UDP and TCP from ``records`` (zone-file lines by name and type); ``hook`` may interfere."""

    def __init__(self, *lines: str) -> None:
        self.set(*lines)
        self.hook: Callable[[dns.message.Message, bool], bytes | None] | None = None
        self.rcode = dns.rcode.NOERROR
        self.glue: list[str] = []
        self.queries = 0
        self.address = SocketAddress("127.0.0.1", 0)

    def set(self, *lines: str) -> None:
        grouped: dict[tuple[str, str, str], list[str]] = {}
        for line in lines:
            owner, ttl, rdtype, value = line.split(None, 3)
            grouped.setdefault((owner, ttl, rdtype), []).append(value)
        self.sets = {
            (owner, rdtype): dns.rrset.from_text(owner, int(ttl), "IN", rdtype, *values)
            for (owner, ttl, rdtype), values in grouped.items()
        }

    def answer(self, wire: bytes, tcp: bool) -> bytes:
        self.queries += 1
        query = dns.message.from_wire(wire)
        if self.hook is not None:
            hooked = self.hook(query, tcp)
            if hooked is not None:
                return hooked
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA
        reply.set_rcode(self.rcode)
        question = query.question[0]
        name, rdtype = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        for _ in range(20):
            if (name, rdtype) in self.sets:
                reply.answer.append(self.sets[name, rdtype])
                break
            if (name, "CNAME") not in self.sets:
                break
            alias = self.sets[name, "CNAME"]
            reply.answer.append(alias)
            name = alias[0].target.to_text()
        if not reply.answer and self.rcode == dns.rcode.NOERROR:
            reply.authority.append(
                dns.rrset.from_text("test.", 60, "IN", "SOA", "ns.test. root.test. 1 2 3 4 7")
            )
        for line in self.glue:
            owner, ttl, kind, value = line.split(None, 3)
            reply.additional.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, value))
        return reply.to_wire(max_size=65535)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(self.answer(data, False), addr)  # type: ignore[attr-defined]

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        wire = self.answer(await reader.readexactly(length), True)
        writer.write(struct.pack("!H", len(wire)) + wire)
        await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Resolver]:
    loop = asyncio.get_running_loop()
    tcp = await asyncio.start_server(server.stream, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", port))
    server.address = SocketAddress("127.0.0.1", port)
    try:
        yield Resolver([server.address], timeout=0.5, attempts=1, hosts_file=Path("/nonexistent"))
    finally:
        udp.close()
        tcp.close()
        await tcp.wait_closed()


SRV = "_http._tcp.web.test."


async def test_srv_resolves_targets_that_the_answer_does_not_bring() -> None:
    server = Server(
        f"{SRV} 30 SRV 10 5 8080 a.web.test.",
        f"{SRV} 30 SRV 20 0 8081 b.web.test.",
        "a.web.test. 12 A 127.0.0.1",
        "a.web.test. 60 AAAA ::1",
        "b.web.test. 60 A 127.0.0.2",
    )
    async with serving(server) as resolver:
        answer = await resolver.srv(SRV)
    assert answer.records == (SrvRecord(10, 5, 8080, "a.web.test"), SrvRecord(20, 0, 8081, "b.web.test"))
    assert dict(answer.addresses) == {"a.web.test": ("127.0.0.1", "::1"), "b.web.test": ("127.0.0.2",)}
    assert answer.ttl == 7  # b has no AAAA: that absence holds for the SOA's minimum


async def test_additional_section_saves_queries_but_only_inside_the_zone() -> None:
    server = Server(f"{SRV} 30 SRV 0 1 80 a.web.test.", f"{SRV} 30 SRV 0 1 80 x.evil.example.")
    server.glue = ["a.web.test. 20 A 10.0.0.1", "x.evil.example. 20 A 10.6.6.6"]
    server.set(
        *(f"{SRV} 30 SRV 0 1 80 {t}." for t in ("a.web.test", "x.evil.example")),
        "x.evil.example. 9 A 10.0.0.9",
    )
    async with serving(server) as resolver:
        answer = await resolver.srv(SRV)
    assert dict(answer.addresses) == {"a.web.test": ("10.0.0.1",), "x.evil.example": ("10.0.0.9",)}
    assert server.queries == 3  # SRV, and A and AAAA of the foreign target alone


async def test_root_target_and_no_data_mean_absent() -> None:
    async with serving(Server(f"{SRV} 30 SRV 0 0 0 .")) as resolver:
        assert (await resolver.srv(SRV)).records == ()
    server = Server()
    server.rcode = dns.rcode.NXDOMAIN
    async with serving(server) as resolver:
        assert (await resolver.srv(SRV)).records == ()


async def test_truncated_answers_are_fetched_over_tcp() -> None:
    lines = [f"{SRV} 30 SRV 0 1 {port} a.web.test." for port in range(1000, 1100)]
    server = Server(*lines, "a.web.test. 60 A 127.0.0.1", "a.web.test. 60 AAAA ::1")

    def truncate(query: dns.message.Message, tcp: bool) -> bytes | None:
        if tcp or query.question[0].rdtype != dns.rdatatype.SRV:
            return None
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.TC
        return reply.to_wire()

    server.hook = truncate
    async with serving(server) as resolver:
        assert len((await resolver.srv(SRV)).records) == 100


async def test_sets_larger_than_the_limit_are_cut_and_counted() -> None:
    server = Server(
        *[f"{SRV} 30 SRV 0 1 {port} a.web.test." for port in range(1000, 1600)], "a.web.test. 60 A 127.0.0.1"
    )
    async with serving(server) as resolver:
        resolver.attempts = 1
        server.hook = lambda query, tcp: _truncated(query) if not tcp and _is_srv(query) else None
        assert len((await resolver.srv(SRV)).records) == 512
        assert resolver.truncated_sets == 1


def _is_srv(query: dns.message.Message) -> bool:
    return query.question[0].rdtype == dns.rdatatype.SRV


def _truncated(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.TC
    return reply.to_wire()


async def test_cname_chains_are_followed_and_loops_end() -> None:
    server = Server(
        "w.test. 30 CNAME v.test.", "v.test. 8 CNAME a.test.", "a.test. 60 A 10.0.0.1", "a.test. 60 AAAA ::1"
    )
    async with serving(server) as resolver:
        answer = await resolver.addresses("w.test.")
        assert answer.addresses == ("10.0.0.1", "::1")
        assert answer.ttl == 8
        server.set("w.test. 30 CNAME v.test.", "v.test. 30 CNAME w.test.")
        with pytest.raises(LookupFailed, match="CNAME"):
            await resolver.addresses("w.test.")


@pytest.mark.parametrize("attack", ["wrong id", "wrong question", "garbage"])
async def test_forged_answers_are_ignored(attack: str) -> None:
    server = Server("w.test. 30 A 10.6.6.6")

    def forge(query: dns.message.Message, tcp: bool) -> bytes:
        if attack == "garbage":
            return b"\x00" * 7
        asked = query if attack == "wrong id" else dns.message.make_query("other.test.", "A")
        reply = dns.message.make_response(asked)
        reply.id = (query.id + 1) % 65536 if attack == "wrong id" else query.id
        reply.answer.append(dns.rrset.from_text("w.test.", 30, "IN", "A", "10.6.6.6"))
        return reply.to_wire()

    server.hook = forge
    async with serving(server) as resolver:
        with pytest.raises(LookupFailed):
            await resolver.addresses("w.test.")


async def test_the_next_server_is_asked_when_one_fails() -> None:
    broken, good = Server(), Server("w.test. 30 A 10.0.0.1", "w.test. 30 AAAA ::1")
    broken.rcode = dns.rcode.SERVFAIL
    async with serving(broken), serving(good) as resolver:
        resolver.servers = (broken.address, good.address)
        assert (await resolver.addresses("w.test.")).addresses == ("10.0.0.1", "::1")
    assert broken.queries == 2


async def test_hosts_file_comes_first(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# comment\n10.1.2.3 web Web.Test\n::1 web.test\n")
    resolver = Resolver([SocketAddress("127.0.0.1", 9)], hosts_file=hosts)
    assert (await resolver.addresses("web.test")).addresses == ("10.1.2.3", "::1")


class Recorder:
    """A live cluster that notes what it is given."""

    def __init__(self, config: Cluster) -> None:
        self.name = config.name
        self.config = config
        self.given: asyncio.Queue[LoadAssignment] = asyncio.Queue()

    def set_endpoints(self, assignment: LoadAssignment) -> None:
        self.given.put_nowait(assignment)


def weights(assignment: LoadAssignment) -> dict[str, int]:
    return {str(e.address): e.weight for locality in assignment.localities for e in locality.endpoints}


async def test_discovery_follows_changes_and_keeps_the_last_good_answer() -> None:
    server = Server(f"{SRV} 0 SRV 0 1 80 a.web.test.", "a.web.test. 0 A 127.0.0.1", "a.web.test. 0 AAAA ::1")
    async with serving(server):
        config = Cluster("srv", "DNS_SRV", dns_srv=DnsSrv(SRV, (server.address,), min_ttl=0.01, max_ttl=0.02))
        cluster = Recorder(config)
        discovery = Discovery(asyncio.get_running_loop())
        discovery.reconcile({"srv": cluster})
        try:
            assert weights(await cluster.given.get()) == {"127.0.0.1:80": 1, "[::1]:80": 1}
            server.rcode = dns.rcode.SERVFAIL
            while not discovery.stats["srv"].failure:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert cluster.given.empty()
            server.rcode = dns.rcode.NOERROR
            server.set(
                f"{SRV} 0 SRV 0 3 81 a.web.test.", "a.web.test. 0 A 127.0.0.1", "a.web.test. 0 AAAA ::1"
            )
            assert weights(await cluster.given.get()) == {"127.0.0.1:81": 3, "[::1]:81": 3}
            server.set(f"{SRV} 0 SRV 0 0 0 .")
            assert weights(await cluster.given.get()) == {}
            discovery.reconcile({})
            assert discovery.stats == {}
        finally:
            await discovery.stop()


async def test_strict_dns_uses_every_address_and_logical_the_first() -> None:
    server = Server("w.test. 30 A 10.0.0.1", "w.test. 30 A 10.0.0.2")
    template = LoadAssignment("c", (LocalityEndpoints((Endpoint(SocketAddress("w.test", 80)),)),))
    async with serving(server) as resolver:
        strict, _ = await lookup(Cluster("c", "STRICT_DNS", load_assignment=template), resolver)
        logical, _ = await lookup(Cluster("c", "LOGICAL_DNS", load_assignment=template), resolver)
    assert sorted(weights(strict)) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert len(weights(logical)) == 1
