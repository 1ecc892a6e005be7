"""Lookups: which servers and names to ask, CNAME chains, SRV targets to addresses.

It returns answers as data and keeps nothing between calls; when to ask again is ``discovery``'s decision.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
from dns.rdatatype import RdataType

from proxy.discovery.answers import AddressAnswer, LookupFailed, SrvAnswer, SrvRecord
from proxy.discovery.transport import ask
from proxy.model.address import SocketAddress

#: A CNAME chain longer than this is a loop or an attack.
MAX_CNAMES = 8
#: SRV records taken from one answer; the rest are dropped, smallest priority and greatest weight first.
MAX_SRV_RECORDS = 512
#: TTL of addresses that come from the hosts file, seconds.
HOSTS_TTL = 60.0


class Resolver:
    """Asks ``servers`` in order until one answers; empty ``servers`` means those of ``resolv.conf``.

    ``mark`` is set on its sockets (``SO_MARK``), so that a pod's capture rules leave them alone.
    """

    def __init__(
        self,
        servers: Sequence[SocketAddress] = (),
        *,
        timeout: float = 2.0,
        attempts: int = 2,
        mark: int = 0,
        hosts_file: Path = Path("/etc/hosts"),
    ) -> None:
        self.servers = tuple(servers)
        self.timeout = timeout
        self.attempts = attempts
        self.mark = mark
        self.hosts_file = hosts_file
        self.truncated_sets = 0

    async def addresses(self, host: str, *, ipv4: bool = True, ipv6: bool = True) -> AddressAnswer:
        """A and AAAA records of ``host``, the hosts file and search domains applied. Raises :class:`LookupFailed`."""
        listed = _hosts_file_addresses(self.hosts_file, host)
        if listed:
            return AddressAnswer(listed, HOSTS_TTL)
        answer = AddressAnswer((), HOSTS_TTL)
        for name in self._names_to_try(host):
            answer = await self._addresses_of(name, ipv4=ipv4, ipv6=ipv6)
            if answer.addresses:
                break
        return answer

    async def srv(self, owner: str) -> SrvAnswer:
        """SRV records of ``owner`` and their targets' addresses. Raises :class:`LookupFailed`.

        Addresses in the additional section are used; missing ones are asked for (RFC 2782, "Usage rules").
        """
        name = dns.name.from_text(owner)
        message = await self._query(name, RdataType.SRV)
        final, rrset, ttl = _follow(message, name, RdataType.SRV)
        if rrset is None:
            return SrvAnswer((), (), _negative_ttl(message, ttl))
        records = sorted(
            (
                SrvRecord(rdata.priority, rdata.weight, rdata.port, _text(rdata.target))
                for rdata in rrset
                if rdata.target != dns.name.root and rdata.port
            ),
            key=lambda record: (record.priority, -record.weight, record.target, record.port),
        )
        if len(records) > MAX_SRV_RECORDS:
            self.truncated_sets += 1
            records = records[:MAX_SRV_RECORDS]
        addresses: dict[str, tuple[str, ...]] = {}
        wanted = {record.target for record in records}
        for extra in message.additional:
            target = _text(extra.name)
            # Glue is believed only inside the zone that answered; elsewhere anybody could claim any address.
            if (
                target in wanted
                and extra.rdtype in (RdataType.A, RdataType.AAAA)
                and _in_bailiwick(extra.name, final)
            ):
                addresses[target] = addresses.get(target, ()) + tuple(rdata.address for rdata in extra)
                ttl = min(ttl, float(extra.ttl))
        missing = sorted(wanted - addresses.keys())
        results = await asyncio.gather(
            *(self._addresses_of(dns.name.from_text(target)) for target in missing), return_exceptions=True
        )
        failed: LookupFailed | None = None
        for target, result in zip(missing, results, strict=True):
            if isinstance(result, LookupFailed):
                failed = result
            elif isinstance(result, BaseException):
                raise result
            else:
                addresses[target] = result.addresses
                ttl = min(ttl, result.ttl)
        if failed is not None and not any(addresses.values()):
            raise failed
        ordered = tuple(
            sorted((target, tuple(sorted(ips, key=_family_order))) for target, ips in addresses.items())
        )
        return SrvAnswer(tuple(records), ordered, ttl)

    async def _addresses_of(
        self, name: dns.name.Name, *, ipv4: bool = True, ipv6: bool = True
    ) -> AddressAnswer:
        types = [t for t, wanted in ((RdataType.A, ipv4), (RdataType.AAAA, ipv6)) if wanted]
        results = await asyncio.gather(*(self._query(name, t) for t in types), return_exceptions=True)
        addresses: list[str] = []
        ttls: list[float] = []
        failure: LookupFailed | None = None
        for rdtype, message in zip(types, results, strict=True):
            if isinstance(message, LookupFailed):
                failure = message
                continue
            if isinstance(message, BaseException):
                raise message
            _, rrset, ttl = _follow(message, name, rdtype)
            if rrset is None:
                ttls.append(_negative_ttl(message, ttl))
            else:
                addresses += [rdata.address for rdata in rrset]
                ttls.append(ttl)
        # One family's failure does not hide the other's addresses, but failure alone is no proof of absence.
        if failure is not None and not addresses:
            raise failure
        return AddressAnswer(tuple(addresses), min(ttls))

    async def _query(self, name: dns.name.Name, rdtype: RdataType) -> dns.message.Message:
        error = LookupFailed(f"{name} {rdtype.name}: no name server is configured")
        servers = self.servers or _system_servers()
        for _ in range(self.attempts):
            for server in servers:
                try:
                    message = await ask(name, rdtype, server, timeout=self.timeout, mark=self.mark)
                except LookupFailed as failed:
                    error = failed
                    continue
                if message.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return message
                error = LookupFailed(
                    f"{name} {rdtype.name} at {server}: {dns.rcode.to_text(message.rcode())}"
                )
        raise error

    def _names_to_try(self, host: str) -> list[dns.name.Name]:
        name = dns.name.from_text(host, origin=None)
        if name.is_absolute() or self.servers:
            return [name.derelativize(dns.name.root)]
        try:
            config = dns.resolver.Resolver()
        except dns.exception.DNSException:
            return [name.derelativize(dns.name.root)]
        absolute = name.derelativize(dns.name.root)
        searched = [name + suffix for suffix in (config.search or ())]
        dots = len(name.labels) - 1
        return [absolute, *searched] if dots >= (config.ndots or 1) else [*searched, absolute]


def _system_servers() -> tuple[SocketAddress, ...]:
    try:
        config = dns.resolver.Resolver()
    except dns.exception.DNSException:
        return ()
    return tuple(SocketAddress(str(server), config.port) for server in config.nameservers)


def _follow(
    message: dns.message.Message, name: dns.name.Name, rdtype: RdataType
) -> tuple[dns.name.Name, dns.rrset.RRset | None, float]:
    """The record set at the end of the CNAME chain from ``name``, and the chain's smallest TTL in seconds."""
    ttl = float("inf")
    for _ in range(MAX_CNAMES):
        rrset = message.get_rrset(message.answer, name, dns.rdataclass.IN, rdtype)
        if rrset is not None:
            return name, rrset, min(ttl, float(rrset.ttl))
        alias = message.get_rrset(message.answer, name, dns.rdataclass.IN, RdataType.CNAME)
        if alias is None:
            return name, None, ttl
        ttl = min(ttl, float(alias.ttl))
        name = alias[0].target
    raise LookupFailed(f"{name}: a CNAME chain of more than {MAX_CNAMES}")


def _negative_ttl(message: dns.message.Message, ttl: float) -> float:
    """How long an absence holds: the smaller of the SOA's TTL and its minimum field (RFC 2308 section 5)."""
    for rrset in message.authority:
        if rrset.rdtype == RdataType.SOA:
            return min(ttl, float(rrset.ttl), float(rrset[0].minimum))
    return min(ttl, 5.0)


def _in_bailiwick(name: dns.name.Name, owner: dns.name.Name) -> bool:
    """Whether the server that answers for ``owner`` may speak for ``name``: both under the owner's service domain."""
    labels = owner.labels
    while labels and labels[0].startswith(b"_"):
        labels = labels[1:]
    domain = dns.name.Name(labels)
    parent = domain.parent() if len(domain.labels) > 2 else domain
    return name.is_subdomain(parent)


def _hosts_file_addresses(path: Path, host: str) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    wanted = host.rstrip(".").lower()
    found = []
    for line in text.splitlines():
        ip, *names = line.split("#", 1)[0].split() or [""]
        if wanted in (name.lower() for name in names):
            found.append(ip)
    return tuple(sorted(dict.fromkeys(found), key=_family_order))


def _family_order(ip: str) -> int:
    return ipaddress.ip_address(ip.split("%", 1)[0]).version


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
