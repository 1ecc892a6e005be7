"""SRV answers to load assignments, and the arithmetic of refreshes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.discovery.answers import AddressAnswer, SrvAnswer, SrvRecord
from proxy.discovery.schedule import refresh_delay, retry_delay
from proxy.discovery.srv import address_assignment, srv_assignment
from proxy.model.address import SocketAddress
from proxy.model.cluster import Endpoint, LoadAssignment, LocalityEndpoints


def shares(assignment: LoadAssignment) -> list[dict[str, int]]:
    return [{str(e.address): e.weight for e in locality.endpoints} for locality in assignment.localities]


def test_priorities_become_gapless_tiers_in_order() -> None:
    answer = SrvAnswer(
        (SrvRecord(20, 1, 81, "b"), SrvRecord(10, 1, 80, "a")),
        (("a", ("10.0.0.1",)), ("b", ("10.0.0.2",))),
        30,
    )
    assignment = srv_assignment("c", answer)
    assert [locality.priority for locality in assignment.localities] == [0, 1]
    assert shares(assignment) == [{"10.0.0.1:80": 1}, {"10.0.0.2:81": 1}]
    assert assignment.localities[0].endpoints[0].hostname == "a"


def test_weights_stay_in_proportion_when_a_target_has_several_addresses() -> None:
    answer = SrvAnswer(
        (SrvRecord(0, 3, 80, "a"), SrvRecord(0, 1, 80, "b")),
        (("a", ("10.0.0.1", "10.0.0.2")), ("b", ("10.0.0.3",))),
        30,
    )
    assert shares(srv_assignment("c", answer)) == [{"10.0.0.1:80": 3, "10.0.0.2:80": 3, "10.0.0.3:80": 2}]


def test_zero_weight_is_rare_beside_others_and_even_among_its_like() -> None:
    addresses = (("a", ("10.0.0.1",)), ("b", ("10.0.0.2",)))
    mixed = SrvAnswer((SrvRecord(0, 0, 80, "a"), SrvRecord(0, 1, 80, "b")), addresses, 30)
    assert shares(srv_assignment("c", mixed)) == [{"10.0.0.1:80": 1, "10.0.0.2:80": 100}]
    zeros = SrvAnswer((SrvRecord(0, 0, 80, "a"), SrvRecord(0, 0, 80, "b")), addresses, 30)
    assert shares(srv_assignment("c", zeros)) == [{"10.0.0.1:80": 1, "10.0.0.2:80": 1}]


def test_targets_without_an_address_are_left_out_and_absence_is_empty() -> None:
    answer = SrvAnswer(
        (SrvRecord(0, 1, 80, "a"), SrvRecord(0, 1, 80, "b")), (("a", ()), ("b", ("10.0.0.2",))), 30
    )
    assert shares(srv_assignment("c", answer)) == [{"10.0.0.2:80": 1}]
    assert srv_assignment("c", SrvAnswer((), (), 5)).localities == ()


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 65535), st.integers(1, 4)),
        min_size=1,
        max_size=8,
    )
)
def test_every_target_gets_its_share_exactly(rows: list[tuple[int, int, int]]) -> None:
    records = tuple(SrvRecord(p, w, 80, f"t{i}") for i, (p, w, _) in enumerate(rows))
    addresses = tuple((f"t{i}", tuple(f"10.0.{i}.{k}" for k in range(n))) for i, (_, _, n) in enumerate(rows))
    assignment = srv_assignment("c", SrvAnswer(records, addresses, 1))
    for level, tier in enumerate(sorted({r.priority for r in records})):
        members = [r for r in records if r.priority == tier]
        total: dict[str, int] = {}
        for endpoint in assignment.localities[level].endpoints:
            total[endpoint.hostname] = total.get(endpoint.hostname, 0) + endpoint.weight
        for one in members:
            for other in members:
                if one.weight and other.weight:
                    assert total[one.target] * other.weight == total[other.target] * one.weight
                elif one.weight and not other.weight:
                    assert total[one.target] >= 100 * total[other.target]


def test_host_names_are_replaced_and_literals_kept() -> None:
    template = LoadAssignment(
        "c",
        (
            LocalityEndpoints(
                (
                    Endpoint(
                        SocketAddress("web.test", 80), weight=2, transport_match=(("tlsMode", "tulle"),)
                    ),
                    Endpoint(SocketAddress("10.9.9.9", 81)),
                )
            ),
        ),
    )
    answers = {"web.test": AddressAnswer(("10.0.0.1", "fd00::1"), 9)}
    assert shares(address_assignment(template, answers, logical=False)) == [
        {"10.0.0.1:80": 2, "[fd00::1]:80": 2, "10.9.9.9:81": 1}
    ]
    assert shares(address_assignment(template, answers, logical=True)) == [
        {"10.0.0.1:80": 2, "10.9.9.9:81": 1}
    ]
    first = address_assignment(template, answers, logical=False).localities[0].endpoints[0]
    assert first.hostname == "web.test"
    assert first.transport_match == (("tlsMode", "tulle"),)


@given(st.floats(0, 2**31), st.floats(0, 0.999))
def test_refresh_stays_within_its_bounds_and_ahead_of_expiry(ttl: float, jitter: float) -> None:
    delay = refresh_delay(ttl, 1.0, 300.0, jitter)
    assert 0.9 <= delay <= 300.0
    if 1.0 <= ttl <= 300.0:
        assert delay <= ttl


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_retries_back_off_to_a_ceiling(failures: int, jitter: float) -> None:
    delay = retry_delay(failures, 1.0, 30.0, jitter)
    assert 0.5 <= delay <= 30.0
    assert retry_delay(20, 1.0, 30.0, 0.0) == 15.0
