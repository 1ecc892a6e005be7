"""Kubernetes discovery kinds: EndpointSlice.

A slice labelled ``kubernetes.io/service-name`` gives a Service endpoints that no WorkloadEntry describes.
This module must not look at other objects.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from control_plane.api.kinds.core import AppProtocol
from control_plane.api.kinds.meta import Resource
from control_plane.api.kinds.problem import Reason
from control_plane.api.kinds.schema import Bool, Breach, DnsLabel, Model, Port, duplicates, is_ip

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""The label that joins a slice to the Service of that name in its namespace."""


class EndpointConditions(Model):
    """All unset conditions count as Kubernetes says: ready and serving unless told otherwise."""

    ready: Bool | None = None
    serving: Bool | None = None
    terminating: Bool | None = None


class Endpoint(Model):
    """One endpoint; its addresses are interchangeable and the first is used."""

    addresses: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    conditions: EndpointConditions = EndpointConditions()
    hostname: DnsLabel | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: Mapping[str, Any] | None = None
    hints: Mapping[str, Any] | None = None
    deprecated_topology: Mapping[str, str] | None = None


class EndpointPort(Model):
    """A port of every endpoint of the slice; ``name`` equals the Service port's name ("" = unnamed)."""

    name: str = ""
    protocol: Literal["TCP", "UDP"] = "TCP"
    port: Port
    app_protocol: AppProtocol | None = None


class EndpointSlice(Resource):
    """``discovery.k8s.io/v1`` EndpointSlice; its fields stand at the top of the document."""

    address_type: Literal["IPv4", "IPv6"]
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=1000)] = ()
    ports: Annotated[tuple[EndpointPort, ...], Field(max_length=100)] = ()

    def rules(self) -> Iterator[Breach]:
        version = 4 if self.address_type == "IPv4" else 6
        for index, endpoint in enumerate(self.endpoints):
            for position, address in enumerate(endpoint.addresses):
                loc = ("endpoints", index, "addresses", position)
                if not is_ip(address) or ipaddress.ip_address(address).version != version:
                    yield Breach(
                        loc, f"{address!r} must be an {self.address_type} address, as addressType says"
                    )
                elif (parsed := ipaddress.ip_address(address)).is_loopback or parsed.is_unspecified:
                    yield Breach(loc, f"{address!r} must not be a loopback or unspecified address")
                elif parsed.is_multicast or parsed.is_link_local:
                    yield Breach(loc, f"{address!r} must not be a multicast or link-local address")
        for index in duplicates(p.name for p in self.ports):
            name = self.ports[index].name
            yield Breach(("ports", index, "name"), f"{name!r} is used twice", Reason.DUPLICATE)
