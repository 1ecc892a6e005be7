"""``host:port`` as command lines write it. It opens nothing."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class HostPort(NamedTuple):
    """``host`` is a name or an address without brackets; ``port`` 0 = any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> HostPort:
    """Read ``127.0.0.1:80``, ``[::1]:80``, ``name:80`` or ``:80`` (all addresses). Raises ``ValueError``."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} must be host:port, with a port from 0 to 65535")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, like [::1]:{port}")
    return HostPort(host.strip("[]") or "0.0.0.0", int(port))


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
