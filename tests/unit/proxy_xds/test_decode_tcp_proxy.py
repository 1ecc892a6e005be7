"""The TCP proxy's options, and what of them does not go together."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import json_format

from proxy.model.config import ConfigError
from proxy.model.listener import TcpProxy
from proxy.model.route import WeightedCluster
from proxy.xds.decode.tcp_proxy import tcp_proxy


def decode(**body: Any) -> TcpProxy:
    message = json_format.ParseDict({"stat_prefix": "s", "cluster": "c", **body}, tcp_proxy_pb2.TcpProxy())
    return tcp_proxy(message, "t")


def test_options() -> None:
    plain = TcpProxy("s", (WeightedCluster("c", 1),))
    assert decode() == plain
    assert decode(upstream_connect_mode="ON_DOWNSTREAM_TLS_HANDSHAKE", max_early_data_bytes=0) == plain
    found = decode(
        idle_timeout="0s",
        max_connect_attempts=3,
        backoff_options={"base_interval": "0.1s"},
        max_downstream_connection_duration="60s",
        max_downstream_connection_duration_jitter_percentage={"value": 50},
        upstream_connect_mode="ON_DOWNSTREAM_DATA",
        max_early_data_bytes=1024,
        access_log_options={"access_log_flush_interval": "5s", "flush_access_log_on_connected": True},
    )
    assert found == TcpProxy(
        "s", (WeightedCluster("c", 1),), (), 0.0, 3, (0.1, 1.0), 60.0, 50.0, True, 1024, 5.0, True
    )
    old = decode(access_log_flush_interval="5s", flush_access_log_on_connected=True)
    assert (old.access_log_flush_interval, old.flush_access_log_on_connected) == (5.0, True)


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"stat_prefix": ""}, "t.stat_prefix", "required"),
        ({"max_connect_attempts": 0}, "t.max_connect_attempts", "at least 1"),
        ({"upstream_connect_mode": "ON_DOWNSTREAM_DATA"}, "t.max_early_data_bytes", "must be set"),
        ({"upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE"}, "t.max_early_data_bytes", "must be set"),
        (
            {"upstream_connect_mode": "ON_DOWNSTREAM_DATA", "max_early_data_bytes": 0},
            "t.max_early_data_bytes",
            "no data",
        ),
        ({"backoff_options": {}}, "t.backoff_options.base_interval", "1 ms"),
        (
            {"backoff_options": {"base_interval": "2s", "max_interval": "1s"}},
            "t.backoff_options.max_interval",
            "below",
        ),
        (
            {"max_downstream_connection_duration_jitter_percentage": {"value": 101}},
            "t.max_downstream_connection_duration_jitter_percentage.value",
            "0 to 100",
        ),
        ({"access_log_flush_interval": "0.0001s"}, "t.access_log_flush_interval", "1 ms"),
        (
            {"access_log_flush_interval": "1s", "access_log_options": {}},
            "t.access_log_flush_interval",
            "does not go with",
        ),
        ({"tunneling_config": {"hostname": "a"}}, "t.tunneling_config", "not supported"),
        ({"hash_policy": [{"source_ip": {}}]}, "t.hash_policy", "not supported"),
    ],
)
def test_refusals(body: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        decode(**body)
    assert caught.value.path == path
