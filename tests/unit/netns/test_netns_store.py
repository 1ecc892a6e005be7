"""Records on disk read back as they were written."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from netns.errors import NetnsError
from netns.spec import CaptureSpec, NetworkSpec, PodSpec
from netns.store import NetworkRecord, PodRecord, Store

PODS = [
    PodSpec("plain"),
    PodSpec("uncaptured", capture=None),
    PodSpec(
        "everything",
        addresses=(ip_address("10.1.0.5"), ip_address("fd00::5")),
        capture=CaptureSpec(
            mark=None,
            uid=1,
            gid=2,
            exclude_inbound_ports=(1, 2),
            exclude_outbound_ports=(3,),
            exclude_inbound_cidrs=(ip_network("10.0.0.0/8"),),
            exclude_outbound_cidrs=(ip_network("fd00::/8"),),
            dns_port=15053,
        ),
        dns=(ip_address("10.1.0.1"),),
        search=("mesh.local",),
        hosts=(("db", ip_address("10.1.0.9")),),
    ),
]


@pytest.mark.parametrize("spec", PODS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("complete", [True, False])
def test_pod(tmp_path: Path, spec: PodSpec, complete: bool) -> None:
    store = Store(tmp_path)
    record = PodRecord(spec, "default", (ip_address("10.1.0.2"),), Path("/run/netns/x"), complete)
    store.put_pod(record)
    store.put_pod_file(spec.name, "hosts", "127.0.0.1 localhost\n")
    assert store.pod(spec.name) == record
    assert store.pods() == (record,)
    store.remove_pod(spec.name)
    assert store.pods() == ()
    assert not store.pod_directory(spec.name).exists()
    store.remove_pod(spec.name)


def test_network(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = tuple(
        NetworkRecord(NetworkSpec.of(cidr, name=name, mtu=1400), owns, (ip_interface("10.1.0.1/24"),))
        for name, cidr, owns in (("a", "10.1.0.0/24", True), ("ipam.json", "fd00::/64", False))
    )
    for record in records:
        store.put_network(record)
        store.ipam_path(record.spec.name).write_text("{}")
    assert store.networks() == records
    store.remove_network("a")
    assert store.networks() == records[1:]


def test_damaged_record_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_pod(PodRecord(PODS[0], "default", (), Path("/x"), True))
    path = store.pod_directory("plain") / "pod.json"
    path.write_text('{"spec": {}}')
    with pytest.raises(NetnsError, match=f"{path} is damaged"):
        store.pods()
