"""The rules inside a pod that turn its TCP connections into the sidecar. Pure.

Inbound connections go to the sidecar's inbound port, outbound ones to its outbound port, and the original
destination is read from conntrack (SO_ORIGINAL_DST). Three loops are cut here:

* the sidecar's own connections leave uncaptured, known by mark, uid or gid;
* what the sidecar hands to the app has the source 127.0.0.6 or ::6 and is left alone;
* nobody may dial the two ports themselves: the guard lets only redirected connections in.

It must not know how rules are written or loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from typing import Literal

from netns.rules import Chain, Key, Match, Rule, Table, Verdict
from netns.spec import CaptureSpec, Network

TABLE = "tulle"
# Where the sidecar's connections to its app come from (Istio's choice of addresses).
INBOUND_SOURCE_V4 = ip_address("127.0.0.6")
INBOUND_SOURCE_V6 = ip_address("::6")

_DSTNAT = -100  # NF_IP_PRI_NAT_DST
_FILTER = 0  # NF_IP_PRI_FILTER
_RETURN = Verdict("return")
_LOOPBACK_IN = Match("iifname", ("lo",))
_LOOPBACK_OUT = Match("oifname", ("lo",))
_TCP = Match("meta l4proto", ("tcp",))


def capture_table(spec: CaptureSpec) -> Table:
    """The pod's table: ``prerouting`` (inbound), ``output`` (outbound) and ``guard`` (the two ports themselves)."""
    return Table(TABLE, (_prerouting(spec), _output(spec), _guard(spec)))


def _prerouting(spec: CaptureSpec) -> Chain:
    rules = [
        Rule((_LOOPBACK_IN,), _RETURN),
        # Untouched, a direct dial keeps no DNAT status and meets the guard.
        Rule((_ports(_own_ports(spec)),), _RETURN, "the sidecar's own ports"),
    ]
    if spec.exclude_inbound_ports:
        rules.append(Rule((_ports(spec.exclude_inbound_ports),), _RETURN, "excluded inbound ports"))
    rules.extend(_excluded("saddr", spec.exclude_inbound_cidrs, "excluded sources"))
    rules.append(Rule((_TCP,), Verdict("redirect", spec.inbound_port)))
    return Chain("prerouting", "nat", "prerouting", _DSTNAT, tuple(rules))


def _output(spec: CaptureSpec) -> Chain:
    own = _own_connections(spec)
    to_inbound = Verdict("redirect", spec.inbound_port)
    rules = [
        Rule((_LOOPBACK_OUT, Match("ip saddr", (str(INBOUND_SOURCE_V4),))), _RETURN, "sidecar to app"),
        Rule((_LOOPBACK_OUT, Match("ip6 saddr", (str(INBOUND_SOURCE_V6),))), _RETURN, "sidecar to app"),
        Rule((_LOOPBACK_OUT, _ports((*_own_ports(spec), *spec.exclude_inbound_ports))), _RETURN),
    ]
    for match in own:
        # A pod that calls its own service: the chosen endpoint is this pod, reached over lo.
        for elsewhere in (
            Match("ip daddr", ("127.0.0.0/8",), negate=True),
            Match("ip6 daddr", ("::1",), negate=True),
        ):
            reason = "sidecar to this pod's own address"
            rules.append(Rule((_LOOPBACK_OUT, match, elsewhere, _TCP), to_inbound, reason))
    rules.extend(Rule((match,), _RETURN, "the sidecar's own connections") for match in own)
    if spec.dns_port is not None:
        to_dns = Verdict("redirect", spec.dns_port)
        rules.append(Rule((Match("udp dport", ("53",)),), to_dns))
        rules.append(Rule((Match("tcp dport", ("53",)),), to_dns))
    rules.append(Rule((_LOOPBACK_OUT,), _RETURN))
    if spec.exclude_outbound_ports:
        rules.append(Rule((_ports(spec.exclude_outbound_ports),), _RETURN, "excluded outbound ports"))
    rules.extend(_excluded("daddr", spec.exclude_outbound_cidrs, "excluded destinations"))
    rules.append(Rule((_TCP,), Verdict("redirect", spec.outbound_port)))
    return Chain("output", "nat", "output", _DSTNAT, tuple(rules))


def _guard(spec: CaptureSpec) -> Chain:
    ports = _ports(_own_ports(spec))
    return Chain(
        "guard",
        "filter",
        "input",
        _FILTER,
        (
            # Answers to a connection that happened to be made from one of the two port numbers.
            Rule((Match("ct direction", ("reply",)),), Verdict("accept")),
            Rule((ports, Match("ct status", ("dnat",))), Verdict("accept"), "redirected"),
            Rule((ports,), Verdict("reject with tcp reset"), "dialled directly"),
        ),
    )


def _own_ports(spec: CaptureSpec) -> tuple[int, ...]:
    return (spec.outbound_port, spec.inbound_port)


def _own_connections(spec: CaptureSpec) -> tuple[Match, ...]:
    keys: tuple[tuple[Key, int | None], ...] = (
        ("meta mark", spec.mark),
        ("meta skuid", spec.uid),
        ("meta skgid", spec.gid),
    )
    return tuple(Match(key, (str(number),)) for key, number in keys if number is not None)


def _ports(ports: Iterable[int]) -> Match:
    return Match("tcp dport", tuple(str(port) for port in sorted(set(ports))))


def _excluded(side: Literal["saddr", "daddr"], networks: tuple[Network, ...], reason: str) -> list[Rule]:
    v4: Key = "ip saddr" if side == "saddr" else "ip daddr"
    v6: Key = "ip6 saddr" if side == "saddr" else "ip6 daddr"
    # nft refuses a set whose ranges overlap.
    ranges: tuple[tuple[Key, Iterable[Network]], ...] = (
        (v4, collapse_addresses(n for n in networks if isinstance(n, IPv4Network))),
        (v6, collapse_addresses(n for n in networks if isinstance(n, IPv6Network))),
    )
    rules = []
    for key, merged in ranges:
        values = tuple(map(str, merged))
        if values:
            rules.append(Rule((Match(key, values),), _RETURN, reason))
    return rules
