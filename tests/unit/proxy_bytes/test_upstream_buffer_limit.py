"""``per_connection_buffer_limit_bytes`` of a cluster on the transports of its connections."""

from __future__ import annotations

import asyncio
import random

import pytest

from proxy.cluster.cluster import Cluster
from proxy.model.cluster import Cluster as ClusterConfig
from proxy.upstream.connect import _limit_buffer


class Transport(asyncio.WriteTransport):
    """With the limits that loops begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.high = 64 * 1024

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.high // 4, self.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.high = high


@pytest.mark.parametrize(
    ("limit", "high"), [(0, 64 * 1024), (1000, 1000), (64 * 1024, 64 * 1024), (1 << 20, 64 * 1024)]
)
def test_it_lowers_what_a_transport_may_hold(limit: int, high: int) -> None:
    config = ClusterConfig("c", "STATIC", per_connection_buffer_limit_bytes=limit)
    transport = Transport()
    _limit_buffer(Cluster(config, random.random), transport)
    assert transport.high == high
