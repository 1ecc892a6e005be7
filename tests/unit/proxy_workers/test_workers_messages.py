"""What is sent of a configuration, and how limits are divided."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.cluster import CircuitBreakers, Cluster
from proxy.model.config import Config
from proxy.model.overload import CgroupMemory, FixedHeap, Monitor, OverloadManager
from proxy.workers import share
from proxy.workers.messages import KINDS, apply_changes, changes

names = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2), max_size=4)


def config(version: str, parts: list[dict[str, int]]) -> Config:
    """Numbers stand for resources."""
    resources: dict[str, Any] = dict(zip(KINDS, parts, strict=True))
    return Config(version, **resources)


configs = st.builds(config, st.text(max_size=3), st.lists(names, min_size=5, max_size=5))


@given(configs, configs)
def test_changes_make_the_new_of_the_old(before: Config, after: Config) -> None:
    made = changes(before, after)
    assert apply_changes(before, made) == after
    for kind, resources in made.changed.items():
        assert all(getattr(before, kind).get(name) != new for name, new in resources.items())


def test_nothing_is_sent_of_what_stays() -> None:
    before = config("1", [{"a": 1}, {"a": 1}, {"a": 1, "b": 2}, {}, {}])
    after = config("2", [{"a": 1}, {"a": 1}, {"a": 1, "c": 3}, {}, {}])
    made = changes(before, after)
    assert (made.changed, made.gone) == ({"clusters": {"c": 3}}, {"clusters": ("b",)})


def test_every_field_of_a_configuration_is_sent() -> None:
    assert {"version", *KINDS} == set(Config.__dataclass_fields__)


@pytest.mark.parametrize(
    ("limit", "workers", "expected"), [(1024, 4, 256), (3, 2, 2), (3, 4, 1), (1, 8, 1), (0, 4, 0), (5, 1, 5)]
)
def test_shares(limit: int, workers: int, expected: int) -> None:
    assert share.share(limit, workers) == expected


@given(st.integers(0, 10_000), st.integers(1, 128))
def test_shares_cover_the_limit_and_exceed_it_by_less_than_the_workers(limit: int, workers: int) -> None:
    assert 0 <= share.share(limit, workers) * workers - limit < workers


def test_every_circuit_breaker_is_divided() -> None:
    limits = CircuitBreakers(**dict.fromkeys(CircuitBreakers.__dataclass_fields__, 10))
    divided = share.of_cluster(Cluster("c", "STATIC", circuit_breakers=limits), 5)
    assert divided.circuit_breakers == CircuitBreakers(
        **dict.fromkeys(CircuitBreakers.__dataclass_fields__, 2)
    )
    assert divided.name == "c"


def test_of_the_overload_manager_what_is_a_processs_own_is_divided() -> None:
    manager = OverloadManager(
        (Monitor("heap", FixedHeap(1000)), Monitor("group", CgroupMemory(1000))), max_connections=10
    )
    divided = share.of_overload(manager, 4)
    assert divided is not None
    assert divided.monitors == (Monitor("heap", FixedHeap(250)), Monitor("group", CgroupMemory(1000)))
    assert divided.max_connections == 3
    assert share.of_overload(None, 4) is None
    assert share.of_listeners({"l": 5}, 2) == {"l": 3}
