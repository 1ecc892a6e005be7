"""``CONNECT`` and ``Upgrade``: which requests may become tunnels, and what a tunnel's beginning and end are called.

A tunnel begins with 101 or, after CONNECT, with 2xx; bytes that come before are held back (CVE-2025-64763).
"""

from __future__ import annotations

import re
from typing import Final

from proxy.http1.errors import ProtocolError
from proxy.http1.fields import CHUNKED
from proxy.http1.head import Head, scan_response
from proxy.runtime.entry import RouteEntry
from proxy.runtime.runtime import HttpRuntime

CONNECT: Final = b"connect"
"""The upgrade type of the CONNECT method, as configurations name it (lower case)."""
WEBSOCKET: Final = b"websocket"

_host_and_port = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]++|\[[0-9A-Fa-f:.]++\]):[0-9]{1,5}").fullmatch


def connect_authority(head: Head) -> bytes:
    """The host and port that a CONNECT request is for (RFC 9110 section 9.3.6). Raises ``ProtocolError``."""
    target = head.target
    if not _host_and_port(target):
        raise ProtocolError("the target of CONNECT is not a host and a port", details="http1.invalid_url")
    if head.flags & CHUNKED:
        raise ProtocolError(
            "CONNECT with a transfer-encoding", details="http1.invalid_transfer_encoding", status=501
        )
    if head.length > 0:
        raise ProtocolError("CONNECT with a body", details="http1.body_disallowed")
    return target


def upgrade_type(head: Head) -> bytes:
    """What the request wants its connection to become, lower case."""
    return CONNECT if head.method == b"CONNECT" else (head.get(b"upgrade") or b"").lower()


def may_upgrade(kind: bytes, route: RouteEntry | None, http: HttpRuntime) -> bool:
    """Whether configuration allows it: the route's word counts before the connection manager's."""
    if route is not None and route.upgrades is not None:
        allowed = route.upgrades.get(kind)
        if allowed is not None:
            return allowed
    return kind in http.upgrade_types


def opened() -> Head:
    """The answer to a CONNECT that ends here."""
    head = scan_response(b"HTTP/1.1 200 OK\r\n\r\n")
    assert head is not None
    return head
