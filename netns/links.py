"""Links, addresses and routes of the calling thread's network namespace, by rtnetlink.

The only module that knows pyroute2, so that something else can take its place. It must not decide anything:
each method is one request, or one question.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Self

from netns.errors import NetnsError
from netns.plan import AddressPlan, Bridge, Interface, Route, Veth

_IFA_F_NODAD = 0x02  # <linux/if_addr.h>
_FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; ``kind`` and ``alias`` are empty and ``master`` is 0 when it has none."""

    index: int
    name: str
    kind: str
    alias: str
    master: int
    mtu: int


class Links:
    """An rtnetlink socket; a context manager. Every method raises NetnsError when the kernel refuses."""

    __slots__ = ("_netlink",)

    def __init__(self) -> None:
        # Importing pyroute2 takes longer than adding a pod does.
        from pyroute2 import IPRoute

        self._netlink: Any = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def all(self) -> tuple[Link, ...]:
        """Every link of the namespace."""
        with _explained("list links"):
            return tuple(_link(message) for message in self._netlink.get_links())

    def find(self, name: str) -> Link | None:
        """The link of that name, or None."""
        return next((link for link in self.all() if link.name == name), None)

    def add_bridge(self, bridge: Bridge) -> None:
        """Make a bridge, up."""
        with _explained(f"add bridge {bridge.name}"):
            self._netlink.link(
                "add", ifname=bridge.name, kind="bridge", address=bridge.mac, mtu=bridge.mtu, state="up"
            )

    def add_veth(self, veth: Veth, namespace: Path) -> None:
        """Make the pair with its pod end in the namespace bound at the path, the host end up and on its bridge."""
        bridge = self.find(veth.bridge)
        if bridge is None:
            raise NetnsError(f"bridge {veth.bridge} is gone")
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _explained(f"add veth {veth.host_name}"):
                self._netlink.link(
                    "add",
                    ifname=veth.host_name,
                    kind="veth",
                    master=bridge.index,
                    mtu=veth.mtu,
                    state="up",
                    peer={"ifname": veth.name, "address": veth.mac, "mtu": veth.mtu, "net_ns_fd": fd},
                )
                # The kernel takes no alias in the request that makes a link.
                self._netlink.link("set", index=self._index(veth.host_name), ifalias=veth.alias)
        finally:
            os.close(fd)

    def set_up(self, name: str) -> None:
        """Bring a link up."""
        with _explained(f"bring {name} up"):
            self._netlink.link("set", index=self._index(name), state="up")

    def delete(self, name: str) -> bool:
        """Delete a link; False when there is none."""
        link = self.find(name)
        if link is None:
            return False
        with _explained(f"delete link {name}", ignore=errno.ENODEV):
            self._netlink.link("del", index=link.index)
        return True

    def addresses(self, name: str) -> tuple[Interface, ...]:
        """A link's addresses, link-local ones included."""
        index = self._index(name)
        with _explained(f"list addresses of {name}"):
            messages = [message for message in self._netlink.get_addr() if message["index"] == index]
        return tuple(ip_interface(f"{m.get_attr('IFA_ADDRESS')}/{m['prefixlen']}") for m in messages)

    def add_address(self, plan: AddressPlan) -> None:
        """Add an address, without duplicate address detection."""
        with _explained(f"add address {plan.address} to {plan.link}"):
            self._netlink.addr(
                "add",
                index=self._index(plan.link),
                address=str(plan.address.ip),
                prefixlen=plan.address.network.prefixlen,
                family=_FAMILIES[plan.address.version],
                **({"flags": _IFA_F_NODAD} if plan.address.version == 6 else {}),
            )

    def delete_address(self, plan: AddressPlan) -> None:
        """Remove an address; nothing happens when it is gone."""
        with _explained(f"remove address {plan.address} from {plan.link}", ignore=errno.EADDRNOTAVAIL):
            self._netlink.addr(
                "del",
                index=self._index(plan.link),
                address=str(plan.address.ip),
                prefixlen=plan.address.network.prefixlen,
                family=_FAMILIES[plan.address.version],
            )

    def add_route(self, route: Route) -> None:
        """Add a route."""
        with _explained(f"add route {route.destination} via {route.gateway}"):
            self._netlink.route(
                "add",
                dst=str(route.destination),
                gateway=str(route.gateway),
                family=_FAMILIES[route.destination.version],
            )

    def default_route_mtu(self) -> int | None:
        """The least MTU of the links that have a default route in the main table, or None without one."""
        mtus = {link.index: link.mtu for link in self.all()}
        found: list[int] = []
        for family in _FAMILIES.values():
            with _explained("list routes"):
                routes = self._netlink.get_default_routes(family=family, table=254)
                found.extend(mtus[i] for i in (route.get_attr("RTA_OIF") for route in routes) if i in mtus)
        return min(found, default=None)

    def _index(self, name: str) -> int:
        link = self.find(name)
        if link is None:
            raise NetnsError(f"there is no link {name}")
        return link.index


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return Link(
        int(message["index"]),
        str(message.get_attr("IFLA_IFNAME")),
        str(kind or ""),
        str(message.get_attr("IFLA_IFALIAS") or ""),
        int(message.get_attr("IFLA_MASTER") or 0),
        int(message.get_attr("IFLA_MTU")),
    )


@contextmanager
def _explained(what: str, ignore: int | None = None) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code == ignore:
            return
        hint = "; run as root or inside `tulle unshare`" if error.code == errno.EPERM else ""
        raise NetnsError(f"cannot {what}: {os.strerror(error.code)}{hint}") from error
