"""From an SRV answer to a load assignment, as RFC 2782 means it. Pure.

SRV priorities become Envoy priorities (0 is the lowest SRV number, without gaps), so the balancer's
failover applies to them. Weights are kept in proportion. The selection text of RFC 2782 gives weights that
are off by one (1:1 comes out as 2:1), so the balancer picks in proportion to weight instead.
"""

from __future__ import annotations

from math import lcm

from proxy.discovery.answers import AddressAnswer, SrvAnswer
from proxy.model.address import SocketAddress
from proxy.model.cluster import Endpoint, LoadAssignment, LocalityEndpoints

#: A target of weight 0 beside others is picked this much more rarely than one of weight 1.
ZERO_WEIGHT_DIVISOR = 100


def srv_assignment(cluster_name: str, answer: SrvAnswer) -> LoadAssignment:
    """The endpoints of ``answer``; targets without an address are left out."""
    addresses = dict(answer.addresses)
    tiers = sorted({record.priority for record in answer.records})
    localities = []
    for level, tier in enumerate(tiers):
        found = [
            (record, addresses[record.target])
            for record in answer.records
            if record.priority == tier and addresses.get(record.target)
        ]
        zero = any(record.weight == 0 for record, _ in found)
        # A target's share is divided among its addresses; the common multiple keeps the division exact.
        split = lcm(*(len(ips) for _, ips in found)) if found else 1
        endpoints: list[Endpoint] = []
        for record, ips in found:
            share = record.weight * (ZERO_WEIGHT_DIVISOR if zero else 1) or 1
            endpoints.extend(
                Endpoint(
                    address=SocketAddress(ip, record.port),
                    hostname=record.target,
                    weight=share * split // len(ips),
                )
                for ip in ips
            )
        localities.append(LocalityEndpoints(endpoints=tuple(endpoints), priority=level))
    return LoadAssignment(cluster_name=cluster_name, localities=tuple(localities))


def address_assignment(
    template: LoadAssignment, answers: dict[str, AddressAnswer], *, logical: bool
) -> LoadAssignment:
    """``template`` with each host name replaced by its addresses.

    ``logical`` (Envoy's LOGICAL_DNS) uses only the first address of a name. IP literals stay as they are.
    """
    localities = []
    for locality in template.localities:
        endpoints: list[Endpoint] = []
        for endpoint in locality.endpoints:
            answer = answers.get(endpoint.address.host)
            ips = (endpoint.address.host,) if answer is None else answer.addresses
            endpoints.extend(
                Endpoint(
                    address=SocketAddress(ip, endpoint.address.port),
                    hostname=endpoint.hostname or endpoint.address.host,
                    weight=endpoint.weight,
                    health_status=endpoint.health_status,
                    transport_match=endpoint.transport_match,
                    health_check=endpoint.health_check,
                )
                for ip in (ips[:1] if logical else ips)
            )
        localities.append(
            LocalityEndpoints(
                endpoints=tuple(endpoints),
                priority=locality.priority,
                weight=locality.weight,
                region=locality.region,
                zone=locality.zone,
                sub_zone=locality.sub_zone,
            )
        )
    return LoadAssignment(
        cluster_name=template.cluster_name,
        localities=tuple(localities),
        overprovisioning_factor=template.overprovisioning_factor,
    )
