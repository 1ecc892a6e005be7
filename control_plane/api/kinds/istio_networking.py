"""Istio's networking kinds: WorkloadEntry and ServiceEntry.

Our only addition is the resolution ``DNS_SRV`` (RFC 2782), which Istio has no word for: the endpoints are what SRV
records name, with their priorities, weights and ports. The owner name asked for is, for host H and a port named ``p``,
``_p._tcp.H``; ``endpoints[].address`` replaces it by another SRV name (one starting with ``_``).
This module must not look at other objects.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from control_plane.api.kinds.meta import Resource
from control_plane.api.kinds.problem import Reason
from control_plane.api.kinds.schema import (
    Breach,
    Int,
    Model,
    Port,
    checked,
    duplicates,
    is_ip,
    label_breaches,
    not_yet,
)

Protocol = Literal["HTTP", "HTTPS", "GRPC", "HTTP2", "MONGO", "TCP", "TLS"]

_DNS_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_]([-A-Za-z0-9_]{0,62})(\.[A-Za-z0-9_][-A-Za-z0-9_]{0,62})*\.?")
_PORT_NAME = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")


def is_dns_name(value: str) -> bool:
    """Whether ``value`` can be looked up: dotted labels of letters, digits, '-' and '_', up to 253 characters."""
    return len(value) <= 253 and _DNS_NAME.fullmatch(value) is not None


class WorkloadEntrySpec(Model):
    """One workload: where it is, which labels it has and which service account it runs as."""

    address: Annotated[str, Field(max_length=256)]
    ports: Annotated[Mapping[str, Port], Field(max_length=128)] = {}
    labels: Annotated[Mapping[str, str], Field(max_length=256)] = {}
    network: Annotated[Any, not_yet("all workloads are in one network")] = None
    locality: Annotated[str, Field(max_length=2048)] = ""
    weight: Annotated[Int, Field(ge=0, le=2**32 - 1)] = 0
    service_account: Annotated[
        str,
        Field(max_length=253),
        checked(
            lambda v: not v or re.fullmatch(r"[A-Za-z0-9._-]+", v) is not None,
            "{value} must be a service account",
        ),
    ] = ""

    def rules(self) -> Iterator[Breach]:
        if self.address.startswith("unix://"):
            yield Breach(("address",), "unix domain sockets are not supported yet", Reason.FORBIDDEN)
        elif not is_ip(self.address) and not is_dns_name(self.address):
            yield Breach(("address",), f"{self.address!r} must be an IP address or a DNS name")
        for name in self.ports:
            if len(name) >= 63 or not _PORT_NAME.fullmatch(name):
                yield Breach(("ports", name), f"{name!r} is not a valid port name")
        yield from label_breaches(("labels",), self.labels)


class WorkloadEntry(Resource):
    """``networking.istio.io/v1`` WorkloadEntry."""

    spec: WorkloadEntrySpec

    def rules(self) -> Iterator[Breach]:
        if not self.spec.address.startswith("unix://") and not is_ip(self.spec.address):
            yield Breach(
                ("spec", "address"),
                f"{self.spec.address!r} must be an IP address (names belong in a ServiceEntry)",
            )


class ServicePort(Model):
    """A port of a ServiceEntry; ``targetPort`` is the endpoints' port where it differs."""

    number: Port
    protocol: Protocol = "TCP"
    name: Annotated[
        str,
        Field(min_length=1, max_length=256),
        checked(lambda v: _PORT_NAME.fullmatch(v) is not None, "{value} must be letters, digits and '-'"),
    ]
    target_port: Port | None = None


class ServiceEntrySpec(Model):
    hosts: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    addresses: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    ports: Annotated[tuple[ServicePort, ...], Field(min_length=1, max_length=256)]
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_SRV"] = "NONE"
    endpoints: Annotated[tuple[WorkloadEntrySpec, ...], Field(max_length=4096)] = ()
    workload_selector: Annotated[Any, not_yet("list the endpoints, or use a Service with a selector")] = None
    export_to: tuple[Literal["*"], ...] = ("*",)
    subject_alt_names: Annotated[Any, not_yet("TLS origination needs a DestinationRule")] = None

    def rules(self) -> Iterator[Breach]:
        for index, host in enumerate(self.hosts):
            if "*" in host:
                yield Breach(("hosts", index), "wildcard hosts are not supported yet", Reason.FORBIDDEN)
            elif is_ip(host) or not is_dns_name(host):
                yield Breach(("hosts", index), f"{host!r} must be a DNS name")
        for index in duplicates(h.lower().rstrip(".") for h in self.hosts):
            yield Breach(("hosts", index), f"{self.hosts[index]!r} is listed twice", Reason.DUPLICATE)
        for index in duplicates(p.number for p in self.ports):
            yield Breach(
                ("ports", index, "number"), f"{self.ports[index].number} is used twice", Reason.DUPLICATE
            )
        for index in duplicates(p.name for p in self.ports):
            yield Breach(
                ("ports", index, "name"), f"{self.ports[index].name!r} is used twice", Reason.DUPLICATE
            )
        yield from self._address_rules()
        yield from self._endpoint_rules()

    def _address_rules(self) -> Iterator[Breach]:
        for index, address in enumerate(self.addresses):
            if "/" in address:
                yield Breach(
                    ("addresses", index),
                    "CIDR ranges are not supported yet: list single addresses",
                    Reason.FORBIDDEN,
                )
            elif not is_ip(address):
                yield Breach(("addresses", index), f"{address!r} must be an IP address")
        canonical = [str(ipaddress.ip_address(a)) if is_ip(a) else a for a in self.addresses]
        for index in duplicates(canonical):
            yield Breach(("addresses", index), f"{self.addresses[index]!r} is listed twice", Reason.DUPLICATE)

    def _endpoint_rules(self) -> Iterator[Breach]:
        if self.resolution == "NONE" and self.endpoints:
            yield Breach(("endpoints",), "must be absent with resolution NONE", Reason.FORBIDDEN)
        if self.resolution == "STATIC" and not self.endpoints:
            yield Breach(("endpoints",), "is required with resolution STATIC", Reason.REQUIRED)
        names = {port.name for port in self.ports}
        for index, endpoint in enumerate(self.endpoints):
            loc = ("endpoints", index, "address")
            if self.resolution == "STATIC" and not is_ip(endpoint.address):
                yield Breach(loc, f"{endpoint.address!r} must be an IP address with resolution STATIC")
            if self.resolution == "DNS_SRV":
                if not endpoint.address.startswith("_"):
                    yield Breach(loc, f"{endpoint.address!r} must be an SRV name like _http._tcp.example.org")
                for field in ("ports", "weight"):
                    if getattr(endpoint, field):
                        yield Breach(
                            ("endpoints", index, field),
                            "comes from DNS with resolution DNS_SRV",
                            Reason.FORBIDDEN,
                        )
            for name in endpoint.ports:
                if name not in names:
                    yield Breach(
                        ("endpoints", index, "ports", name), f"no port of this entry is named {name!r}"
                    )
        if self.resolution == "DNS_SRV" and len(self.endpoints) > 1:
            yield Breach(("endpoints",), "at most one SRV name can be given", Reason.TOO_MANY)


class ServiceEntry(Resource):
    """``networking.istio.io/v1`` ServiceEntry."""

    spec: ServiceEntrySpec
