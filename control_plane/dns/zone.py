"""Answers from one zone (RFC 1034 section 4.3.2, RFC 2782 for what comes along with SRV). No input or output."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone
from dns.rdatatype import RdataType

MAX_CNAMES = 8
#: What a client that says nothing takes over UDP (RFC 1035 section 4.2.1).
PLAIN_UDP = 512
#: What we send over UDP at most, whatever the client offers.
MAX_UDP = 1232


class Authority:
    """Answers for ``zone``. ``refused`` counts questions that are none of its business."""

    def __init__(self, zone: dns.zone.Zone) -> None:
        self.zone = zone
        self.refused = 0
        self.malformed = 0

    @classmethod
    def from_text(cls, text: str) -> Authority:
        """From a zone file's text, which begins with ``$ORIGIN``. Raises ``dns.exception.DNSException``."""
        return cls(dns.zone.from_text(text, relativize=False))

    def answer_wire(self, wire: bytes, *, udp: bool) -> bytes | None:
        """The answer to a packet; ``None`` for what deserves none."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError) as error:
            self.malformed += 1
            return _format_error(wire) if not isinstance(error, dns.message.ShortHeader) else None
        if query.flags & dns.flags.QR:
            return None
        reply = self.answer(query)
        if not udp:
            return reply.to_wire(max_size=65535)
        size = min(max(query.payload, PLAIN_UDP), MAX_UDP) if query.edns >= 0 else PLAIN_UDP
        try:
            return reply.to_wire(max_size=size)
        except dns.exception.TooBig:
            cut = dns.message.make_response(query, our_payload=MAX_UDP)
            cut.flags |= dns.flags.AA | dns.flags.TC
            return cut.to_wire(max_size=size)

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """The answer to a parsed query."""
        reply = dns.message.make_response(query, our_payload=MAX_UDP)
        if query.opcode() != dns.opcode.QUERY:
            reply.set_rcode(dns.rcode.NOTIMP)
            return reply
        if len(query.question) != 1:
            reply.set_rcode(dns.rcode.FORMERR)
            return reply
        question = query.question[0]
        origin = self.zone.origin
        assert origin is not None
        transfer = question.rdtype in (RdataType.AXFR, RdataType.IXFR)
        if transfer or question.rdclass != dns.rdataclass.IN or not question.name.is_subdomain(origin):
            self.refused += 1
            reply.set_rcode(dns.rcode.REFUSED)
            return reply
        reply.flags |= dns.flags.AA
        self._resolve(reply, question.name, question.rdtype)
        return reply

    def _resolve(self, reply: dns.message.Message, name: dns.name.Name, rdtype: RdataType) -> None:
        origin = self.zone.origin
        for _ in range(MAX_CNAMES):
            found = self.zone.get_rrset(name, rdtype)
            if found is not None:
                reply.answer.append(found)
                self._additional(reply, found)
                return
            alias = self.zone.get_rrset(name, RdataType.CNAME)
            if alias is None:
                break
            reply.answer.append(alias)
            name = alias[0].target
            if origin is None or not name.is_subdomain(origin):
                return
        soa = self.zone.get_rrset(dns.name.empty if origin is None else origin, RdataType.SOA)
        if soa is not None:
            reply.authority.append(soa)
        if not self._exists(name):
            reply.set_rcode(dns.rcode.NXDOMAIN)

    def _exists(self, name: dns.name.Name) -> bool:
        """Whether the name or anything below it is in the zone (RFC 8020: an empty non-terminal exists)."""
        return any(node.is_subdomain(name) for node in self.zone.nodes)

    def _additional(self, reply: dns.message.Message, found: dns.rrset.RRset) -> None:
        if found.rdtype != RdataType.SRV:
            return
        for target in dict.fromkeys(rdata.target for rdata in found):
            for rdtype in (RdataType.A, RdataType.AAAA):
                addresses = self.zone.get_rrset(target, rdtype)
                if addresses is not None:
                    reply.additional.append(addresses)


def _format_error(wire: bytes) -> bytes | None:
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    # The header alone: same id, QR, FORMERR, all counts zero.
    return wire[:2] + bytes((0x80 | (wire[2] & 0x79), dns.rcode.FORMERR)) + bytes(8)
