"""Address management: never the same address twice, everything comes back, exhaustion is named."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from netns import statefile
from netns.errors import NetnsError
from netns.ipam import Ipam, choose
from netns.spec import NetworkSpec, Subnet

NETWORK = NetworkSpec.of("10.0.0.0/29", "fd00::/64")
SMALL = NetworkSpec.of("10.0.0.0/29")


@pytest.fixture
def ipam(tmp_path: Path) -> Ipam:
    return Ipam(tmp_path / "ipam.json", NETWORK)


def test_one_address_per_subnet_and_the_same_again(ipam: Ipam) -> None:
    first = ipam.allocate("a")
    assert first == (ip_address("10.0.0.2"), ip_address("fd00::2"))
    assert ipam.allocate("a") == first
    assert ipam.allocate("b") == (ip_address("10.0.0.3"), ip_address("fd00::3"))
    assert ipam.allocations() == {"a": first, "b": ipam.allocate("b")}


def test_it_is_all_in_the_file(ipam: Ipam, tmp_path: Path) -> None:
    first = ipam.allocate("a")
    again = Ipam(tmp_path / "ipam.json", NETWORK)
    assert again.allocate("a") == first
    assert again.allocate("b") != first


def test_a_freed_address_comes_round_last(ipam: Ipam) -> None:
    freed = ipam.allocate("a")[0]
    ipam.release("a")
    later = [ipam.allocate(f"b{number}")[0] for number in range(5)]
    assert later[-1] == freed
    assert len(set(later)) == 5


def test_release_is_repeatable(ipam: Ipam) -> None:
    held = ipam.allocate("a")
    assert ipam.release("a") == held
    assert ipam.release("a") == ()
    assert ipam.allocations() == {}


def test_exhaustion_names_the_range(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path / "ipam.json", SMALL)
    for number in range(5):
        ipam.allocate(str(number))
    with pytest.raises(NetnsError) as caught:
        ipam.allocate("one too many")
    assert str(caught.value) == (
        "network default: no free address in 10.0.0.0/29 (10.0.0.1-10.0.0.6 without the gateway 10.0.0.1: 5 in use); "
        "delete pods, or make a network with a larger --subnet"
    )
    freed = ipam.release("3")
    assert ipam.allocate("one too many") == freed


def test_exhaustion_of_one_range_takes_nothing_from_the_other(ipam: Ipam) -> None:
    for number in range(5):
        ipam.allocate(str(number))
    with pytest.raises(NetnsError):
        ipam.allocate("x")
    ipam.release("0")
    assert ipam.allocate("x")[1] == ip_address("fd00::7")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("10.0.0.1", "address 10.0.0.1 is the gateway of network default"),
        ("10.0.0.0", "address 10.0.0.0 cannot be a pod's in 10.0.0.0/29"),
        ("10.0.0.7", "address 10.0.0.7 cannot be a pod's in 10.0.0.0/29"),
        ("10.0.0.8", r"address 10.0.0.8 is not in network default \(10.0.0.0/29, fd00::/64\)"),
        ("10.0.0.5", "network default: address 10.0.0.5 belongs to pod other"),
    ],
)
def test_requested_address_refused(ipam: Ipam, address: str, message: str) -> None:
    ipam.allocate("other", [ip_address("10.0.0.5")])
    with pytest.raises(NetnsError, match=message):
        ipam.allocate("a", [ip_address(address)])
    assert set(ipam.allocations()) == {"other"}


def test_requested_address_given_and_kept(ipam: Ipam) -> None:
    wanted = [ip_address("fd00::99"), ip_address("10.0.0.5")]
    assert ipam.allocate("a", wanted) == (wanted[1], wanted[0])
    assert ipam.allocate("a", wanted) == (wanted[1], wanted[0])
    with pytest.raises(
        NetnsError, match=r"pod a has 10.0.0.5, fd00::99 already, not 10.0.0.4; delete it first"
    ):
        ipam.allocate("a", [ip_address("10.0.0.4")])


@given(
    st.sampled_from(["10.0.0.0/29", "10.0.0.0/30", "10.0.0.0/31", "fd00::/125", "fd00::/127"]),
    st.sets(st.integers(0, 7)),
    st.none() | st.integers(0, 7),
)
def test_choose_is_free_usable_and_found_when_there_is_one(
    cidr: str, taken: set[int], last: int | None
) -> None:
    subnet = Subnet.parse(cidr)
    base = subnet.network[0]
    used = {base + offset for offset in taken}
    candidates = {
        base + offset
        for offset in range(8)
        if subnet.is_usable(base + offset) and base + offset != subnet.gateway
    }
    chosen = choose(subnet, used, None if last is None else base + last)
    assert (chosen in candidates - used) if candidates - used else (chosen is None)


def test_choose_is_quick_in_a_huge_range() -> None:
    subnet = Subnet.parse("fd00::/64")
    last = subnet.last
    assert choose(subnet, {last}, last) == ip_address("fd00::2")


class Machine(RuleBasedStateMachine):
    """Any order of allocations and releases, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.ipam = Ipam(Path(self.directory.name, "ipam.json"), SMALL)
        self.model: dict[str, object] = {}

    @rule(owner=st.sampled_from("abcdefgh"))
    def allocate(self, owner: str) -> None:
        if owner not in self.model and len(self.model) == 5:
            with pytest.raises(NetnsError, match=r"no free address in 10\.0\.0\.0/29"):
                self.ipam.allocate(owner)
            return
        (address,) = self.ipam.allocate(owner)
        assert self.model.setdefault(owner, address) == address

    @rule(owner=st.sampled_from("abcdefgh"), host=st.integers(2, 6))
    def request(self, owner: str, host: int) -> None:
        address = ip_address(f"10.0.0.{host}")
        owners = {held: name for name, held in self.model.items()}
        if owners.get(address, owner) != owner or self.model.get(owner, address) != address:
            with pytest.raises(NetnsError):
                self.ipam.allocate(owner, [address])
            return
        assert self.ipam.allocate(owner, [address]) == (address,)
        self.model[owner] = address

    @rule(owner=st.sampled_from("abcdefgh"))
    def release(self, owner: str) -> None:
        held = self.model.pop(owner, None)
        assert self.ipam.release(owner) == (() if held is None else (held,))

    @invariant()
    def agrees(self) -> None:
        held = {owner: addresses[0] for owner, addresses in self.ipam.allocations().items()}
        assert held == self.model
        assert len(set(held.values())) == len(held)

    def teardown(self) -> None:
        self.directory.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_threads_get_different_addresses(tmp_path: Path) -> None:
    network = NetworkSpec.of("10.0.0.0/24")
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(lambda n: Ipam(tmp_path / "ipam.json", network).allocate(str(n)), range(40)))
    assert len(set(held)) == 40


def _allocate_ten(path: Path, prefix: str) -> list[str]:
    ipam = Ipam(path, NetworkSpec.of("10.0.0.0/24"))
    return [str(ipam.allocate(f"{prefix}{number}")[0]) for number in range(10)]


def test_processes_get_different_addresses(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        held = pool.starmap(_allocate_ten, [(tmp_path / "ipam.json", prefix) for prefix in "abc"])
    assert len({address for each in held for address in each}) == 30


@pytest.mark.parametrize("at", ["before the rename", "after the rename"])
def test_crash_while_writing_leaves_the_old_or_the_new(
    ipam: Ipam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    held = ipam.allocate("a")

    class Crash(BaseException):
        pass

    replace = Path.replace

    def crashing(self: Path, target: Path) -> Path:
        if at == "after the rename":
            replace(self, target)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crashing)
        with pytest.raises(Crash):
            ipam.allocate("b")
    allocations = ipam.allocations()
    assert allocations["a"] == held
    assert ("b" in allocations) == (at == "after the rename")
    assert ipam.allocate("b")[0] == ip_address("10.0.0.3")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"owners": 3, "last": {}}', '{"owners": {"a": ["x"]}, "last": {}}']
)
def test_damaged_file_is_named_not_ignored(ipam: Ipam, tmp_path: Path, content: str) -> None:
    path = tmp_path / "ipam.json"
    path.write_text(content)
    with pytest.raises(NetnsError, match=f"{path} is damaged"):
        ipam.allocate("a")
    assert path.read_text() == content


def test_file_is_plain_json_for_people(ipam: Ipam, tmp_path: Path) -> None:
    ipam.allocate("a")
    assert json.loads((tmp_path / "ipam.json").read_text()) == {
        "version": 1,
        "owners": {"a": ["10.0.0.2", "fd00::2"]},
        "last": {"10.0.0.0/29": "10.0.0.2", "fd00::/64": "fd00::2"},
    }
    assert statefile.read(tmp_path / "none.json") is None
