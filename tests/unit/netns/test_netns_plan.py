"""From specs to plans."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from netns.errors import NetnsError
from netns.plan import AddressPlan, Route, Sysctl, host_interface, plan_network, plan_pod
from netns.spec import NetworkSpec, PodSpec

DUAL = NetworkSpec.of("10.1.0.0/24", "fd00:1::/64", mtu=1400)
ADDRESSES = (ip_address("10.1.0.2"), ip_address("fd00:1::2"))
PATH = "/run/netns/web"


def test_network() -> None:
    plan = plan_network(DUAL)
    assert (plan.bridge.name, plan.bridge.mtu) == ("tulle0", 1400)
    assert plan.addresses == (
        AddressPlan("tulle0", ip_interface("10.1.0.1/24")),
        AddressPlan("tulle0", ip_interface("fd00:1::1/64")),
    )
    assert plan.forwarding == (4, 6)
    assert Sysctl("net/ipv6/conf/tulle0/accept_dad", "0") in plan.sysctls


def test_ipv4_network_touches_no_ipv6_setting() -> None:
    network = NetworkSpec.of("10.1.0.0/24")
    assert (plan_network(network).sysctls, plan_network(network).forwarding) == ((), (4,))
    pod = plan_pod(network, PodSpec("web"), ADDRESSES[:1], PATH)
    assert pod.sysctls == ()
    assert pod.addresses == (AddressPlan("eth0", ip_interface("10.1.0.2/24")),)


def test_pod() -> None:
    plan = plan_pod(DUAL, PodSpec("web"), ADDRESSES, PATH)
    assert plan.addresses == (
        AddressPlan("eth0", ip_interface("10.1.0.2/24")),
        AddressPlan("eth0", ip_interface("fd00:1::2/64")),
        AddressPlan("lo", ip_interface("::6/128")),
    )
    assert plan.routes == (
        Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1")),
        Route(ip_network("::/0"), ip_address("fd00:1::1")),
    )
    assert (plan.veth.host_name, plan.veth.bridge, plan.veth.mtu) == (host_interface(PATH), "tulle0", 1400)
    assert plan.table is not None
    assert (plan.resolv_conf, plan.hosts) == (None, None)


def test_pod_without_capture_has_no_rules_and_no_inbound_source() -> None:
    plan = plan_pod(DUAL, PodSpec("web", capture=None), ADDRESSES, PATH)
    assert plan.table is None
    assert all(item.link == "eth0" for item in plan.addresses)


def test_names_and_macs_are_stable_and_fit() -> None:
    plan = plan_pod(DUAL, PodSpec("web"), ADDRESSES, PATH)
    assert plan == plan_pod(DUAL, PodSpec("web"), ADDRESSES, PATH)
    other = plan_pod(DUAL, PodSpec("db"), (ip_address("10.1.0.3"), ip_address("fd00:1::3")), "/run/netns/db")
    assert plan.veth.host_name != other.veth.host_name
    assert len(plan.veth.host_name) <= 15
    macs = {plan.veth.mac, other.veth.mac, plan_network(DUAL).bridge.mac}
    assert len(macs) == 3
    for mac in macs:
        first = int(mac.split(":")[0], 16)
        assert first & 0b11 == 0b10, "locally administered, unicast"


def test_a_freed_address_brings_its_mac_along() -> None:
    assert (
        plan_pod(DUAL, PodSpec("a"), ADDRESSES, "/a").veth.mac
        == plan_pod(DUAL, PodSpec("b"), ADDRESSES, "/b").veth.mac
    )


def test_files() -> None:
    spec = PodSpec(
        "web",
        dns=(ip_address("10.1.0.1"),),
        search=("default.mesh.local", "mesh.local"),
        hosts=(("db", ip_address("10.1.0.9")),),
    )
    plan = plan_pod(DUAL, spec, ADDRESSES, PATH)
    assert plan.resolv_conf == "search default.mesh.local mesh.local\nnameserver 10.1.0.1\n"
    assert plan.hosts is not None
    assert plan.hosts.splitlines()[2:] == ["10.1.0.2 web", "fd00:1::2 web", "10.1.0.9 db"]


def test_one_address_per_subnet() -> None:
    with pytest.raises(NetnsError, match="pod web: 1 addresses for 2 subnets"):
        plan_pod(DUAL, PodSpec("web"), ADDRESSES[:1], PATH)


def test_unknown_mtu_is_ethernets() -> None:
    assert plan_network(replace(DUAL, mtu=None)).bridge.mtu == 1500
