"""A plan put into the kernel, and taken out again. It must not plan, and keeps no records.

Removing tolerates whatever is missing, so one removal serves deletion, undoing a failure, and cleaning up after a
crash. Netlink runs in threads: pyroute2 has an event loop of its own, which must not meet the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from netns import namespace, render, sysctl
from netns.errors import NetnsError
from netns.links import Links
from netns.nft import Nft
from netns.plan import AddressPlan, HostPlan, Interface, PodPlan, masquerade_chain

T = TypeVar("T")


def missing_on_host(plan: HostPlan) -> tuple[bool, tuple[Interface, ...]]:
    """Whether the bridge is missing, and which of its addresses: what ``apply_network`` is going to make.

    Raises NetnsError when something else has the bridge's name.
    """

    def look(links: Links) -> tuple[bool, tuple[Interface, ...]]:
        wanted = tuple(item.address for item in plan.addresses)
        link = links.find(plan.bridge.name)
        if link is None:
            return True, wanted
        if link.kind != "bridge":
            raise NetnsError(f"{plan.bridge.name} exists and is not a bridge; choose another --bridge")
        present = links.addresses(plan.bridge.name)
        return False, tuple(address for address in wanted if address not in present)

    return _with_links(look)


def default_route_mtu() -> int | None:
    """The MTU towards the outside, or None without a default route."""
    return _with_links(lambda links: links.default_route_mtu())


def apply_network(plan: HostPlan, nft: Nft) -> None:
    """Make whatever of the network is missing in this namespace."""

    def add(links: Links) -> None:
        if links.find(plan.bridge.name) is None:
            links.add_bridge(plan.bridge)
        for setting in plan.sysctls:
            sysctl.write(setting.path, setting.value)
        present = links.addresses(plan.bridge.name)
        for item in plan.addresses:
            if item.address not in present:
                links.add_address(item)
        links.set_up(plan.bridge.name)

    _with_links(add)
    for version in plan.forwarding:
        sysctl.enable_forwarding(version)
    nft.load(render.replace_chains(plan.table))


def remove_network(
    bridge: str, table: str, *, owns_bridge: bool, owns_addresses: Iterable[Interface], nft: Nft
) -> None:
    """Remove the network's chain, and its bridge and addresses as far as they are ours.

    A bridge that has ports of others stays.
    """
    nft.delete_chain(table, masquerade_chain(bridge))

    def remove(links: Links) -> None:
        link = links.find(bridge)
        if link is None:
            return
        for address in owns_addresses:
            links.delete_address(AddressPlan(bridge, address))
        if owns_bridge and not any(other.master == link.index for other in links.all()):
            links.delete(bridge)

    _with_links(remove)


def apply_pod(plan: PodPlan, path: Path, nft: Nft) -> None:
    """Make the pod's namespace and everything in it. The rules are in force before its first link is up."""
    # Left over when the state directory was wiped while something kept the old namespace alive.
    _with_links(lambda links: links.delete(plan.veth.host_name))
    namespace.create(path)

    def prepare() -> None:
        for setting in plan.sysctls:
            sysctl.write(setting.path, setting.value)
        if plan.table is not None:
            nft.load(render.replace_table(plan.table))

    def configure() -> None:
        with Links() as links:
            links.set_up("lo")
            for item in plan.addresses:
                links.add_address(item)
            links.set_up(plan.veth.name)
            for route in plan.routes:
                links.add_route(route)

    namespace.run_in(path, prepare)
    _with_links(lambda links: links.add_veth(plan.veth, path))
    namespace.run_in(path, configure)


def remove_pod(host_interface: str, path: Path) -> None:
    """Remove the pod's links and namespace, as far as they exist."""
    # The namespace itself may live on, with a process in it; without the link it is cut off at once.
    _with_links(lambda links: links.delete(host_interface))
    namespace.delete(path)


def has_link(name: str) -> bool:
    """Whether this namespace has a link of that name."""
    return _with_links(lambda links: links.find(name) is not None)


def _with_links(function: Callable[[Links], T]) -> T:
    def run() -> T:
        with Links() as links:
            return function(links)

    return namespace.in_thread(run)
