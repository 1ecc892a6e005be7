"""What a DNS lookup found, as data. No input or output happens here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One SRV record (RFC 2782). ``target`` is absolute, lower case and without its final dot."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """IP literals of a name, IPv4 first, and for how many seconds they may be used. Empty: the name has none."""

    addresses: tuple[str, ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class SrvAnswer:
    """SRV records and the addresses of their targets.

    ``records`` empty: the service is decidedly absent (a target of ``.``, NXDOMAIN or no data).
    ``ttl`` is the smallest of all records that the answer rests on, in seconds.
    """

    records: tuple[SrvRecord, ...]
    addresses: tuple[tuple[str, tuple[str, ...]], ...]
    ttl: float


class LookupFailed(Exception):
    """No server gave a usable answer (timeout, SERVFAIL, REFUSED, malformed); says nothing about the name."""
