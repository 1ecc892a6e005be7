"""Virtual addresses of Services: ``spec.clusterIP`` from a range, kept for life, never given twice.

Pure. The candidate for a Service is derived from its name, so that a Service that is deleted and made anew
usually gets its old address back, and clients that cached it find it.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from control_plane.api.kinds import Problem, Reason
from control_plane.store.base import Key, Stored

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HEADLESS = "None"
_FIELD = "spec.clusterIP"


class ServiceAddresses:
    """The range and who holds which of its addresses, while one admission is under way."""

    def __init__(self, cidr: Network, objects: Iterable[Stored]) -> None:
        self._cidr = cidr
        self._first = 1
        # The network's own address, and IPv4's broadcast address, are nobody's.
        self._count = max(cidr.num_addresses - (2 if cidr.version == 4 else 1), 0)
        self._holders: dict[str, Key] = {}
        for stored in objects:
            if is_service(stored.key):
                self.hold(stored.key, stored.body)

    def hold(self, key: Key, body: Mapping[str, Any]) -> None:
        """Note the address in ``body`` as ``key``'s."""
        address = _address(body)
        if address is not None:
            self._holders[address] = key

    def release(self, key: Key, body: Mapping[str, Any]) -> None:
        """Forget that ``key`` holds the address in ``body``."""
        address = _address(body)
        if address is not None and self._holders.get(address) == key:
            del self._holders[address]

    def assign(
        self, key: Key, body: Mapping[str, Any], previous: Mapping[str, Any] | None
    ) -> tuple[Mapping[str, Any], list[Problem]]:
        """``body`` with an address that ``key`` then holds, and what is wrong with the address asked for."""
        spec = dict(body["spec"])
        asked, had = spec.get("clusterIP"), previous["spec"].get("clusterIP") if previous else None
        asked = asked or next(iter(spec.get("clusterIPs", ())), None)
        if had and asked and _canonical(asked) != _canonical(had):
            message = f"cannot change from {had!r} to {asked!r}: leave it out to keep it, or delete the Service first"
            return body, [Problem(_FIELD, message, Reason.INVALID)]
        if not asked and had:
            asked = had
        if not asked:
            asked = self._free(key)
            if asked is None:
                message = (
                    f"no free address is left in {self._cidr}: delete Services that are not used, "
                    "or start the control plane with a larger --service-cidr"
                )
                return body, [Problem(_FIELD, message, Reason.INVALID)]
        problems = [] if asked in (HEADLESS, had) else self._refuse(key, asked)
        spec["clusterIP"] = _canonical(asked)
        assigned = {**body, "spec": spec}
        if not problems:
            self.hold(key, assigned)
        return assigned, problems

    def _refuse(self, key: Key, asked: str) -> list[Problem]:
        address = ipaddress.ip_address(asked)
        if address not in self._cidr:
            message = f"{asked} is not in the service range {self._cidr}: leave it out to get an address"
            return [Problem(_FIELD, message, Reason.INVALID)]
        if not 0 <= int(address) - int(self._cidr.network_address) - self._first < self._count:
            message = f"{asked} is the network or broadcast address of the service range {self._cidr}"
            return [Problem(_FIELD, message, Reason.INVALID)]
        holder = self._holders.get(str(address))
        if holder is not None and holder != key:
            message = f"{asked} belongs to Service {holder.namespace}/{holder.name} already"
            return [Problem(_FIELD, message, Reason.DUPLICATE)]
        return []

    def _free(self, key: Key) -> str | None:
        if len(self._holders) >= self._count:
            # Only then may all be taken; addresses outside a range that was changed do not count.
            inside = sum(ipaddress.ip_address(held) in self._cidr for held in self._holders)
            if inside >= self._count:
                return None
        digest = hashlib.sha256(f"{key.namespace}/{key.name}".encode()).digest()
        start = int.from_bytes(digest[:16], "big") % self._count
        for step in range(self._count):
            address = str(self._cidr[self._first + (start + step) % self._count])
            if address not in self._holders:
                return address
        return None


def is_service(key: Key) -> bool:
    return key.group == "" and key.plural == "services"


def _address(body: Mapping[str, Any]) -> str | None:
    address = body.get("spec", {}).get("clusterIP")
    return None if not address or address == HEADLESS else _canonical(address)


@lru_cache(1 << 16)
def _canonical(address: str) -> str:
    return address if address == HEADLESS else str(ipaddress.ip_address(address))
