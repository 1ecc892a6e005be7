"""What pods and networks were made, on disk: written before the kernel is touched, removed after.

So a crash at any moment leaves a record of whatever may be left in the kernel. It must not touch the kernel.

    <state dir>/lock                          held while anything is added or deleted
    <state dir>/networks/<name>/network.json  the network, and which parts of it are ours to remove
    <state dir>/networks/<name>/ipam.json     its addresses in use
    <state dir>/pods/<name>/pod.json          the pod; beside it its resolv.conf and hosts, when it has them
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from netns import statefile
from netns.errors import NetnsError
from netns.plan import Interface
from netns.spec import Address, CaptureSpec, NetworkSpec, PodSpec, Subnet


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """A network in use; its bridge, and addresses on it, are removed with the last pod only when we made them."""

    spec: NetworkSpec
    owns_bridge: bool
    owns_addresses: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod; not ``complete`` while it is being made, and so after a crash then."""

    spec: PodSpec
    network: str
    addresses: tuple[Address, ...]
    netns_path: Path
    complete: bool


class Store:
    """The records below one state directory. Callers hold ``lock_path`` while they change anything."""

    __slots__ = ("_root",)

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def lock_path(self) -> Path:
        """The file that guards all changes."""
        return self._root / "lock"

    def ipam_path(self, network: str) -> Path:
        """Where the network's addresses in use are kept."""
        return self._root / "networks" / network / "ipam.json"

    def pod_directory(self, name: str) -> Path:
        """The directory of the pod's files."""
        return self._root / "pods" / name

    def network(self, name: str) -> NetworkRecord | None:
        """The network's record, or None."""
        path = self._network_path(name)
        content = statefile.read(path)
        if content is None:
            return None
        try:
            return _network_record(content)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    def networks(self) -> tuple[NetworkRecord, ...]:
        """All networks in use, by name."""
        names = sorted(path.parent.name for path in (self._root / "networks").glob("*/network.json"))
        return tuple(record for record in map(self.network, names) if record is not None)

    def put_network(self, record: NetworkRecord) -> None:
        """Write the network's record."""
        statefile.write(self._network_path(record.spec.name), dataclasses.asdict(record))

    def remove_network(self, name: str) -> None:
        """Remove the network's record."""
        statefile.remove(self._network_path(name))

    def pod(self, name: str) -> PodRecord | None:
        """The pod's record, or None."""
        path = self.pod_directory(name) / "pod.json"
        content = statefile.read(path)
        if content is None:
            return None
        try:
            return _pod_record(content)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    def pods(self) -> tuple[PodRecord, ...]:
        """All pods, by name."""
        names = sorted(path.parent.name for path in (self._root / "pods").glob("*/pod.json"))
        return tuple(record for record in map(self.pod, names) if record is not None)

    def put_pod(self, record: PodRecord) -> None:
        """Write the pod's record."""
        statefile.write(self.pod_directory(record.spec.name) / "pod.json", dataclasses.asdict(record))

    def put_pod_file(self, name: str, file: str, text: str) -> None:
        """Write a file of the pod beside its record."""
        statefile.write_text(self.pod_directory(name) / file, text)

    def remove_pod(self, name: str) -> None:
        """Remove the pod's record and files; the record goes last."""
        directory = self.pod_directory(name)
        for file in ("resolv.conf", "hosts", "pod.json"):
            statefile.remove(directory / file)
        if directory.exists():
            shutil.rmtree(directory)

    def _network_path(self, name: str) -> Path:
        return self._root / "networks" / name / "network.json"


def _network_record(content: dict[str, Any]) -> NetworkRecord:
    spec = content["spec"]
    subnets = tuple(Subnet(ip_network(s["network"]), ip_address(s["gateway"])) for s in spec["subnets"])
    return NetworkRecord(
        NetworkSpec(**{**spec, "subnets": subnets}),
        bool(content["owns_bridge"]),
        tuple(map(ip_interface, content["owns_addresses"])),
    )


def _pod_record(content: dict[str, Any]) -> PodRecord:
    spec = content["spec"]
    capture = spec["capture"]
    if capture is not None:
        ports = {key: tuple(capture[key]) for key in ("exclude_inbound_ports", "exclude_outbound_ports")}
        cidrs = {
            key: tuple(map(ip_network, capture[key]))
            for key in ("exclude_inbound_cidrs", "exclude_outbound_cidrs")
        }
        capture = CaptureSpec(**{**capture, **ports, **cidrs})
    pod = PodSpec(
        name=spec["name"],
        addresses=tuple(map(ip_address, spec["addresses"])),
        capture=capture,
        dns=tuple(map(ip_address, spec["dns"])),
        search=tuple(spec["search"]),
        hosts=tuple((name, ip_address(address)) for name, address in spec["hosts"]),
    )
    return PodRecord(
        pod,
        content["network"],
        tuple(map(ip_address, content["addresses"])),
        Path(content["netns_path"]),
        bool(content["complete"]),
    )


def _damaged(path: Path, error: Exception) -> NetnsError:
    return NetnsError(f"{path} is damaged ({error!r}); remove it once its pods are gone")
