"""Pods in real namespaces: what they reach, and what adding, failing and deleting leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from netns import apply, namespace, sysctl
from netns.ipam import Ipam
from netns.links import Links
from netns.nft import Nft
from netns.pods import CaptureSpec, NetnsError, NetworkSpec, Pod, PodManager, PodSpec
from netns.store import Store
from tests.support.pods import accept, dial, listen, picture

pytestmark = pytest.mark.netns
BOTH = pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
KINDS = pytest.mark.parametrize(
    "kind",
    [
        pytest.param("user", marks=pytest.mark.netns),
        pytest.param("root", marks=pytest.mark.netns(user=False)),
    ],
)
STATE = Path("/run/tulle")
NETWORK = NetworkSpec.of("10.1.0.0/24", "fd00:1::/64")


@pytest.fixture
def manager() -> PodManager:
    return PodManager(STATE, NETWORK)


def files_left() -> list[str]:
    return sorted(
        str(path.relative_to(STATE))
        for path in STATE.rglob("*")
        if path.is_file() and "lock" not in path.name
    )


@KINDS
@BOTH
def test_pods_reach_each_other_and_the_host(manager: PodManager, kind: str, version: int) -> None:
    a, b = (manager.add(PodSpec(name, capture=None)) for name in "ab")
    with listen(b) as server, dial(a, b.ips[version], server.getsockname()[1]):
        connection, peer = accept(server)
        connection.close()
        assert peer.address == a.addresses[version]
    with listen(None) as server, dial(a, ("10.1.0.1", "fd00:1::1")[version], server.getsockname()[1]):
        connection, peer = accept(server)
        connection.close()
        assert peer.address == a.addresses[version]
    with listen(a) as server, dial(None, a.ips[version], server.getsockname()[1]):
        accept(server)[0].close()


@BOTH
@pytest.mark.parametrize("masquerade", [True, False])
def test_masquerade_outside_the_subnet(version: int, masquerade: bool) -> None:
    near = PodManager(STATE, NetworkSpec.of("10.1.0.0/24", "fd00:1::/64", masquerade=masquerade))
    far = PodManager(STATE, NetworkSpec.of("10.9.0.0/24", "fd00:9::/64", name="far", bridge="far0"))
    inside, outside = near.add(PodSpec("in", capture=None)), far.add(PodSpec("out", capture=None))
    with listen(outside) as server, dial(inside, outside.ips[version], server.getsockname()[1]):
        connection, peer = accept(server)
        connection.close()
    gateway = ip_address(("10.9.0.1", "fd00:9::1")[version])
    assert peer.address == (gateway if masquerade else inside.addresses[version])


@pytest.mark.netns(timeout=300)
@KINDS
def test_a_hundred_pods_leave_nothing_behind(manager: PodManager, kind: str) -> None:
    subprocess.run(["/usr/sbin/nft", "add", "table", "inet", "others"], check=True)
    manager.add(PodSpec("first"))  # imports, and the kernel's own first-use state
    manager.delete("first")
    before = picture()
    for number in range(100):
        manager.add(
            PodSpec(f"pod-{number}", dns=(ip_address("10.1.0.1"),), hosts=(("db", ip_address("10.1.0.9")),))
        )
        if number >= 2:
            assert manager.delete(f"pod-{number - 2}")
    assert [pod.name for pod in manager.list()] == ["pod-98", "pod-99"]
    assert manager.delete_all() == ("pod-98", "pod-99")
    assert picture() == before
    assert files_left() == []


class _Cut(BaseException):
    """Neither an Exception nor ours: as KeyboardInterrupt would be."""


STEPS: dict[str, tuple[object, str, int]] = {
    "network record": (Store, "put_network", 1),
    "address": (Ipam, "allocate", 1),
    "pod record": (Store, "put_pod", 1),
    "bridge": (Links, "add_bridge", 1),
    "gateway 1": (Links, "add_address", 1),
    "gateway 2": (Links, "add_address", 2),
    "bridge up": (Links, "set_up", 1),
    "forwarding": (sysctl, "enable_forwarding", 2),
    "masquerade": (Nft, "load", 1),
    "namespace": (namespace, "create", 1),
    "pod rules": (Nft, "load", 2),
    "veth": (Links, "add_veth", 1),
    "pod lo": (Links, "set_up", 2),
    "pod address": (Links, "add_address", 4),
    "pod up": (Links, "set_up", 3),
    "route 1": (Links, "add_route", 1),
    "route 2": (Links, "add_route", 2),
    "resolv.conf": (Store, "put_pod_file", 1),
    "complete": (Store, "put_pod", 2),
}
DELETE_STEPS: dict[str, tuple[object, str, int]] = {
    "link": (Links, "delete", 1),
    "namespace gone": (namespace, "delete", 1),
    "address free": (Ipam, "release", 1),
    "chain": (Nft, "delete_chain", 1),
    "gateway gone": (Links, "delete_address", 1),
    "bridge gone": (Links, "delete", 2),
    "addresses": (Ipam, "forget", 1),
    "network": (Store, "remove_network", 1),
}


def break_at(monkeypatch: pytest.MonkeyPatch, step: str, when: str, failure: Callable[[], None]) -> None:
    """Make the step's nth call fail, before or after it has done its work."""
    owner, name, count = (STEPS | DELETE_STEPS)[step]
    original = getattr(owner, name)
    calls = 0

    def call(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            failure()
        result = original(*args, **kwargs)
        if calls == count:
            failure()
        return result

    monkeypatch.setattr(owner, name, call)


def refuse() -> None:
    raise NetnsError("refused by the test")


def cut() -> None:
    raise _Cut


SPEC = PodSpec("victim", dns=(ip_address("10.1.0.1"),))


@pytest.mark.parametrize(("when", "failure"), [("before", refuse), ("after", cut)])
@pytest.mark.parametrize("step", STEPS)
def test_failure_at_any_step_undoes_everything(
    manager: PodManager, monkeypatch: pytest.MonkeyPatch, step: str, when: str, failure: Callable[[], None]
) -> None:
    manager.add(PodSpec("first"))
    manager.delete("first")
    before = picture()
    with monkeypatch.context() as patch:
        break_at(patch, step, when, failure)
        with pytest.raises((NetnsError, _Cut)):
            manager.add(SPEC)
    assert picture() == before
    assert (manager.list(), files_left()) == ((), [])
    assert manager.add(SPEC).state == "ready"


@pytest.mark.parametrize(
    ("step", "repair"),
    [*((step, repair) for step in STEPS for repair in ("delete", "add")), ("veth", "add another")],
)
def test_crash_at_any_step_is_cleaned_up(
    manager: PodManager, monkeypatch: pytest.MonkeyPatch, step: str, repair: str
) -> None:
    manager.add(PodSpec("first"))
    manager.delete("first")
    before = picture()
    pid = os.fork()
    if pid == 0:
        break_at(monkeypatch, step, "after", lambda: os._exit(9))
        manager.add(SPEC)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    if repair == "delete":
        manager.delete("victim")
    elif repair == "add":
        assert manager.add(SPEC).state == "ready"
        assert len(manager.list()) == 1
    else:
        manager.add(PodSpec("other"))
    manager.delete_all()
    assert picture() == before
    assert files_left() == []


@pytest.mark.parametrize("repair", ["delete", "add"])
@pytest.mark.parametrize("step", DELETE_STEPS)
def test_crash_while_deleting_is_cleaned_up(
    manager: PodManager, monkeypatch: pytest.MonkeyPatch, step: str, repair: str
) -> None:
    manager.add(PodSpec("first"))
    manager.delete("first")
    before = picture()
    manager.add(SPEC)
    pid = os.fork()
    if pid == 0:
        break_at(monkeypatch, step, "after", lambda: os._exit(9))
        manager.delete("victim")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    if repair == "add":
        assert manager.add(SPEC).state == "ready"
    manager.delete("victim")
    assert picture() == before
    assert files_left() == []


def test_failed_add_leaves_other_pods_alone(manager: PodManager, monkeypatch: pytest.MonkeyPatch) -> None:
    a = manager.add(PodSpec("a", capture=None))
    before = picture()
    with monkeypatch.context() as patch:
        break_at(patch, "route 2", "after", refuse)
        with pytest.raises(NetnsError, match="refused by the test"):
            manager.add(SPEC)
    assert picture() == before
    b = manager.add(PodSpec("b", capture=None))
    with listen(b) as server, dial(a, b.ips[0], server.getsockname()[1]):
        accept(server)[0].close()


def test_kernel_refusal_is_undone_and_named(manager: PodManager, tmp_path: Path) -> None:
    manager.add(PodSpec("first"))
    manager.delete("first")
    before = picture()
    broken = tmp_path / "nft"
    broken.write_text('#!/bin/sh\ncase "$*" in *-f*) if grep -q redirect; then echo "no such verdict" >&2; exit 1; fi;;'
                      ' *) exec /usr/sbin/nft "$@";; esac\n')  # fmt: skip
    broken.chmod(0o755)
    with pytest.raises(NetnsError, match="nft refused the rules: no such verdict"):
        PodManager(STATE, NETWORK, nft=str(broken)).add(SPEC)
    assert picture() == before


def test_concurrent_adds_get_different_addresses(manager: PodManager) -> None:
    with ThreadPoolExecutor(8) as pool:
        pods = list(pool.map(lambda number: manager.add(PodSpec(f"p{number}", capture=None)), range(8)))
    assert len({ip for pod in pods for ip in pod.ips}) == 16
    assert all(pod.state == "ready" for pod in manager.list())


def test_same_pod_again_is_the_same(manager: PodManager) -> None:
    first = manager.add(SPEC)
    before = picture()
    assert manager.add(SPEC) == first
    assert picture() == before


def test_another_spec_for_the_same_name_is_refused(manager: PodManager) -> None:
    manager.add(SPEC)
    with pytest.raises(
        NetnsError, match=r"pod victim exists with other capture, dns; `tulle pod del victim` first"
    ):
        manager.add(PodSpec("victim", capture=CaptureSpec(mark=7)))


def test_requested_address_is_given(manager: PodManager) -> None:
    pod = manager.add(PodSpec("fixed", (ip_address("10.1.0.77"),)))
    assert pod.ips == ("10.1.0.77", "fd00:1::2")


def test_somebody_elses_namespace_is_left_alone(manager: PodManager) -> None:
    namespace.create(Path("/run/netns/victim"))
    with pytest.raises(NetnsError, match="that is no pod of /run/tulle"):
        manager.add(SPEC)
    assert manager.delete("victim") is False
    assert namespace.is_bound(Path("/run/netns/victim"))


def test_somebody_elses_bridge_stays_and_loses_only_our_addresses(manager: PodManager) -> None:
    ip = ["/usr/sbin/ip"]
    subprocess.run([*ip, "link", "add", "tulle0", "up", "type", "bridge"], check=True)
    subprocess.run([*ip, "addr", "add", "10.1.0.1/24", "dev", "tulle0"], check=True)
    manager.add(SPEC)
    with Links() as links:
        assert {str(each) for each in links.addresses("tulle0")} >= {"10.1.0.1/24", "fd00:1::1/64"}
        manager.delete("victim")
        left = {str(each) for each in links.addresses("tulle0")}
    assert "10.1.0.1/24" in left
    assert "fd00:1::1/64" not in left


def test_our_bridge_stays_while_others_use_it(manager: PodManager) -> None:
    manager.add(SPEC)
    subprocess.run(["/usr/sbin/ip", "link", "add", "guest0", "master", "tulle0", "type", "veth"], check=True)
    manager.delete("victim")
    with Links() as links:
        assert links.find("tulle0") is not None


def test_link_that_is_no_bridge_is_refused(manager: PodManager) -> None:
    subprocess.run(["/usr/sbin/ip", "link", "add", "tulle0", "type", "veth"], check=True)
    with pytest.raises(NetnsError, match="tulle0 exists and is not a bridge"):
        manager.add(SPEC)
    with Links() as links:
        assert links.find("tulle0") is not None


@pytest.mark.parametrize("gone", ["namespace", "link", "addresses"])
def test_delete_when_something_is_gone_already(manager: PodManager, gone: str) -> None:
    manager.add(PodSpec("first"))
    manager.delete("first")
    before = picture()
    pod = manager.add(SPEC)
    if gone == "namespace":
        subprocess.run(["/usr/sbin/ip", "netns", "del", "victim"], check=True)
    elif gone == "link":
        subprocess.run(["/usr/sbin/ip", "link", "del", pod.host_interface], check=True)
    else:
        (STATE / "networks" / "default" / "ipam.json").unlink()
    if gone != "addresses":
        assert [each.state for each in manager.list()] == ["gone"]
    assert manager.delete("victim") is True
    assert manager.delete("victim") is False
    assert picture() == before


def test_vanished_pod_is_made_anew(manager: PodManager) -> None:
    manager.add(SPEC)
    subprocess.run(["/usr/sbin/ip", "netns", "del", "victim"], check=True)
    pod = manager.add(SPEC)
    assert pod.state == "ready"
    with listen(pod, 15021) as server, dial(None, pod.ips[0], 15021):
        accept(server)[0].close()


def test_wiped_state_directory_does_not_block_a_name(manager: PodManager) -> None:
    pod = manager.add(SPEC)
    for path in STATE.rglob("*.json"):
        path.unlink()
    # A descriptor keeps the namespace, and so the pair of links, alive.
    with pod.netns_path.open():
        subprocess.run(["/usr/sbin/ip", "netns", "del", "victim"], check=True)
        assert apply.has_link(pod.host_interface)
        assert manager.add(SPEC).state == "ready"


def test_network_in_use_is_not_changed_silently(manager: PodManager) -> None:
    manager.add(SPEC)
    other = PodManager(STATE, NetworkSpec.of("10.2.0.0/24"))
    with pytest.raises(
        NetnsError, match=r"network default is in use as 10\.1\.0\.0/24 .* not 10\.2\.0\.0/24"
    ):
        other.add(PodSpec("b"))
    with pytest.raises(NetnsError, match="bridge tulle0 belongs to network default"):
        PodManager(STATE, NetworkSpec.of("10.2.0.0/24", name="blue")).add(PodSpec("b"))
    with pytest.raises(
        NetnsError, match=r"subnet 10\.1\.0\.128/25 overlaps 10\.1\.0\.0/24 of network default"
    ):
        PodManager(STATE, NetworkSpec.of("10.1.0.128/25", name="blue", bridge="blue0")).add(PodSpec("b"))
    assert [pod.name for pod in manager.list()] == ["victim"]


def test_mtu_follows_the_default_route(manager: PodManager) -> None:
    ip = "/usr/sbin/ip"
    for command in (
        "link add up0 mtu 1400 type veth peer name up1",
        "addr add 192.0.2.1/24 dev up0",
        "link set up0 up",
        "link set up1 up",
        "route add default via 192.0.2.2",
    ):
        subprocess.run([ip, *command.split()], check=True)
    pod = manager.add(SPEC)

    def mtus() -> dict[str, int]:
        with Links() as links:
            return {link.name: link.mtu for link in links.all()}

    assert namespace.run_in(pod.netns_path, mtus)["eth0"] == 1400
    assert mtus()["tulle0"] == mtus()[pod.host_interface] == 1400


def test_popen_sees_its_own_resolver_and_hosts(manager: PodManager) -> None:
    outside = Path("/etc/resolv.conf").read_text(), Path("/etc/hosts").read_text()
    pod = manager.add(
        PodSpec(
            "web",
            dns=(ip_address("10.1.0.1"), ip_address("fd00:1::1")),
            search=("default.mesh.local", "mesh.local"),
            hosts=(("db", ip_address("10.1.0.99")),),
        )
    )
    with pod.popen(["cat", "/etc/resolv.conf", "/etc/hosts"], stdout=subprocess.PIPE, text=True) as process:
        inside = process.communicate()[0]
    assert inside == (
        "search default.mesh.local mesh.local\nnameserver 10.1.0.1\nnameserver fd00:1::1\n"
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.1.0.2 web\nfd00:1::2 web\n10.1.0.99 db\n"
    )
    assert (Path("/etc/resolv.conf").read_text(), Path("/etc/hosts").read_text()) == outside


def test_popen_becomes_the_command(manager: PodManager) -> None:
    pod = manager.add(SPEC)
    script = "echo $$; ls -l /proc/self/fd >&2; cat; exit 7"
    with pod.popen(["sh", "-c", script], stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        out, err = process.communicate("typed", 10)
    assert (out, process.returncode) == (f"{process.pid}\ntyped", 7)
    assert len(err.splitlines()) == 5, f"only 0, 1, 2 and ls's own descriptor are open:\n{err}"
    with pod.popen(["sleep", "100"]) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    # Python ignores SIGPIPE and SIGXFSZ, its children must not. What was ignored before Python is not its affair.
    with pod.popen(["grep", "SigIgn", "/proc/self/status"], stdout=-1, text=True) as process:
        ignored = int(process.communicate()[0].split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


def test_popen_says_what_it_could_not_do(manager: PodManager) -> None:
    pod = manager.add(SPEC)
    for argv, status, words in (
        (["no-such-command"], 127, "cannot run no-such-command: No such file"),
        (["/etc/passwd"], 126, "cannot run /etc/passwd: Permission denied"),
    ):
        with pod.popen(argv, stderr=-1, text=True) as process:
            assert words in process.communicate()[1]
            assert process.returncode == status
    manager.delete("victim")
    with pod.popen(["true"], stderr=-1, text=True) as process:
        assert "cannot enter network namespace /run/netns/victim" in process.communicate()[1]
        assert process.returncode == 125
    with pytest.raises(TypeError, match="takes no 'shell'"):
        pod.popen(["true"], shell=True)


def test_deleting_frees_the_namespace_although_a_process_had_its_own_mounts(manager: PodManager) -> None:
    first, second = manager.add(SPEC), manager.add(PodSpec("second"))
    with first.popen(["cat"], stdin=-1, stdout=-1) as inside:
        assert inside.stdin is not None
        assert inside.stdout is not None
        inside.stdin.write(b"in its mount view now\n")
        inside.stdin.flush()
        assert inside.stdout.readline()
        manager.delete("second")
        mounts = Path(f"/proc/{inside.pid}/mountinfo").read_text()
        assert "/run/netns/victim" in mounts
        assert str(second.netns_path) not in mounts
        inside.stdin.close()


def test_iproute2_sees_the_pod(manager: PodManager) -> None:
    manager.add(SPEC)
    argv = ["/usr/sbin/ip", "netns", "exec", "victim", "/usr/sbin/ip", "-o", "addr", "show", "eth0"]
    listing = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "10.1.0.2/24" in listing
    assert "fd00:1::2/64" in listing


async def test_manager_works_inside_an_event_loop(manager: PodManager) -> None:
    import asyncio

    pod: Pod = manager.add(SPEC)
    process = await asyncio.create_subprocess_exec(*pod.command(["true"]))
    assert await process.wait() == 0
    assert manager.delete("victim")
