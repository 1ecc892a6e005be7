"""Kubernetes core kinds: Service.

A Service names a set of workloads: ``<name>.<namespace>.<mesh domain>``. Published fields that the mesh
cannot honour are refused, never ignored. This module must not look at other objects.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from control_plane.api.kinds.meta import Resource
from control_plane.api.kinds.problem import Reason
from control_plane.api.kinds.schema import (
    Bool,
    Breach,
    DnsLabel,
    Model,
    Port,
    custom_error,
    duplicates,
    label_breaches,
    matching,
    not_yet,
)


def _int_or_port_name(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise custom_error(Reason.TYPE_INVALID, "must be a port number or the name of a port")
    if isinstance(value, int) and not 1 <= value <= 65535:
        raise custom_error(Reason.INVALID, f"{value} must be between 1 and 65535")
    if isinstance(value, str) and (
        len(value) > 15
        or not value.replace("-", "").isalnum()
        or value != value.lower()
        or value.strip("-") != value
        or "--" in value
        or value.isdigit()
    ):
        raise custom_error(
            Reason.INVALID,
            f"{value!r} must be a port name: up to 15 lower case letters, digits and single '-', at least one letter",
        )
    return value


TargetPort = Annotated[Any, BeforeValidator(_int_or_port_name)]

AppProtocol = Annotated[
    str,
    Field(max_length=253),
    matching(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", "{value} must be a qualified name"),
]


class ServicePort(Model):
    """One port: ``port`` at the service's address leads to ``targetPort`` (default the same) of its workloads."""

    name: DnsLabel | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"
    port: Port
    target_port: TargetPort = None
    app_protocol: AppProtocol | None = None
    node_port: Annotated[Any, not_yet("the mesh opens no node ports")] = None


class ServiceSpec(Model):
    ports: tuple[ServicePort, ...] = ()
    selector: Mapping[str, str] = {}
    cluster_ip: Annotated[str, Field(alias="clusterIP")] = ""
    cluster_ips: Annotated[tuple[str, ...], Field(alias="clusterIPs", max_length=2)] = ()
    type: Literal["ClusterIP"] = "ClusterIP"
    session_affinity: Literal["None"] = "None"
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    internal_traffic_policy: Literal["Cluster"] = "Cluster"
    publish_not_ready_addresses: Bool = False
    external_name: Annotated[Any, not_yet("use a ServiceEntry with resolution DNS")] = None
    external_ips: Annotated[Any, not_yet("use clusterIP"), Field(alias="externalIPs")] = None
    session_affinity_config: Annotated[Any, not_yet("sessions have no affinity")] = None
    load_balancer_ip: Annotated[Any, not_yet("there is no load balancer"), Field(alias="loadBalancerIP")] = (
        None
    )
    load_balancer_class: Annotated[Any, not_yet("there is no load balancer")] = None
    load_balancer_source_ranges: Annotated[Any, not_yet("use an AuthorizationPolicy")] = None
    allocate_load_balancer_node_ports: Annotated[Any, not_yet("there is no load balancer")] = None
    external_traffic_policy: Annotated[Any, not_yet("there are no node ports")] = None
    health_check_node_port: Annotated[Any, not_yet("there are no node ports")] = None
    traffic_distribution: Annotated[Any, not_yet("endpoints are not chosen by topology")] = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The virtual addresses, canonical, without "None"; empty for a headless service."""
        all_ips = dict.fromkeys(ip for ip in (self.cluster_ip, *self.cluster_ips) if ip and ip != "None")
        return tuple(str(ipaddress.ip_address(ip)) for ip in all_ips)

    def rules(self) -> Iterator[Breach]:
        headless = self.cluster_ip == "None" or self.cluster_ips == ("None",)
        if not self.ports and not headless:
            yield Breach(("ports",), "is required unless clusterIP is None", Reason.REQUIRED)
        yield from label_breaches(("selector",), self.selector)
        for field, value in (("clusterIP", self.cluster_ip),):
            if value not in ("", "None") and not _is_address(value):
                yield Breach((field,), f'{value!r} must be empty, "None" or an IP address')
        for index, value in enumerate(self.cluster_ips):
            if value != "None" and not _is_address(value):
                yield Breach(("clusterIPs", index), f'{value!r} must be "None" or an IP address')
        if self.cluster_ip and self.cluster_ips and self.cluster_ips[0] != self.cluster_ip:
            yield Breach(("clusterIPs", 0), "must be the same as clusterIP")
        if len(self.ports) > 1:
            for index, port in enumerate(self.ports):
                if not port.name:
                    yield Breach(
                        ("ports", index, "name"), "is required when there are several ports", Reason.REQUIRED
                    )
        for index in duplicates((p.name, None if p.name else i) for i, p in enumerate(self.ports)):
            yield Breach(
                ("ports", index, "name"), f"{self.ports[index].name!r} is used twice", Reason.DUPLICATE
            )
        for index in duplicates((p.port, p.protocol) for p in self.ports):
            port = self.ports[index]
            yield Breach(
                ("ports", index, "port"), f"{port.protocol} port {port.port} is used twice", Reason.DUPLICATE
            )


def _is_address(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return "%" not in value and not (address.is_loopback or address.is_unspecified or address.is_multicast)


class Service(Resource):
    """``v1`` Service."""

    spec: ServiceSpec
