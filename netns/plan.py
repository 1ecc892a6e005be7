"""From what the user asks for to what the kernel gets: links, addresses, routes, sysctls, rules and files.

Pure: the same specs give the same plan, names and MAC addresses included, so that applying twice and removing
what an earlier process made need no memory of it. It must not touch the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network

from netns.capture import INBOUND_SOURCE_V6, TABLE, capture_table
from netns.errors import NetnsError
from netns.rules import Chain, Key, Match, Rule, Table, Verdict
from netns.spec import Address, Network, NetworkSpec, PodSpec

POD_INTERFACE = "eth0"
_SRCNAT = 100  # NF_IP_PRI_NAT_SRC
_DEFAULT_MTU = 1500

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel setting: its path below /proc/sys and its value."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """An address with its prefix length, on a link, usable at once (no duplicate address detection)."""

    link: str
    address: Interface


@dataclass(frozen=True, slots=True)
class Route:
    """A route by way of a gateway that is on the link."""

    destination: Network
    gateway: Address


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge. A fixed MAC keeps pods' neighbour caches valid while ports come and go."""

    name: str
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair of links: ``host_name`` is a port of ``bridge``; ``name`` and ``mac`` are the pod's end.

    ``alias`` is for readers of ``ip link``.
    """

    host_name: str
    name: str
    mac: str
    mtu: int
    bridge: str
    alias: str


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What one network needs in the host's namespace; ``forwarding`` lists IP versions."""

    bridge: Bridge
    addresses: tuple[AddressPlan, ...]
    sysctls: tuple[Sysctl, ...]
    forwarding: tuple[int, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What one pod needs in its own namespace. ``sysctls`` come first, for links inherit the defaults."""

    veth: Veth
    sysctls: tuple[Sysctl, ...]
    addresses: tuple[AddressPlan, ...]
    routes: tuple[Route, ...]
    table: Table | None
    resolv_conf: str | None
    hosts: str | None


def plan_network(network: NetworkSpec) -> HostPlan:
    """The host's side of a network: bridge with gateway addresses, forwarding, masquerade."""
    sysctls: list[Sysctl] = []
    if _has_ipv6(network):
        conf = f"net/ipv6/conf/{network.bridge}"
        sysctls = [Sysctl(f"{conf}/accept_dad", "0"), Sysctl(f"{conf}/accept_ra", "0")]
    gateways = tuple(
        AddressPlan(network.bridge, ip_interface(f"{subnet.gateway}/{subnet.network.prefixlen}"))
        for subnet in network.subnets
    )
    forwarding = tuple(sorted(subnet.network.version for subnet in network.subnets))
    return HostPlan(
        Bridge(network.bridge, _mac(f"bridge {network.bridge} {network.subnets[0].gateway}"), _mtu(network)),
        gateways,
        tuple(sysctls),
        forwarding,
        Table(TABLE, (_masquerade(network),)),
    )


def plan_pod(
    network: NetworkSpec, pod: PodSpec, addresses: Sequence[Address], namespace_path: str
) -> PodPlan:
    """The pod's side.

    ``addresses`` has one address per subnet of the network, in their order. ``namespace_path`` names the host's
    end of the veth pair, so that two state directories on one host cannot collide.
    """
    if len(addresses) != len(network.subnets):
        raise NetnsError(f"pod {pod.name}: {len(addresses)} addresses for {len(network.subnets)} subnets")
    interfaces = []
    routes = []
    for subnet, address in zip(network.subnets, addresses, strict=True):
        interfaces.append(AddressPlan(POD_INTERFACE, ip_interface(f"{address}/{subnet.network.prefixlen}")))
        routes.append(Route(ip_network("0.0.0.0/0" if address.version == 4 else "::/0"), subnet.gateway))
    sysctls: list[Sysctl] = []
    if _has_ipv6(network):
        for scope in ("all", "default"):
            sysctls.append(Sysctl(f"net/ipv6/conf/{scope}/accept_dad", "0"))
            sysctls.append(Sysctl(f"net/ipv6/conf/{scope}/accept_ra", "0"))
        if pod.capture is not None:
            interfaces.append(AddressPlan("lo", ip_interface(f"{INBOUND_SOURCE_V6}/128")))
    veth = Veth(
        host_interface(namespace_path),
        POD_INTERFACE,
        _mac(f"pod {addresses[0]}"),
        _mtu(network),
        network.bridge,
        f"tulle pod {pod.name}",
    )
    return PodPlan(
        veth,
        tuple(sysctls),
        tuple(interfaces),
        tuple(routes),
        None if pod.capture is None else capture_table(pod.capture),
        _resolv_conf(pod),
        _hosts(pod, addresses),
    )


def host_interface(namespace_path: str) -> str:
    """The host's end of the veth pair of the pod whose namespace is bound there (at most 15 characters)."""
    return "tl" + hashlib.sha256(namespace_path.encode()).hexdigest()[:11]


def masquerade_chain(bridge: str) -> str:
    """The chain of the host's table that belongs to the network on this bridge."""
    return f"masquerade-{bridge}"


def _masquerade(network: NetworkSpec) -> Chain:
    rules = []
    if network.masquerade:
        for subnet in network.subnets:
            source: Key = "ip saddr" if subnet.network.version == 4 else "ip6 saddr"
            destination: Key = "ip daddr" if subnet.network.version == 4 else "ip6 daddr"
            text = str(subnet.network)
            rules.append(
                Rule(
                    (
                        Match(source, (text,)),
                        # Pod to pod passes this hook too where br_netfilter is on.
                        Match(destination, (text,), negate=True),
                        Match("oifname", (network.bridge,), negate=True),
                    ),
                    Verdict("masquerade"),
                )
            )
    return Chain(masquerade_chain(network.bridge), "nat", "postrouting", _SRCNAT, tuple(rules))


def _has_ipv6(network: NetworkSpec) -> bool:
    return any(subnet.network.version == 6 for subnet in network.subnets)


def _mtu(network: NetworkSpec) -> int:
    return _DEFAULT_MTU if network.mtu is None else network.mtu


def _mac(seed: str) -> str:
    # 0x0a: locally administered, unicast (IEEE 802). A pod that gets a freed address gets its MAC too, so
    # that neighbour caches stay right.
    digest = hashlib.sha256(seed.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x0A, *digest[:5]))


def _resolv_conf(pod: PodSpec) -> str | None:
    if not pod.dns:
        return None
    lines = [f"search {' '.join(pod.search)}"] if pod.search else []
    lines.extend(f"nameserver {server}" for server in pod.dns)
    return "\n".join(lines) + "\n"


def _hosts(pod: PodSpec, addresses: Iterable[Address]) -> str | None:
    if not pod.hosts:
        return None
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines.extend(f"{address} {pod.name}" for address in addresses)
    lines.extend(f"{address} {host}" for host, address in pod.hosts)
    return "\n".join(lines) + "\n"
