"""An HTTP server that is checked, and a sidecar that does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from proxy.model.cluster import Endpoint, LoadAssignment, LocalityEndpoints
from proxy.model.health_check import HttpCheck
from tests.fakes.checked import Checked, checked, health_check
from tests.fakes.sidecar import (
    Peer,
    backend,
    chain,
    cluster,
    forward,
    http,
    listener,
)

FRONT = listener(chain(http(forward("/", "up"))))


HTTP = HttpCheck("/healthz", expected_statuses=((200, 201), (210, 220)), retriable_statuses=((429, 430),))


class Page:
    """An HTTP server. ``answer``: what it says to a check."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        self.asked: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    head += await peer.exactly(int(line[15:]))
            self.asked.append(head)
            peer.send(self.answer)


@asynccontextmanager
async def page(
    check: HttpCheck = HTTP, **options: object
) -> AsyncIterator[tuple[Page, Checked, list[bytearray]]]:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=replace(health_check(check), **options))  # type: ignore[arg-type]
        async with checked(FRONT, up) as sidecar:
            yield served, sidecar, server.received


def says(status: int, *lines: bytes, body: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n" % (status, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def eds(*endpoints: Endpoint, name: str = "up") -> LoadAssignment:
    return LoadAssignment(name, (LocalityEndpoints(endpoints),))
