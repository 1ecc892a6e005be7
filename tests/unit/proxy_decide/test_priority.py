"""``proxy.cluster.priority`` against Envoy's documented tables: priority levels, degraded endpoints, panic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.priority import PriorityHosts, spread


def _levels(*healthy_percent: int, total: int = 100) -> list[PriorityHosts]:
    return [PriorityHosts(total, total * p // 100) for p in healthy_percent]


@pytest.mark.parametrize(
    ("healthy", "load"),
    [
        # docs: priority levels, two priorities
        ((100, 100), (100, 0)),
        ((72, 72), (100, 0)),
        ((71, 71), (99, 1)),
        ((50, 50), (70, 30)),
        ((25, 100), (35, 65)),
        # docs: three priorities
        ((100, 100, 100), (100, 0, 0)),
        ((72, 72, 100), (100, 0, 0)),
        ((71, 71, 100), (99, 1, 0)),
        ((50, 50, 100), (70, 30, 0)),
        ((25, 100, 100), (35, 65, 0)),
        ((25, 25, 100), (35, 35, 30)),
        # 25/25/20 of a hundred: 35+35+28 = 98 are scaled up to 100, the rounding goes to the first
        ((25, 25, 20), (37, 35, 28)),
        ((0, 100), (0, 100)),
        ((20, 20), (50, 50)),
        ((5, 0, 5), (50, 0, 50)),
    ],
)
def test_load_of_healthy_hosts(healthy: tuple[int, ...], load: tuple[int, ...]) -> None:
    assert spread(_levels(*healthy), panic_threshold=0).healthy == load


@pytest.mark.parametrize(
    ("healthy_degraded", "healthy", "degraded"),
    [
        # docs: degraded endpoints, one priority
        ([(100, 0)], (100,), (0,)),
        ([(71, 29)], (99,), (1,)),
        ([(25, 65)], (35,), (65,)),
        ([(0, 50)], (0,), (100,)),
        # docs: two priorities, degraded ones are used after all healthy ones
        ([(100, 0), (100, 0)], (100, 0), (0, 0)),
        ([(5, 95), (60, 40)], (7, 84), (9, 0)),
    ],
)
def test_load_of_degraded_hosts(
    healthy_degraded: list[tuple[int, int]], healthy: tuple[int, ...], degraded: tuple[int, ...]
) -> None:
    load = spread([PriorityHosts(100, h, d) for h, d in healthy_degraded])
    assert (load.healthy, load.degraded) == (healthy, degraded)


@pytest.mark.parametrize(
    ("levels", "load", "panic"),
    [
        # docs: panic threshold, two priorities with 50 %: panic only while normalised availability is below 100
        (_levels(72, 72), (100, 0), (False, False)),
        (_levels(71, 71), (99, 1), (False, False)),
        (_levels(25, 25), (50, 50), (True, True)),
        (
            _levels(5, 65),
            (8, 92),
            (True, False),
        ),  # the docs round to 7, 93; the arithmetic gives the rest to the first
        # all in panic: by number of hosts, remainder to the first that has any
        ([PriorityHosts(0, 0), PriorityHosts(1, 0), PriorityHosts(2, 0)], (0, 34, 66), (True, True, True)),
        ([PriorityHosts(0, 0)], (100,), (True,)),
    ],
)
def test_panic(levels: list[PriorityHosts], load: tuple[int, ...], panic: tuple[bool, ...]) -> None:
    result = spread(levels)
    assert (result.healthy, result.panic) == (load, panic)


def test_without_panic_an_unhealthy_cluster_gives_nothing_to_everyone() -> None:
    result = spread([PriorityHosts(3, 0), PriorityHosts(2, 0)], panic_threshold=0)
    assert (result.healthy, result.panic) == ((100, 0), (False, False))


_LEVEL = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)).map(
    lambda t: PriorityHosts(sum(t), t[0], t[1])
)


@given(
    st.lists(_LEVEL, min_size=1, max_size=5),
    st.sampled_from([0.0, 50.0, 100.0]),
    st.sampled_from([100, 140, 200]),
)
def test_shares_always_make_a_hundred(levels: list[PriorityHosts], threshold: float, factor: int) -> None:
    result = spread(levels, panic_threshold=threshold, overprovisioning_factor=factor)
    assert sum(result.healthy) + sum(result.degraded) == 100
    assert all(share >= 0 for share in result.healthy + result.degraded)
