"""What a TCP check keeps of an answer."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from proxy.health.tcp import TcpConnection


def connection(limit: int) -> tuple[TcpConnection, Any]:
    made, transport = TcpConnection((b"PO", b"NG"), limit), Mock()
    made.connection_made(transport)
    return made, transport


def test_pieces_are_put_together_and_forgotten_when_all_was_found() -> None:
    made, _ = connection(0)
    for data in (b"xP", b"O..", b"N"):
        made.data_received(data)
        assert not made.found
    made.data_received(b"G")
    assert made.found
    made.found = False
    made.data_received(b"NG")
    assert not made.found


@pytest.mark.parametrize(("limit", "stops"), [(10, True), (11, False), (0, False)])
def test_no_more_is_read_than_the_cluster_allows(limit: int, stops: bool) -> None:
    made, transport = connection(limit)
    made.data_received(b"x" * 10)
    transport.pause_reading.assert_not_called()
    made.data_received(b"x")
    assert transport.pause_reading.called == stops
