"""Address management of one network: who has which address, kept in a file.

Allocation is by owner (the pod's name) and repeatable: the same owner gets the same addresses. A freed address
comes round again only after the rest of its range, so that stale neighbour caches and DNS answers do not find a
new pod behind an old address. It must not touch links.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netns import statefile
from netns.errors import NetnsError
from netns.spec import Address, NetworkSpec, Subnet


def choose(subnet: Subnet, taken: Container[Address], last: Address | None) -> Address | None:
    """The first free address after ``last`` (None: from the start), wrapping round; None when all are taken.

    Takes as many steps as there are taken addresses in its way, whatever the size of the range.
    """
    low, high = int(subnet.first), int(subnet.last)
    size = high - low + 1
    start = low if last is None or last not in subnet.network else (int(last) - low + 1) % size + low
    make = type(subnet.first)
    for step in range(size):
        candidate = make((start - low + step) % size + low)
        if candidate != subnet.gateway and candidate not in taken:
            return candidate
    return None


class Ipam:
    """The addresses of one network. Safe between threads and processes, and after a crash at any moment."""

    __slots__ = ("_lock", "_network", "_path")

    def __init__(self, path: Path, network: NetworkSpec) -> None:
        self._path = path
        self._lock = path.with_name(f"{path.name}.lock")
        self._network = network

    def allocate(self, owner: str, requested: Sequence[Address] = ()) -> tuple[Address, ...]:
        """One address for each subnet, in the network's order; those ``requested`` where a subnet has them.

        An owner that has addresses gets them again. Raises NetnsError when a range is exhausted, or a requested
        address is outside every range, the gateway's, or another owner's.
        """
        for address in requested:
            self._check_requested(address)
        with statefile.locked(self._lock):
            owners, last = self._read()
            held = owners.get(owner)
            if held is not None:
                missing = [str(address) for address in requested if address not in held]
                if missing:
                    have = ", ".join(map(str, held))
                    raise NetnsError(
                        f"pod {owner} has {have} already, not {', '.join(missing)}; delete it first"
                    )
                return held
            by_address = {address: name for name, addresses in owners.items() for address in addresses}
            chosen: list[Address] = []
            for subnet in self._network.subnets:
                wanted = next((address for address in requested if address in subnet.network), None)
                if wanted is not None and wanted in by_address:
                    raise NetnsError(
                        f"network {self._network.name}: address {wanted} belongs to pod {by_address[wanted]}"
                    )
                picked = wanted or choose(subnet, by_address, last.get(str(subnet.network)))
                if picked is None:
                    raise NetnsError(self._exhausted(subnet, by_address))
                if wanted is None:
                    last[str(subnet.network)] = picked
                chosen.append(picked)
            owners[owner] = tuple(chosen)
            self._write(owners, last)
            return tuple(chosen)

    def release(self, owner: str) -> tuple[Address, ...]:
        """Free the owner's addresses and return them; empty when it has none."""
        with statefile.locked(self._lock):
            owners, last = self._read()
            freed = owners.pop(owner, ())
            if freed:
                self._write(owners, last)
            return freed

    def allocations(self) -> dict[str, tuple[Address, ...]]:
        """All addresses in use, by owner."""
        with statefile.locked(self._lock):
            return self._read()[0]

    def forget(self) -> None:
        """Remove the file, for a network that is no longer used."""
        with statefile.locked(self._lock):
            statefile.remove(self._path)

    def _check_requested(self, address: Address) -> None:
        for subnet in self._network.subnets:
            if address in subnet.network:
                if address == subnet.gateway:
                    raise NetnsError(f"address {address} is the gateway of network {self._network.name}")
                if not subnet.is_usable(address):
                    raise NetnsError(f"address {address} cannot be a pod's in {subnet.network}")
                return
        ranges = ", ".join(str(subnet.network) for subnet in self._network.subnets)
        raise NetnsError(f"address {address} is not in network {self._network.name} ({ranges})")

    def _exhausted(self, subnet: Subnet, taken: Mapping[Address, str]) -> str:
        used = sum(address in subnet.network for address in taken)
        return (
            f"network {self._network.name}: no free address in {subnet.network} "
            f"({subnet.first}-{subnet.last} without the gateway {subnet.gateway}: {used} in use); "
            "delete pods, or make a network with a larger --subnet"
        )

    def _read(self) -> tuple[dict[str, tuple[Address, ...]], dict[str, Address]]:
        content = statefile.read(self._path)
        if content is None:
            return {}, {}
        try:
            owners = {name: tuple(map(ip_address, texts)) for name, texts in content["owners"].items()}
            last = {name: ip_address(text) for name, text in content["last"].items()}
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise NetnsError(
                f"{self._path} is damaged ({error}); remove it once its pods are gone"
            ) from error
        return owners, last

    def _write(self, owners: Mapping[str, Sequence[Address]], last: Mapping[str, Address]) -> None:
        content: dict[str, Any] = {
            "version": 1,
            "owners": {name: [str(address) for address in held] for name, held in owners.items()},
            "last": {name: str(address) for name, address in last.items()},
        }
        statefile.write(self._path, content)
