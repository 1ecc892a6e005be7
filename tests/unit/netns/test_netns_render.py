"""Plans as nft text, against golden files. After a wanted change: TULLE_UPDATE_GOLDEN=1 pytest, and read the diff."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from netns import render
from netns.capture import capture_table
from netns.plan import plan_network
from netns.spec import CaptureSpec, NetworkSpec

GOLDEN = Path(__file__).with_name("golden")

CAPTURES = {
    "capture_mark": CaptureSpec(),
    "capture_uid_gid": CaptureSpec(mark=None, uid=1337, gid=1337),
    "capture_mark_and_uid": CaptureSpec(mark=7, uid=1000),
    "capture_no_exclusions": CaptureSpec(exclude_inbound_ports=()),
    "capture_exclusions": CaptureSpec(
        exclude_inbound_ports=(22, 15021, 15090, 22),
        exclude_outbound_ports=(5432, 25),
        exclude_inbound_cidrs=(ip_network("10.0.0.1/32"), ip_network("fd00::1/128")),
        exclude_outbound_cidrs=(
            ip_network("192.0.2.7/32"),
            ip_network("192.0.2.0/24"),
            ip_network("198.51.100.0/24"),
            ip_network("2001:db8::/32"),
        ),
    ),
    "capture_dns": CaptureSpec(dns_port=15053),
    "capture_other_ports": CaptureSpec(inbound_port=4143, outbound_port=4140),
}
NETWORKS = {
    "network_ipv4": NetworkSpec.of("10.1.0.0/24"),
    "network_ipv6": NetworkSpec.of("fd00:1::/64", bridge="br-six"),
    "network_dual": NetworkSpec.of("10.1.0.0/24", "fd00:1::/64"),
    "network_no_masquerade": NetworkSpec.of("10.1.0.0/24", "fd00:1::/64", masquerade=False),
}


def check(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.nft"
    if "TULLE_UPDATE_GOLDEN" in os.environ:
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CAPTURES)
def test_capture(name: str) -> None:
    check(name, render.replace_table(capture_table(CAPTURES[name])))


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    check(name, render.replace_chains(plan_network(NETWORKS[name]).table))


def test_every_golden_file_is_used() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted([*CAPTURES, *NETWORKS])
