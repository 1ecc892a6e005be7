"""nftables tables, chains and rules as plain data. It must not know what they are for, nor their text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Key = Literal[
    "iifname",
    "oifname",
    "ip saddr",
    "ip daddr",
    "ip6 saddr",
    "ip6 daddr",
    "meta l4proto",
    "tcp dport",
    "udp dport",
    "meta mark",
    "meta skuid",
    "meta skgid",
    "ct status",
    "ct direction",
]


@dataclass(frozen=True, slots=True)
class Match:
    """True when the packet's ``key`` is (or, negated, is not) one of the values, which is never empty."""

    key: Key
    values: tuple[str, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a packet that all matches of a rule held for; ``port`` is for ``redirect`` alone."""

    kind: Literal["accept", "return", "masquerade", "redirect", "reject with tcp reset"]
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches, all of which must hold, and the verdict; ``reason`` is shown as a comment in the kernel's list."""

    matches: tuple[Match, ...]
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain with policy accept; ``priority`` is numeric since names are not valid on every hook."""

    name: str
    type: Literal["nat", "filter"]
    hook: Literal["prerouting", "input", "output", "postrouting"]
    priority: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of family inet, so that one rule set serves IPv4 and IPv6."""

    name: str
    chains: tuple[Chain, ...]
