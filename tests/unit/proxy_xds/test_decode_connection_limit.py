"""``envoy.filters.network.connection_limit``: what is read, and what is refused where."""

from __future__ import annotations

from typing import Any

import pytest

from bench import configs
from proxy import bootstrap
from proxy.model.config import ConfigError
from proxy.model.listener import ConnectionLimit

TYPE = "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"


def limits(**fields: Any) -> tuple[ConnectionLimit, ...]:
    terminal = {"@type": configs.TCP_PROXY, "stat_prefix": "t", "cluster": "c"}
    filters = [
        {"name": "limit", "typed_config": {"@type": TYPE, **fields}},
        {"name": "tcp", "typed_config": terminal},
    ]
    made = {"name": "in", "address": configs.address(1), "filter_chains": [{"filters": filters}]}
    document = configs.bootstrap(2, [made], [])
    return bootstrap.parse(document).config.listeners["in"].filter_chains[0].connection_limits


def test_every_field_is_read() -> None:
    assert limits(stat_prefix="a", max_connections=5) == (ConnectionLimit("a", 5),)
    assert limits(stat_prefix="a", max_connections=5, delay="1.5s") == (ConnectionLimit("a", 5, 1.5),)
    on = {"default_value": True, "runtime_key": "k"}
    assert limits(stat_prefix="a", max_connections=5, runtime_enabled=on) == (ConnectionLimit("a", 5),)
    off = {"default_value": False, "runtime_key": "k"}
    assert limits(stat_prefix="a", max_connections=5, runtime_enabled=off) == ()


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"stat_prefix": "a"}, "max_connections"),
        ({"stat_prefix": "a", "max_connections": 0}, "max_connections"),
        ({"max_connections": 1}, "stat_prefix"),
        ({"stat_prefix": "a", "max_connections": 1, "delay": "-1s"}, "delay"),
    ],
)
def test_what_cannot_be_used_is_refused(fields: dict[str, Any], at: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limits(**fields)
    assert caught.value.path == f"listener[in].filter_chains[0].filters[0].typed_config.{at}"
