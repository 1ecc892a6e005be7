"""Which filter chain takes a connection: Envoy's order of criteria, each step narrowing to the most specific.

There is no way back from a step: if a chain names the destination port, chains that name none are out, even when the
former fails on a later criterion. Then only the default filter chain is left.
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/listener/v3/listener_components.proto
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from proxy.match.cidr import Network, network, parse
from proxy.model.config import ConfigError
from proxy.model.connection import ConnectionInfo
from proxy.model.listener import FilterChainMatch

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class _Criteria:
    """One combination of single values; empty or ``None`` = any."""

    port: int | None
    destination: Network | None
    server_name: str
    transport: str
    alpn: str
    direct_source: Network | None
    source: Network | None
    source_port: int | None


Row = tuple[_Criteria, C]


def compile_chain_match(
    chains: Sequence[tuple[FilterChainMatch, C, str]], default: C | None
) -> Callable[[ConnectionInfo], C | None]:
    """A function from a connection to its chain. ``chains``: (match, chain, field path).

    Raises ``ConfigError`` when two chains have a combination in common, as Envoy does.
    """
    rows: list[Row[C]] = []
    taken: dict[_Criteria, str] = {}
    for match, chain, field in chains:
        for criteria in _combinations(match, f"{field}.filter_chain_match"):
            other = taken.setdefault(criteria, field)
            if other is not field:
                raise ConfigError(
                    f"{field}.filter_chain_match",
                    f"matches the same connections as {other}: which one is meant?",
                )
            rows.append((criteria, chain))
    if not rows:
        return lambda conn: default
    if len(rows) == 1 and rows[0][0] == _ANYTHING:
        only = rows[0][1]
        return lambda conn: only

    def find(conn: ConnectionInfo) -> C | None:
        left = rows
        for narrow in _STEPS:
            left = narrow(left, conn)
            if not left:
                return default
        return left[0][1]

    return find


_ANYTHING = _Criteria(None, None, "", "", "", None, None, None)


def _combinations(match: FilterChainMatch, field: str) -> list[_Criteria]:
    for n, name in enumerate(match.server_names):
        if "*" in name and not (name.startswith("*.") and "*" not in name[1:] and len(name) > 2):
            raise ConfigError(
                f"{field}.server_names[{n}]",
                f"{name!r}: a wildcard is the whole first label, as in *.example.com",
            )
    destinations: list[Network | None] = [
        network(cidr, f"{field}.prefix_ranges[{n}]") for n, cidr in enumerate(match.prefix_ranges)
    ] or [None]
    direct: list[Network | None] = [
        network(cidr, f"{field}.direct_source_prefix_ranges[{n}]")
        for n, cidr in enumerate(match.direct_source_prefix_ranges)
    ] or [None]
    sources: list[Network | None] = [
        network(cidr, f"{field}.source_prefix_ranges[{n}]")
        for n, cidr in enumerate(match.source_prefix_ranges)
    ] or [None]
    return [
        _Criteria(match.destination_port, to, name.lower(), match.transport_protocol, alpn, via, source, port)
        for to in destinations
        for name in match.server_names or ("",)
        for alpn in match.application_protocols or ("",)
        for via in direct
        for source in sources
        for port in match.source_ports or (None,)
    ]


def _exact(
    rows: list[Row[C]], read: Callable[[_Criteria], object], wanted: object, none: object
) -> list[Row[C]]:
    """The rows that ask for ``wanted``, else those that ask for nothing."""
    if wanted != none:
        found = [row for row in rows if read(row[0]) == wanted]
        if found:
            return found
    return [row for row in rows if read(row[0]) == none]


def _longest(rows: list[Row[C]], read: Callable[[_Criteria], Network | None], address: str) -> list[Row[C]]:
    """The rows with the longest prefix that holds ``address``, else those without one."""
    parsed = parse(address)
    best = -1
    found: list[Row[C]] = []
    for row in rows:
        prefix = read(row[0])
        if prefix is None:
            length = -1
        elif parsed is not None and parsed[0] == prefix.version and _holds(prefix, parsed[1]):
            length = prefix.prefixlen
        else:
            continue
        if length > best:
            best, found = length, [row]
        elif length == best:
            found.append(row)
    return found


def _holds(prefix: Network, number: int) -> bool:
    shift = prefix.max_prefixlen - prefix.prefixlen
    return number >> shift == int(prefix.network_address) >> shift


def _by_port(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    return _exact(rows, lambda c: c.port, conn.local[1], None)


def _by_destination(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    return _longest(rows, lambda c: c.destination, conn.local[0])


def _by_server_name(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    name = conn.sni.lower()
    wanted = [name]
    at = name.find(".", 1)
    while 0 <= at < len(name) - 1:
        wanted.append("*" + name[at:])
        at = name.find(".", at + 1)
    for candidate in wanted:
        found = [row for row in rows if row[0].server_name == candidate]
        if found:
            return found
    return [row for row in rows if not row[0].server_name]


def _by_transport(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    return _exact(rows, lambda c: c.transport, conn.transport_protocol, "")


def _by_alpn(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    for protocol in conn.alpn_offered:
        found = [row for row in rows if row[0].alpn == protocol]
        if found:
            return found
    return [row for row in rows if not row[0].alpn]


def _by_direct_source(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    return _longest(rows, lambda c: c.direct_source, conn.direct_remote[0])


def _by_source(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    return _longest(rows, lambda c: c.source, conn.remote[0])


def _by_source_port(rows: list[Row[C]], conn: ConnectionInfo) -> list[Row[C]]:
    return _exact(rows, lambda c: c.source_port, conn.remote[1], None)


_STEPS = (
    _by_port,
    _by_destination,
    _by_server_name,
    _by_transport,
    _by_alpn,
    _by_direct_source,
    _by_source,
    _by_source_port,
)
