"""Heads, connections and exchanges as plain objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.model.connection import ConnectionInfo


class FakeHead:
    """A head from a list of lines, as ``proxy.http1.head`` would read it."""

    def __init__(
        self,
        target: str = "/",
        *lines: tuple[str, str],
        method: str = "GET",
        host: str | None = "h",
        status: int = 0,
    ) -> None:
        self.method = method.encode()
        self.target = target.encode("latin-1")
        self.host = None if host is None else host.encode()
        self.status = status
        self._lines = [
            (name.lower().encode(), value.encode("utf-8", "surrogateescape")) for name, value in lines
        ]

    @property
    def repeated(self) -> bool:
        return True

    def values(self, name: bytes, /) -> tuple[bytes, ...]:
        return tuple(value for key, value in self._lines if key == name)

    def get(self, name: bytes, /) -> bytes | None:
        values = self.values(name)
        return b", ".join(values) if values else None


class FakeExchange:
    """An exchange with everything unset."""

    def __init__(self, head: FakeHead | None = None, **more: Any) -> None:
        self.head = head
        self.response: FakeHead | None = None
        self.trailers: Sequence[tuple[bytes, bytes]] | None = None
        self.connection = ConnectionInfo(("192.0.2.7", 40000), ("10.1.0.5", 8080), connection_id=7)
        self.remote = self.connection.remote
        self.local_body = b""
        self.path = b"" if head is None else head.target.partition(b"?")[0]
        self.route: Any = None
        self.target: Any = None
        self.host: Any = None
        self.upstream_local: Any = None
        self.upstream_principal = ""
        self.start_wall = 1795483461.3664
        self.start = 100.0
        self.request_end = 0.0
        self.first_upstream_tx = 0.0
        self.first_upstream_rx = 0.0
        self.end = 100.0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.status = 200
        self.flags = ""
        self.details = ""
        self.request_id = b""
        self.attempts = 0
        self.upstream_failure_reason = ""
        self.protocol = "HTTP/1.1"
        self.log_type = "DownstreamEnd"
        for name, value in more.items():
            setattr(self, name, value)

    def answer_with(self, status: int, body: bytes, /) -> None:
        self.status = status
        self.local_body = body
