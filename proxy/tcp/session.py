"""One connection as the access log sees it: the shape of an exchange, without a request."""

from __future__ import annotations

import time

from proxy.cluster.host import Host
from proxy.model.connection import Address, ConnectionInfo
from proxy.runtime.entry import Target


class Session:
    """A relayed connection, or one that was refused before anything could be relayed.

    The attributes are those of ``proxy.model.exchange.Exchange``; what belongs to a request is empty.
    """

    __slots__ = (
        "attempts",
        "bytes_received",
        "bytes_sent",
        "connection",
        "details",
        "end",
        "first_upstream_rx",
        "first_upstream_tx",
        "flags",
        "head",
        "host",
        "local_body",
        "log_type",
        "path",
        "protocol",
        "remote",
        "request_end",
        "request_id",
        "response",
        "route",
        "start",
        "start_wall",
        "status",
        "target",
        "trailers",
        "upstream_failure_reason",
        "upstream_local",
        "upstream_principal",
    )  # fmt: skip

    def __init__(self, connection: ConnectionInfo) -> None:
        self.connection = connection
        self.remote = connection.remote
        self.head = None
        self.response = None
        self.trailers = None
        self.route = None
        self.target: Target | None = None
        self.host: Host | None = None
        self.upstream_local: Address | None = None
        self.upstream_principal = ""
        self.path = self.local_body = b""
        self.request_id = b""
        self.protocol = ""
        self.start_wall = time.time()
        self.start = time.monotonic()
        self.request_end = 0.0
        self.first_upstream_tx = 0.0
        self.first_upstream_rx = 0.0
        self.end = 0.0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.status = 0
        self.flags = ""
        self.log_type = "NotSet"
        self.details = ""
        self.attempts = 0
        self.upstream_failure_reason = ""

    def answer_with(self, status: int, body: bytes, /) -> None:
        """There are no answers on a TCP connection."""
        raise NotImplementedError

    def add_flag(self, flag: str) -> None:
        self.flags = f"{self.flags},{flag}" if self.flags else flag
