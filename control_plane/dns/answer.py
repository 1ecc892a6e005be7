"""What an authoritative server answers to a query (RFC 1034 §4.3.2, RFC 2308). Pure: a message in, a message out.

It must not recurse, nor give out anything beyond its zones.
"""

from __future__ import annotations

from collections.abc import Sequence

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rrset
import dns.zone

MAX_CNAMES = 8
MAX_UDP = 1232
"""The largest answer over UDP whatever a client offers: no fragments on any common path (DNS flag day 2020)."""
PLAIN_UDP = 512

_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


def answer(zones: Sequence[dns.zone.Zone], query: dns.message.Message) -> dns.message.Message:
    """The response to ``query``, of any size."""
    response = dns.message.make_response(query, our_payload=MAX_UDP)
    response.flags &= ~dns.flags.RA
    if query.opcode() != dns.opcode.QUERY:
        response.set_rcode(dns.rcode.NOTIMP)
        return response
    if query.edns > 0:
        # RFC 6891 §6.1.3: a version that we do not speak.
        response.set_rcode(dns.rcode.BADVERS)
        return response
    if len(query.question) != 1:
        response.set_rcode(dns.rcode.FORMERR)
        return response
    question = query.question[0]
    zone = zone_of(zones, question.name)
    if zone is None or question.rdclass != dns.rdataclass.IN or question.rdtype in _TRANSFERS:
        response.set_rcode(dns.rcode.REFUSED)
        return response
    response.flags |= dns.flags.AA
    _look_up(zone, question.name, question.rdtype, response)
    return response


def zone_of(zones: Sequence[dns.zone.Zone], name: dns.name.Name) -> dns.zone.Zone | None:
    """The zone that ``name`` is in; the longest if several are."""
    holding = [zone for zone in zones if zone.origin is not None and name.is_subdomain(zone.origin)]
    return max(holding, key=lambda zone: len((zone.origin or dns.name.root).labels), default=None)


def _look_up(
    zone: dns.zone.Zone, name: dns.name.Name, wanted: dns.rdatatype.RdataType, response: dns.message.Message
) -> None:
    origin = zone.origin or dns.name.root
    for _ in range(MAX_CNAMES):
        node = zone.get_node(name.relativize(origin) if zone.relativize else name)
        if node is None:
            if not _has_below(zone, name):
                response.set_rcode(dns.rcode.NXDOMAIN)
            _say_negative(zone, response)
            return
        found = [_rrset(zone, name, rdtype) for rdtype in _types(node, wanted)]
        if found:
            response.answer += [rrset for rrset in found if rrset is not None]
            for rrset in response.answer:
                _add_addresses(zone, rrset, response)
            return
        alias = _rrset(zone, name, dns.rdatatype.CNAME)
        if alias is None:
            _say_negative(zone, response)
            return
        response.answer.append(alias)
        target = alias[0]
        assert isinstance(target, dns.rdtypes.ANY.CNAME.CNAME)
        name = target.target
        if not name.is_subdomain(origin):
            return  # the resolver goes on from here
    response.set_rcode(dns.rcode.SERVFAIL)


def _types(node: object, wanted: dns.rdatatype.RdataType) -> list[dns.rdatatype.RdataType]:
    present = [rdataset.rdtype for rdataset in node]  # type: ignore[attr-defined]
    return present if wanted == dns.rdatatype.ANY else [wanted] if wanted in present else []


def _rrset(
    zone: dns.zone.Zone, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> dns.rrset.RRset | None:
    """The records with absolute names."""
    origin = zone.origin or dns.name.root
    rdataset = zone.get_rdataset(name.relativize(origin) if zone.relativize else name, rdtype)
    if rdataset is None:
        return None
    absolute = [rdata.replace() for rdata in rdataset]
    return dns.rrset.from_rdata_list(name, rdataset.ttl, absolute)


def _has_below(zone: dns.zone.Zone, name: dns.name.Name) -> bool:
    """An empty non-terminal exists (RFC 8020), though it has no records."""
    origin = zone.origin or dns.name.root
    return any(known.derelativize(origin).is_subdomain(name) for known in zone)


def _say_negative(zone: dns.zone.Zone, response: dns.message.Message) -> None:
    """The SOA in the authority section, with the time that "no" may be kept (RFC 2308 §3, §5)."""
    origin = zone.origin or dns.name.root
    soa = _rrset(zone, origin, dns.rdatatype.SOA)
    if soa is not None:
        soa.ttl = min(soa.ttl, soa[0].minimum)
        response.authority.append(soa)


def _add_addresses(zone: dns.zone.Zone, rrset: dns.rrset.RRset, response: dns.message.Message) -> None:
    """Addresses of SRV targets (RFC 2782) beside the answer."""
    if rrset.rdtype != dns.rdatatype.SRV:
        return
    for target in dict.fromkeys(rdata.target for rdata in rrset):
        for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            addresses = _rrset(zone, target, rdtype) if target.is_subdomain(zone.origin) else None
            if addresses is not None and addresses not in response.additional:
                response.additional.append(addresses)


def udp_limit(query: dns.message.Message) -> int:
    """How long a UDP answer to ``query`` may be, in bytes."""
    return PLAIN_UDP if query.edns < 0 else max(PLAIN_UDP, min(query.payload, MAX_UDP))
