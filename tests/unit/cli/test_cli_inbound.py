"""``--inbound``: where others call, where the app listens, and what it speaks."""

from __future__ import annotations

import click
import pytest

from control_plane.cli.proxy_cmd import inbound
from control_plane.translate.node import INBOUND_PROTOCOLS


@pytest.mark.parametrize("protocol", INBOUND_PROTOCOLS)
def test_every_protocol_that_the_control_plane_knows_can_be_said(protocol: str) -> None:
    found = inbound(f"127.0.0.1:18080=127.0.0.1:8080,protocol={protocol.lower()}")
    assert (found.protocol, found.name, found.port) == (protocol, protocol.lower(), 8080)


def test_it_is_http_unless_it_says_otherwise() -> None:
    assert inbound("127.0.0.1:18080=127.0.0.1:8080").protocol == "HTTP"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:1=127.0.0.1:2,protocol=UDP", "protocol UDP is not one of HTTP, HTTP2, GRPC, TCP"),
        ("127.0.0.1:1", "HTTP|HTTP2|GRPC|TCP"),
        ("127.0.0.1:1=127.0.0.1:2,port=3", "is not name=... or protocol=..."),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        inbound(text)
    assert message in caught.value.message
