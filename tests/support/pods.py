"""Sockets inside pods, and a picture of everything that pods could leave behind. For tests marked ``netns``."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from netns import namespace
from netns.pods import Pod

_SO_ORIGINAL_DST = 80  # <linux/netfilter_ipv4.h>, IP6T_SO_ORIGINAL_DST
_SO_MARK = 36
TIMEOUT = 5.0


class Endpoint(NamedTuple):
    address: IPv4Address | IPv6Address
    port: int


def listen(pod: Pod | None, port: int = 0) -> socket.socket:
    """A dual-stack listener in the pod (None: in the host's namespace)."""

    def make() -> socket.socket:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16)

    listener = make() if pod is None else namespace.run_in(pod.netns_path, make)
    listener.settimeout(TIMEOUT)
    return listener


def dial(
    pod: Pod | None, address: str, port: int, *, mark: int | None = None, source: str | None = None
) -> socket.socket:
    """A connection made from inside the pod. Raises OSError."""

    def make() -> socket.socket:
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            connection.settimeout(TIMEOUT)
            if mark is not None:
                connection.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
            if source is not None:
                connection.bind((source, 0))
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection

    return make() if pod is None else namespace.run_in(pod.netns_path, make)


def accept(listener: socket.socket) -> tuple[socket.socket, Endpoint]:
    """The next connection and its peer."""
    connection, peer = listener.accept()
    return connection, Endpoint(_plain(peer[0]), peer[1])


def original_destination(connection: socket.socket) -> Endpoint:
    """Where an accepted, redirected connection was going. Raises OSError (ENOENT) when it was not tracked."""
    if _plain(connection.getsockname()[0]).version == 4:
        raw = connection.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        port, packed = struct.unpack("!2xH4s8x", raw)
    else:
        raw = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
        port, packed = struct.unpack("!2xH4x16s4x", raw)
    return Endpoint(ip_address(packed), port)


def _plain(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def picture() -> dict[str, object]:
    """Links, addresses, routes, rules, mounts, namespaces, descriptors, threads and children, for comparison.

    The shared mount on /run/netns is left out: iproute2 makes and keeps it too.
    """
    mounts = [line.split()[3:] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        "links": _output("ip", "-o", "link"),
        "addresses": _output("ip", "-o", "addr"),
        "routes": _output("ip", "route", "show", "table", "all"),
        "routes6": _output("ip", "-6", "route", "show", "table", "all"),
        "rules": _output("nft", "list", "ruleset"),
        "mounts": [mount for mount in mounts if mount[1] != "/run/netns"],
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "children": Path("/proc/thread-self/children").read_text(),
    }


def _output(*argv: str) -> str:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, check=True).stdout
