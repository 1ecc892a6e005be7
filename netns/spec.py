"""What a user asks for: networks, pods and traffic capture, checked when made.

It holds values and their checks only. It must not decide what the kernel gets (that is ``plan``) and must
not look at the machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from netns.errors import NetnsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The CNI specification's pattern for container ids and network names.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
# What both the kernel (dev_valid_name, 15 bytes) and an unquoted nft identifier accept.
_INTERFACE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-]{0,14}")
_HOST_NAME = re.compile(
    r"[a-zA-Z0-9]([a-zA-Z0-9_\-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9_\-]*[a-zA-Z0-9])?)*\.?"
)

DEFAULT_IPV4 = "10.117.0.0/16"
# A unique local prefix (RFC 4193) whose "random" part spells the project's name.
DEFAULT_IPV6 = "fd74:756c:6c65::/64"


def parse_address(text: str, where: str) -> Address:
    """An IP address; NetnsError names ``where`` it came from."""
    try:
        return ip_address(text)
    except ValueError:
        raise NetnsError(f"{where}: {text!r} is not an IPv4 or IPv6 address") from None


def parse_network(text: str, where: str) -> Network:
    """A CIDR without host bits; NetnsError names ``where`` it came from."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise NetnsError(
            f"{where}: {text!r} is not a CIDR such as 10.1.0.0/24 or fd00:1::/64 ({error})"
        ) from None


def check_ports(ports: Sequence[int], where: str) -> None:
    """Raise NetnsError unless every port is in 1..65535."""
    for port in ports:
        if not 1 <= port <= 65535:
            raise NetnsError(f"{where}: {port} is not a port (1-65535)")


@dataclass(frozen=True, slots=True)
class Subnet:
    """One address range of a network, and the bridge's own address in it, which is the pods' gateway."""

    network: Network
    gateway: Address

    def __post_init__(self) -> None:
        if self.network.num_addresses < 2:
            raise NetnsError(f"subnet {self.network} has room for the gateway only; use a shorter prefix")
        if not self.is_usable(self.gateway):
            raise NetnsError(f"gateway {self.gateway} is not a usable address of subnet {self.network}")

    @classmethod
    def parse(cls, cidr: str, gateway: str | None = None) -> Subnet:
        """A subnet from its CIDR; the gateway is its first usable address unless given."""
        network = parse_network(cidr, "subnet")
        if gateway is not None:
            return cls(network, parse_address(gateway, "gateway"))
        return cls(network, usable_range(network)[0])

    def is_usable(self, address: Address) -> bool:
        """Whether a host of this subnet, a pod or the gateway, may have the address."""
        return address in self.network and int(self.first) <= int(address) <= int(self.last)

    @property
    def first(self) -> Address:
        """The lowest address that a host may have."""
        return usable_range(self.network)[0]

    @property
    def last(self) -> Address:
        """The highest address that a host may have."""
        return usable_range(self.network)[1]


def usable_range(network: Network) -> tuple[Address, Address]:
    """First and last address for hosts.

    IPv4 loses the network and broadcast addresses, except /31 (RFC 3021); IPv6 loses the subnet-router
    anycast address (RFC 4291 section 2.6.1), except /127 (RFC 6164).
    """
    if network.num_addresses <= 2:
        return network[0], network[-1]
    if isinstance(network, IPv4Network):
        return network[1], network[-2]
    return network[1], network[-1]


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A bridge on the host and the ranges that its pods get addresses from.

    ``mtu`` None means: that of the host's default route when the network is first used.
    """

    subnets: tuple[Subnet, ...]
    name: str = "default"
    bridge: str = "tulle0"
    mtu: int | None = None
    masquerade: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > 63:
            raise NetnsError(
                f"network name {self.name!r}: at most 63 letters, digits, '_', '.', '-', "
                "beginning with a letter or digit"
            )
        if not _INTERFACE.fullmatch(self.bridge):
            raise NetnsError(
                f"bridge name {self.bridge!r}: at most 15 letters, digits, '_', '.', '-', beginning with a letter"
            )
        if not self.subnets:
            raise NetnsError(f"network {self.name}: at least one subnet is needed")
        versions = [subnet.network.version for subnet in self.subnets]
        if len(set(versions)) != len(versions):
            raise NetnsError(f"network {self.name}: at most one IPv4 and one IPv6 subnet")
        # RFC 8200 section 5: a link that carries IPv6 has an MTU of at least 1280; RFC 791: 68 for IPv4.
        lowest = 1280 if 6 in versions else 68
        if self.mtu is not None and not lowest <= self.mtu <= 65535:
            raise NetnsError(f"network {self.name}: MTU {self.mtu} is not in {lowest}-65535")

    @classmethod
    def of(
        cls,
        *cidrs: str,
        name: str = "default",
        bridge: str = "tulle0",
        mtu: int | None = None,
        masquerade: bool = True,
    ) -> NetworkSpec:
        """A network from CIDR texts, its gateways the first usable addresses."""
        return cls(tuple(Subnet.parse(cidr) for cidr in cidrs), name, bridge, mtu, masquerade)


@dataclass(frozen=True, slots=True)
class CaptureSpec:
    """How a pod's TCP connections are turned into its sidecar (Istio's interception mode REDIRECT).

    The sidecar's own connections are known by socket mark, user id or group id (any of them that is given),
    for they must leave uncaptured. ``exclude_inbound_cidrs`` are sources, ``exclude_outbound_cidrs`` are
    destinations. ``dns_port``, when given, turns the pod's queries to port 53 to that port of 127.0.0.1 and ::1.
    The default excluded inbound ports are readiness and Prometheus, which are scraped without mTLS.
    """

    inbound_port: int = 15006
    outbound_port: int = 15001
    mark: int | None = 1337
    uid: int | None = None
    gid: int | None = None
    exclude_inbound_ports: tuple[int, ...] = (15021, 15090)
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_inbound_cidrs: tuple[Network, ...] = ()
    exclude_outbound_cidrs: tuple[Network, ...] = ()
    dns_port: int | None = None

    def __post_init__(self) -> None:
        check_ports((self.inbound_port,), "capture inbound port")
        check_ports((self.outbound_port,), "capture outbound port")
        check_ports(self.exclude_inbound_ports, "excluded inbound ports")
        check_ports(self.exclude_outbound_ports, "excluded outbound ports")
        if self.dns_port is not None:
            check_ports((self.dns_port,), "capture DNS port")
        if self.inbound_port == self.outbound_port:
            raise NetnsError(
                f"capture: inbound and outbound port are both {self.inbound_port}; they must differ"
            )
        if self.mark is None and self.uid is None and self.gid is None:
            raise NetnsError(
                "capture: give a mark, uid or gid that tells the sidecar's own connections, or they would loop"
            )
        if self.mark is not None and not 1 <= self.mark <= 0xFFFFFFFF:
            raise NetnsError(f"capture mark {self.mark} is not in 1-4294967295")
        for name, number in (("uid", self.uid), ("gid", self.gid)):
            if number is not None and not 0 <= number < 0xFFFFFFFF:
                raise NetnsError(f"capture {name} {number} is not a {name}")


@dataclass(frozen=True, slots=True)
class PodSpec:
    """One pod: its name, the addresses that it insists on (others are chosen), capture, and its resolver.

    Without ``dns`` the pod sees the host's resolv.conf; without ``hosts`` the host's /etc/hosts.
    """

    name: str
    addresses: tuple[Address, ...] = ()
    capture: CaptureSpec | None = CaptureSpec()
    dns: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    hosts: tuple[tuple[str, Address], ...] = ()

    def __post_init__(self) -> None:
        check_pod_name(self.name)
        versions = [address.version for address in self.addresses]
        if len(set(versions)) != len(versions):
            raise NetnsError(f"pod {self.name}: ask for at most one IPv4 and one IPv6 address")
        if self.search and not self.dns:
            raise NetnsError(f"pod {self.name}: search domains need at least one DNS server")
        for domain in self.search:
            if not _HOST_NAME.fullmatch(domain):
                raise NetnsError(f"pod {self.name}: {domain!r} is not a search domain")
        for host, _ in self.hosts:
            if not _HOST_NAME.fullmatch(host):
                raise NetnsError(f"pod {self.name}: {host!r} is not a host name")


def check_pod_name(name: str) -> None:
    """Raise NetnsError unless the name can be a CNI container id and a file name."""
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise NetnsError(
            f"pod name {name!r}: at most 200 letters, digits, '_', '.', '-', beginning with a letter or digit"
        )
