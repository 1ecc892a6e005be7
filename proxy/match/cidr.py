"""Address ranges: which of several prefixes holds an address, and which is the longest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from proxy.model.address import CidrRange
from proxy.model.config import ConfigError

Network = IPv4Network | IPv6Network
# An address is (version, number): what a comparison needs and no more.
Parsed = tuple[int, int]


@lru_cache(maxsize=4096)
def parse(address: str) -> Parsed | None:
    """The address without its scope; an IPv4 address mapped into IPv6 is the IPv4 address. ``None`` if it is none."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.version, int(ip)


def network(cidr: CidrRange, field: str) -> Network:
    """The range; host bits are ignored. Raises ``ConfigError`` for ``field``."""
    try:
        return ip_network(f"{cidr.address_prefix}/{cidr.prefix_len}", strict=False)
    except ValueError as error:
        raise ConfigError(field, str(error)) from None


def compile_ranges(ranges: Iterable[Network]) -> Callable[[str], bool]:
    """Whether an address is in one of ``ranges``."""
    tests = tuple(
        (n.version, n.max_prefixlen - n.prefixlen, int(n.network_address) >> (n.max_prefixlen - n.prefixlen))
        for n in ranges
    )

    def contains(address: str) -> bool:
        parsed = parse(address)
        if parsed is None:
            return False
        version, number = parsed
        return any(version == v and number >> shift == prefix for v, shift, prefix in tests)

    return contains
