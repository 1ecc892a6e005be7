"""Load balancing policies: proportions by chi-square on 10,000 seeded picks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from proxy.cluster.host import Host
from proxy.cluster.lb.edf import Edf
from proxy.cluster.lb.least_request import least_request
from proxy.cluster.lb.random import random_choice
from proxy.cluster.lb.round_robin import round_robin

PICKS = 10_000
# 99.9th percentile of chi-square by degrees of freedom.
CHI2_999 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47}


def _hosts(*weights: int) -> list[Host]:
    return [Host(("10.0.0.1", 1000 + n), weight=w) for n, w in enumerate(weights)]


def _chi_square(counts: Counter[Host], hosts: list[Host]) -> float:
    total = sum(h.weight for h in hosts)
    return sum((counts[h] - PICKS * h.weight / total) ** 2 / (PICKS * h.weight / total) for h in hosts)


def _policies(hosts: list[Host], seed: int = 7) -> dict[str, Callable[[], Host]]:
    rng = random.Random(seed)
    return {
        "round_robin": round_robin(hosts, rng.random, [0]),
        "random": random_choice(hosts, rng.random),
        "least_request": least_request(hosts, rng.random),
    }


@pytest.mark.parametrize("policy", ["round_robin", "random", "least_request"])
@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (3, 2, 1), (10, 1), (5, 4, 3, 2, 1)])
def test_picks_are_in_proportion_to_weight(policy: str, weights: tuple[int, ...]) -> None:
    hosts = _hosts(*weights)
    pick = _policies(hosts)[policy]
    counts = Counter(pick() for _ in range(PICKS))
    assert _chi_square(counts, hosts) < CHI2_999[len(weights) - 1]


@pytest.mark.parametrize("policy", ["round_robin", "random", "least_request"])
def test_weight_zero_is_picked_rarely_but_is_picked(policy: str) -> None:
    hosts = _hosts(1, 0)
    pick = _policies(hosts)[policy]
    counts = Counter(pick() for _ in range(PICKS))
    assert 40 <= counts[hosts[1]] <= 200


@pytest.mark.parametrize("policy", ["round_robin", "random", "least_request"])
def test_weights_all_zero_are_equal(policy: str) -> None:
    hosts = _hosts(0, 0)
    pick = _policies(hosts)[policy]
    counts = Counter(pick() for _ in range(PICKS))
    assert abs(counts[hosts[0]] - counts[hosts[1]]) < 400


def test_round_robin_goes_in_turn_and_keeps_its_position() -> None:
    hosts = _hosts(1, 1, 1)
    position = [4]
    pick = round_robin(hosts, random.Random(1).random, position)
    assert [pick() for _ in range(4)] == [hosts[1], hosts[2], hosts[0], hosts[1]]
    assert round_robin(hosts, random.Random(1).random, position)() is hosts[2]


def test_weighted_round_robin_interleaves() -> None:
    schedule = Edf(["a", "b"], {"a": 3, "b": 1}.__getitem__)
    picks = "".join(schedule.pick() for _ in range(8))
    assert sorted(picks) == list("aaaaaabb")
    assert "bb" not in picks


def test_least_request_prefers_the_less_busy_host() -> None:
    hosts = _hosts(1, 1, 1)
    hosts[0].active = hosts[1].active = 5
    pick = least_request(hosts, random.Random(3).random)
    counts = Counter(pick() for _ in range(PICKS))
    # Two distinct hosts of three are compared: the idle one is among them in 2/3 of the picks, and then wins.
    assert abs(counts[hosts[2]] / PICKS - 2 / 3) < 0.02


def test_least_request_weighted_shares_weight_by_requests_in_flight() -> None:
    hosts = _hosts(2, 1)
    hosts[0].active = 3
    pick = least_request(hosts, random.Random(3).random)
    counts = Counter(pick() for _ in range(PICKS))
    assert abs(counts[hosts[0]] / counts[hosts[1]] - (2 / 4) / 1) < 0.02


def test_least_request_with_more_choices_finds_the_idle_host_more_often() -> None:
    hosts = _hosts(1, 1, 1, 1)
    for host in hosts[1:]:
        host.active = 1
    pick = least_request(hosts, random.Random(3).random, 4)
    counts = Counter(pick() for _ in range(PICKS))
    assert abs(counts[hosts[0]] / PICKS - (1 - (3 / 4) ** 4)) < 0.02


def test_least_request_with_one_host() -> None:
    hosts = _hosts(1)
    assert least_request(hosts, random.Random(3).random)() is hosts[0]
