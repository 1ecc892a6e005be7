"""What specs refuse, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from netns.errors import NetnsError
from netns.spec import CaptureSpec, NetworkSpec, PodSpec, Subnet

FOUR, SIX = ip_address("10.0.0.2"), ip_address("fd00::2")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subnet.parse("10.0.0.0/32"), "room for the gateway only"),
        (lambda: Subnet.parse("10.0.0.0/24", "10.0.0.0"), "gateway 10.0.0.0 is not a usable address"),
        (lambda: Subnet.parse("10.0.0.0/24", "10.0.0.255"), "gateway 10.0.0.255 is not a usable address"),
        (lambda: Subnet.parse("10.0.0.0/24", "fd00::1"), "gateway fd00::1 is not a usable address"),
        (lambda: Subnet.parse("fd00::/64", "fd00::"), "gateway fd00:: is not a usable address"),
        (lambda: Subnet.parse("10.0.0.1/24"), r"is not a CIDR .* has host bits set"),
        (lambda: NetworkSpec(()), "at least one subnet"),
        (lambda: NetworkSpec.of("10.0.0.0/24", "10.1.0.0/24"), "at most one IPv4 and one IPv6 subnet"),
        (lambda: NetworkSpec.of("10.0.0.0/24", name="../x"), "network name '../x'"),
        (lambda: NetworkSpec.of("10.0.0.0/24", name="x" * 64), "at most 63"),
        (lambda: NetworkSpec.of("10.0.0.0/24", bridge="sixteen-letters!"), "bridge name"),
        (lambda: NetworkSpec.of("10.0.0.0/24", bridge="0123456789abcdef"), "at most 15"),
        (lambda: NetworkSpec.of("10.0.0.0/24", bridge='a";flush'), "bridge name"),
        (lambda: NetworkSpec.of("10.0.0.0/24", mtu=67), "MTU 67 is not in 68-65535"),
        (lambda: NetworkSpec.of("fd00::/64", mtu=1279), "MTU 1279 is not in 1280-65535"),
        (lambda: PodSpec(""), "pod name ''"),
        (lambda: PodSpec(".."), "pod name '..'"),
        (lambda: PodSpec("a/b"), "pod name 'a/b'"),
        (lambda: PodSpec("x\n"), "pod name"),
        (lambda: PodSpec("x" * 201), "at most 200"),
        (lambda: PodSpec("x", addresses=(FOUR, FOUR)), "at most one IPv4 and one IPv6 address"),
        (lambda: PodSpec("x", search=("a",)), "need at least one DNS server"),
        (lambda: PodSpec("x", dns=(FOUR,), search=("a b",)), "'a b' is not a search domain"),
        (lambda: PodSpec("x", hosts=(("a\n::1 b", FOUR),)), "is not a host name"),
        (lambda: CaptureSpec(mark=None), "give a mark, uid or gid"),
        (lambda: CaptureSpec(mark=0), "mark 0 is not in"),
        (lambda: CaptureSpec(mark=1 << 32), "is not in 1-4294967295"),
        (lambda: CaptureSpec(uid=-1), "uid -1 is not a uid"),
        (lambda: CaptureSpec(gid=0xFFFFFFFF), "is not a gid"),
        (lambda: CaptureSpec(inbound_port=15001), "they must differ"),
        (lambda: CaptureSpec(inbound_port=0), "capture inbound port: 0"),
        (lambda: CaptureSpec(outbound_port=65536), "capture outbound port: 65536"),
        (lambda: CaptureSpec(dns_port=0), "capture DNS port: 0"),
        (lambda: CaptureSpec(exclude_inbound_ports=(0,)), "excluded inbound ports: 0"),
        (lambda: CaptureSpec(exclude_outbound_ports=(1, 65536)), "excluded outbound ports: 65536"),
    ],
)
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(NetnsError, match=message):
        make()


@pytest.mark.parametrize(
    ("cidr", "first", "last"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
        ("fd00::/127", "fd00::", "fd00::1"),
    ],
)
def test_usable_range(cidr: str, first: str, last: str) -> None:
    subnet = Subnet.parse(cidr)
    assert (str(subnet.first), str(subnet.last), subnet.gateway) == (first, last, subnet.first)


def test_limits_themselves_are_allowed() -> None:
    NetworkSpec.of("10.0.0.0/24", mtu=68, bridge="a" * 15, name="x" * 63)
    NetworkSpec.of("fd00::/64", mtu=1280)
    PodSpec("x" * 200, addresses=(FOUR, SIX))
    CaptureSpec(mark=0xFFFFFFFF, uid=0, gid=0, inbound_port=1, outbound_port=65535)
