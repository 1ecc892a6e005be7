"""Pods of one host: added, deleted, listed and entered. Where the plan, the records and the kernel meet.

    manager = PodManager(Path("/run/tulle"), NetworkSpec.of("10.1.0.0/24", "fd00:1::/64"))
    pod = manager.add(PodSpec("web"))
    with pod.popen(["python3", "-m", "http.server"]) as process: ...
    manager.delete("web")

It must not build plans or talk to the kernel by itself.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from netns import apply, namespace, statefile, sysctl
from netns import exec as netns_exec
from netns.capture import TABLE
from netns.errors import NetnsError
from netns.ipam import Ipam
from netns.nft import Nft
from netns.plan import host_interface, plan_network, plan_pod
from netns.spec import (
    DEFAULT_IPV4,
    DEFAULT_IPV6,
    Address,
    CaptureSpec,
    NetworkSpec,
    PodSpec,
    check_pod_name,
)
from netns.store import NetworkRecord, PodRecord, Store

__all__ = ["CaptureSpec", "NetnsError", "NetworkSpec", "Pod", "PodManager", "PodSpec"]

DEFAULT_STATE_DIR = Path("/run/tulle")
DEFAULT_NETNS_DIR = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod on this host.

    ``state``: ``ready``; ``gone`` when its namespace or link has vanished (a reboot); ``incomplete`` when adding
    it was cut off (without addresses then). In both of the latter, delete it or add it again. ``resolv_conf`` and
    ``hosts`` are files that its processes see in /etc.
    """

    name: str
    network: str
    addresses: tuple[Address, ...]
    netns_path: Path
    host_interface: str
    capture: CaptureSpec | None
    resolv_conf: Path | None
    hosts: Path | None
    state: Literal["ready", "incomplete", "gone"]

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses as text, one per subnet of the network, in its order."""
        return tuple(map(str, self.addresses))

    @property
    def binds(self) -> tuple[tuple[Path, str], ...]:
        """Files bound over others in the pod's mount view: (source, target)."""
        pairs = ((self.resolv_conf, "/etc/resolv.conf"), (self.hosts, "/etc/hosts"))
        return tuple((source, target) for source, target in pairs if source is not None)

    def command(self, argv: Sequence[str]) -> list[str]:
        """An argv that runs ``argv`` in the pod, for ``asyncio.create_subprocess_exec`` and the like.

        It becomes ``argv`` by exec. When that fails its exit status is 125 (cannot enter the pod), 126 or 127.
        """
        return netns_exec.command_line(self.netns_path, self.binds, argv)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start ``argv`` in the pod; options as for subprocess.Popen, except those that choose another program."""
        for name in ("shell", "executable"):
            if name in options:
                raise TypeError(f"Pod.popen takes no {name!r}: give the whole command as argv")
        return subprocess.Popen(self.command(argv), **options)


class PodManager:
    """Adds and deletes pods in the network namespace that the process is in.

    Every change holds the state directory's lock, so any number of processes may work with one directory.
    Methods block (tens of milliseconds) and may be called from any thread. All raise NetnsError.
    """

    __slots__ = ("_netns_dir", "_network", "_nft", "_store")

    def __init__(
        self,
        state_dir: Path = DEFAULT_STATE_DIR,
        network: NetworkSpec | None = None,
        *,
        netns_dir: Path = DEFAULT_NETNS_DIR,
        nft: str | None = None,
    ) -> None:
        """``network`` is where ``add`` puts pods; None: the network "default", dual-stack where the kernel is."""
        self._store = Store(state_dir)
        self._network = network
        self._netns_dir = netns_dir
        self._nft = nft

    def add(self, spec: PodSpec) -> Pod:
        """Make the pod, all of it or nothing. The same spec again gives the same pod.

        Raises NetnsError when a pod of that name exists with another spec, or a namespace that is not ours.
        """
        nft = Nft(self._nft)
        with statefile.locked(self._store.lock_path):
            old = self._store.pod(spec.name)
            if old is not None:
                pod = self._pod(old)
                if pod.state == "ready":
                    self._check_same(old, spec)
                    return pod
                self._tear_down(spec.name, nft)
            path = self._netns_dir / spec.name
            if path.exists():
                raise NetnsError(
                    f"a network namespace {path} exists that is no pod of {self._store.lock_path.parent}: "
                    f"choose another name, or remove it with `ip netns del {spec.name}`"
                )
            try:
                return self._make(spec, path, nft)
            except BaseException as failure:
                try:
                    self._tear_down(spec.name, nft)
                except NetnsError as error:
                    failure.add_note(
                        f"and undoing it failed: {error}; `tulle pod del {spec.name}` tries again"
                    )
                raise

    def delete(self, name: str) -> bool:
        """Remove the pod, and its network with the network's last pod; False when there is no such pod.

        Whatever of it is gone already does not matter. Processes in the pod live on, cut off.
        """
        check_pod_name(name)
        with statefile.locked(self._store.lock_path):
            if self._store.pod(name) is None:
                self._store.remove_pod(name)
                return False
            self._tear_down(name, Nft(self._nft))
            return True

    def delete_all(self) -> tuple[str, ...]:
        """Remove every pod of the state directory, whatever its network; the names."""
        names = tuple(record.spec.name for record in self._store.pods())
        return tuple(name for name in names if self.delete(name))

    def get(self, name: str) -> Pod | None:
        """The pod, or None."""
        check_pod_name(name)
        record = self._store.pod(name)
        return None if record is None else self._pod(record)

    def list(self) -> tuple[Pod, ...]:
        """All pods of the state directory, by name."""
        return tuple(map(self._pod, self._store.pods()))

    def known_network(self, name: str) -> NetworkSpec | None:
        """The network of that name while it has pods, or None."""
        record = self._store.network(name)
        return None if record is None else record.spec

    def _make(self, spec: PodSpec, path: Path, nft: Nft) -> Pod:
        network = self._choose_network()
        host_plan = plan_network(network)
        # First of all, so that whatever a crash leaves behind is reached by deleting the pod.
        self._store.put_pod(PodRecord(spec, network.name, (), path, complete=False))
        if self._store.network(network.name) is None:
            bridge_missing, addresses_missing = apply.missing_on_host(host_plan)
            self._store.put_network(NetworkRecord(network, bridge_missing, addresses_missing))
        addresses = self._ipam(network).allocate(spec.name, spec.addresses)
        plan = plan_pod(network, spec, addresses, str(path))
        apply.apply_network(host_plan, nft)
        apply.apply_pod(plan, path, nft)
        for file, text in (("resolv.conf", plan.resolv_conf), ("hosts", plan.hosts)):
            if text is not None:
                self._store.put_pod_file(spec.name, file, text)
        complete = PodRecord(spec, network.name, addresses, path, complete=True)
        self._store.put_pod(complete)
        return self._pod(complete)

    def _tear_down(self, name: str, nft: Nft) -> None:
        record = self._store.pod(name)
        if record is None:
            return
        apply.remove_pod(host_interface(str(record.netns_path)), record.netns_path)
        network = self._store.network(record.network)
        if network is not None:
            self._ipam(network.spec).release(name)
            others = (pod for pod in self._store.pods() if pod.spec.name != name)
            if all(pod.network != record.network for pod in others):
                self._tear_down_network(network, nft)
        self._store.remove_pod(name)

    def _tear_down_network(self, network: NetworkRecord, nft: Nft) -> None:
        apply.remove_network(
            network.spec.bridge,
            TABLE,
            owns_bridge=network.owns_bridge,
            owns_addresses=network.owns_addresses,
            nft=nft,
        )
        self._ipam(network.spec).forget()
        self._store.remove_network(network.spec.name)

    def _choose_network(self) -> NetworkSpec:
        given = self._network or default_network()
        known = self._store.network(given.name)
        if known is not None:
            # None leaves the MTU to us, so any that we chose earlier will do.
            same_mtu = given.mtu or known.spec.mtu
            if self._network is not None and dataclasses.replace(given, mtu=same_mtu) != known.spec:
                raise NetnsError(
                    f"network {given.name} is in use as {_describe(known.spec)}, not {_describe(given)}; "
                    "delete its pods first, or use another --network"
                )
            return known.spec
        for other in (record.spec for record in self._store.networks()):
            if other.bridge == given.bridge:
                raise NetnsError(
                    f"bridge {given.bridge} belongs to network {other.name}; choose another --bridge"
                )
            for mine in given.subnets:
                for theirs in other.subnets:
                    # Two CIDRs overlap exactly when one has the other's first address.
                    if mine.network[0] in theirs.network or theirs.network[0] in mine.network:
                        raise NetnsError(
                            f"subnet {mine.network} overlaps {theirs.network} of network {other.name}; "
                            "choose another --subnet"
                        )
        if given.mtu is None:
            return dataclasses.replace(given, mtu=apply.default_route_mtu() or 1500)
        return given

    def _check_same(self, record: PodRecord, spec: PodSpec) -> None:
        if record.spec != spec:
            fields = [
                f.name
                for f in dataclasses.fields(spec)
                if getattr(record.spec, f.name) != getattr(spec, f.name)
            ]
            raise NetnsError(
                f"pod {spec.name} exists with other {', '.join(fields)}; `tulle pod del {spec.name}` first"
            )
        if self._network is not None and self._network.name != record.network:
            raise NetnsError(
                f"pod {spec.name} exists in network {record.network}, not {self._network.name}; "
                f"`tulle pod del {spec.name}` first"
            )

    def _ipam(self, network: NetworkSpec) -> Ipam:
        return Ipam(self._store.ipam_path(network.name), network)

    def _pod(self, record: PodRecord) -> Pod:
        directory = self._store.pod_directory(record.spec.name)
        link = host_interface(str(record.netns_path))
        if not record.complete:
            state: Literal["ready", "incomplete", "gone"] = "incomplete"
        elif namespace.is_bound(record.netns_path) and apply.has_link(link):
            state = "ready"
        else:
            state = "gone"
        return Pod(
            record.spec.name,
            record.network,
            record.addresses,
            record.netns_path,
            link,
            record.spec.capture,
            directory / "resolv.conf" if record.spec.dns else None,
            directory / "hosts" if record.spec.hosts else None,
            state,
        )


def default_network() -> NetworkSpec:
    """The network "default" where nobody says otherwise: dual-stack where the kernel is."""
    return NetworkSpec.of(DEFAULT_IPV4, DEFAULT_IPV6) if sysctl.has_ipv6() else NetworkSpec.of(DEFAULT_IPV4)


def _describe(network: NetworkSpec) -> str:
    subnets = ", ".join(f"{subnet.network} (gateway {subnet.gateway})" for subnet in network.subnets)
    masquerade = "masqueraded" if network.masquerade else "not masqueraded"
    return f"{subnets} on {network.bridge}, MTU {network.mtu or 'automatic'}, {masquerade}"
