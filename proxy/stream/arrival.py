"""What the connection manager does to a request's head before anybody looks at it: who is trusted to say what.

Afterwards routes, policy, logs and the upstream see the same head. What the router does to a head on its way out
(hop-by-hop fields, the route's edits) is ``proxy.stream.edge``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from random import getrandbits
from typing import TYPE_CHECKING, Final

from proxy.http1.fields import (
    HAS_CLIENT_CERT,
    HAS_FORWARDED_FOR,
    HAS_FORWARDED_PROTO,
    HAS_HOP_BY_HOP,
    HAS_INTERNAL,
    HAS_REQUEST_ID,
    HAS_SERVICE_TIME,
    INTERNAL_PREFIXES,
)
from proxy.http1.head import Head
from proxy.match.cidr import compile_ranges, network
from proxy.model.connection import Address
from proxy.runtime.runtime import HttpRuntime
from proxy.stream.asked import CONSUMED
from proxy.stream.head_options import compile_changes

if TYPE_CHECKING:
    from proxy.stream.exchange import HttpExchange

Arrive = Callable[["HttpExchange"], None]

_ID: Final = b"x-request-id"
_VIA: Final = b"via"
_XFCC: Final = b"x-forwarded-client-cert"
_XFF: Final = b"x-forwarded-for"
_XFP: Final = b"x-forwarded-proto"
_XF_PORT: Final = b"x-forwarded-port"
_NONE: Final[frozenset[bytes]] = frozenset()
_EXTERNAL_STRIP: Final = HAS_HOP_BY_HOP | HAS_INTERNAL | HAS_SERVICE_TIME


def compile_arrival(http: HttpRuntime) -> Arrive:
    """The rules of one connection manager; what no option asks for is not in it.

    They set ``strip``, ``also`` and ``extra`` of the exchange (what ``Head.emit`` takes), ``request_id``, ``remote``
    and ``internal``, and make ``get`` of the head say what the upstream will be told; but an ID that was made here is
    in ``request_id`` alone.
    """
    config = http.config
    generate = config.generate_request_id
    trust = _compile_trust(http)
    forward_certificate = config.forward_client_cert_details == "ALWAYS_FORWARD_ONLY"

    changes = compile_changes(config)

    def arrive(x: HttpExchange) -> None:
        head = x.head
        present = head.present
        down = x.down
        strip = _EXTERNAL_STRIP
        extra = b""
        also = _NONE
        keep_id = True
        if trust is not None:
            strip, also, extra, keep_id = trust(x)
            present = head.present & ~strip
        else:
            if present & _EXTERNAL_STRIP and present & (HAS_INTERNAL | HAS_SERVICE_TIME):
                forget_internal(head)
            if present & HAS_FORWARDED_FOR:
                found = last_address(head.get(_XFF) or b"", 0)
                if found is not None:
                    x.remote = found
        if present & HAS_REQUEST_ID and keep_id and (received := head.get(_ID)):
            x.request_id = received
        elif generate:
            x.request_id = request_id = new_id()
            strip |= HAS_REQUEST_ID
            extra += b"x-request-id: " + request_id + b"\r\n"
        if not present & HAS_FORWARDED_PROTO:
            extra += down.proto_line
        if not forward_certificate:
            if present & HAS_CLIENT_CERT:
                line = down.client_certificate_line(head.get(_XFCC))
                strip |= HAS_CLIENT_CERT
                _put(head, _XFCC, line[25:-2])
            else:
                line = down.client_certificate_line(None)
            if line:
                extra += line
        head.added = down.added
        x.strip = strip
        x.also = also
        x.extra = extra

    if not changes:
        return arrive

    def arrive_changed(x: HttpExchange) -> None:
        arrive(x)
        for change in changes:
            change(x)

    return arrive_changed


def new_id() -> bytes:
    """A random UUID (RFC 9562)."""
    bits = getrandbits(122)
    return b"%08x-%04x-4%03x-%04x-%012x" % (
        bits >> 90,
        bits >> 74 & 0xFFFF,
        bits >> 62 & 0xFFF,
        bits >> 48 & 0x3FFF | 0x8000,
        bits & 0xFFFFFFFFFFFF,
    )


def _put(head: Head, name: bytes, value: bytes) -> None:
    """Have ``head`` say ``value`` for ``name``; an empty one: nothing."""
    if value:
        head.names[name] = value
    else:
        head.names.pop(name, None)


def forget_internal(head: Head) -> None:
    """What only the mesh itself may say (``x-envoy-*``, ``x-tulle-*``) a client has not said (CVE-2024-45806)."""
    names = head.names
    for name in [name for name in names if name.startswith(INTERNAL_PREFIXES)]:
        del names[name]


def last_address(value: bytes, trusted_hops: int) -> Address | None:
    """The address in ``x-forwarded-for`` that was there before ``trusted_hops`` trusted proxies added theirs.

    ``None``: there are not that many, or that one is no IP address. The port is 0, as in Envoy.
    """
    parts = value.rsplit(b",", trusted_hops + 1)
    if len(parts) <= trusted_hops:
        return None
    text = parts[-1 - trusted_hops].strip(b" \t").decode("latin-1")
    try:
        return (str(ip_address(text)), 0) if "%" not in text else None
    except ValueError:
        return None


_Trusted = tuple[int, frozenset[bytes], bytes, bool]


def _compile_trust(http: HttpRuntime) -> Callable[[HttpExchange], _Trusted] | None:
    """Where the request is from, and what it may say therefore; ``None``: nobody is trusted and nothing is added.

    A request is internal when ``x-forwarded-for`` holds one address after ours was added, and that one is in
    ``internal_address_config``. The function returns ``strip``, ``also``, ``extra`` and whether the request's ID stays.
    """
    config = http.config
    remote = config.use_remote_address
    hops = config.xff_num_trusted_hops
    append_port = config.append_x_forwarded_port
    via = config.via.encode()
    if not (remote or config.internal_cidr_ranges or hops or append_port or via):
        return None
    is_internal = compile_ranges(
        tuple(network(cidr, "internal_address_config") for cidr in config.internal_cidr_ranges)
    )
    append_xff = remote and not config.skip_xff_append
    override_id = remote and not config.preserve_external_request_id

    def trust(x: HttpExchange) -> _Trusted:
        head = x.head
        peer = x.connection.remote
        received = head.get(_XFF)
        strip = _EXTERNAL_STRIP
        also: set[bytes] = set()
        lines: list[bytes] = []

        def replace(name: bytes, value: bytes) -> None:
            also.add(name)
            head.names[name] = value
            lines.append(name + b": " + value + b"\r\n")

        single = False
        found: Address | None = None
        if remote:
            single = received is None
            if hops and received is not None:
                found = last_address(received, hops - 1)
            if found is None:
                found = peer
            if append_xff:
                address = peer[0].encode()
                replace(_XFF, received + b"," + address if received else address)
            if not hops:
                strip |= HAS_FORWARDED_PROTO
                head.names.pop(_XFP, None)
        elif received is not None:
            found = last_address(received, hops)
            single = not hops and b"," not in received
        if append_port and ((remote and not hops) or head.get(_XF_PORT) is None):
            replace(_XF_PORT, b"%d" % x.connection.local[1])
        if via:
            before = head.get(_VIA)
            replace(_VIA, via if before is None else before + b", " + via)
        if found is not None:
            x.remote = found
            x.internal = single and is_internal(found[0])
        if x.internal:
            strip &= ~(HAS_INTERNAL | HAS_SERVICE_TIME)
            # Not even an internal request says what the mesh says of itself.
            for name in [name for name in head.names if name.startswith(b"x-tulle-")]:
                also.add(name)
                del head.names[name]
            replace(b"x-envoy-internal", b"true")
            return strip, CONSUMED.union(also), b"".join(lines), True
        if head.present & (HAS_INTERNAL | HAS_SERVICE_TIME):
            forget_internal(head)
        if remote:
            replace(b"x-envoy-external-address", x.remote[0].encode())
        return strip, frozenset(also), b"".join(lines), not override_id

    return trust
