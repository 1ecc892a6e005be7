"""What is known of one exchange: what filters and log operators read, and what its parts share."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.http1.head import Head
from proxy.model.connection import Address, ConnectionInfo
from proxy.runtime.entry import RouteEntry, Target
from proxy.runtime.runtime import HttpRuntime
from proxy.stream.framing import Reframe
from proxy.upstream.retry import RetryState
from proxy.upstream.stream import Fields, UpstreamStream

if TYPE_CHECKING:
    from proxy.stream.client import ClientStream
    from proxy.stream.edge import Outgoing


def _no_head() -> Head:
    head = Head()
    head.method = head.target = head.raw = b""
    head.added = head.host = None
    head.status = head.flags = head.present = head.end = head.fields_at = 0
    head.repeated = False
    head.minor = 1
    head.length = -1
    head.names = {}
    return head


NO_HEAD: Final = _no_head()
"""What stands for the head of a request that could not be read."""


class ExchangeState:
    """The state of one request and its response.

    The public names that ``proxy.model.exchange.Exchange`` has are for filters and logs. ``request_done``: all of the
    request came; ``dechunk``: the client understands no chunks; ``upgrade``: the client asked to switch protocols and
    may; ``tunnel``: it did; ``unframed``: the body comes without framing (HTTP/2); ``trailers``: those of the
    response, if they are known; ``internal``: the request is from inside (``internal_address_config``);
    ``continued``: 100 (Continue) was answered here; ``done``: it is over, all was given back.
    """

    log_type = "DownstreamEnd"
    """What ``%ACCESS_LOG_TYPE%`` says: there is one line, at the end."""

    __slots__ = (
        "_breaker_held",
        "_charged",
        "_deadline",
        "_idle_timeout",
        "_kept",
        "_last",
        "_longest",
        "_outgoing",
        "_reframe",
        "_replay",
        "_replay_trailers",
        "_responded",
        "_retry",
        "_retrying",
        "_try_deadline",
        "_upstream",
        "_waiting",
        "also",
        "attempts",
        "bytes_received",
        "bytes_sent",
        "cluster",
        "connection",
        "continued",
        "dechunk",
        "details",
        "done",
        "down",
        "end",
        "extra",
        "first_upstream_rx",
        "first_upstream_tx",
        "flags",
        "head",
        "host",
        "host_changed",
        "http",
        "internal",
        "is_head",
        "local_body",
        "path",
        "protocol",
        "remote",
        "request_done",
        "request_end",
        "request_id",
        "response",
        "route",
        "start",
        "start_wall",
        "status",
        "strip",
        "target",
        "target_changed",
        "trailers",
        "tunnel",
        "unframed",
        "upgrade",
        "upstream_failure_reason",
        "upstream_local",
        "upstream_principal",
    )

    # Set by ``proxy.stream.arrival``: what ``Head.emit`` leaves out and adds, before the route's edits.
    strip: int
    also: frozenset[bytes]
    extra: bytes

    def answer_with(self, status: int, body: bytes, /) -> None:
        """The proxy itself answers so."""
        self.status = status
        self.local_body = body

    @property
    def connect(self) -> bool:
        """Whether the request is a CONNECT."""
        return self.head.method == b"CONNECT"

    def __init__(self, down: ClientStream, http: HttpRuntime, head: Head, request_done: bool) -> None:
        self.down = down
        self.http = http
        http2 = down.http2
        self.head = head
        self.connection: ConnectionInfo = down.connection
        self.remote: Address = down.connection.remote
        self.internal = False
        self.request_done = request_done
        self.response: Head | None = None
        self.path = b""
        self.route: RouteEntry | None = None
        self.target: Target | None = None
        self.cluster: Cluster | None = None
        self.host: Host | None = None
        self.upstream_local: Address | None = None
        self.upstream_principal = ""
        self.start_wall = time.time()
        self.start = time.monotonic()
        self.request_end = self.start if request_done else 0.0
        self.first_upstream_tx = 0.0
        self.first_upstream_rx = 0.0
        self.end = 0.0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.status = 0
        self.flags = ""
        self.details = ""
        self.request_id = b""
        self.attempts = 0
        self.upstream_failure_reason = ""
        self.protocol = "HTTP/2" if http2 else "HTTP/1.1" if head.minor else "HTTP/1.0"
        self.local_body = b""
        self.is_head = head.method == b"HEAD"
        self.dechunk = http2 or not head.minor
        self.unframed = http2 and not request_done
        self.trailers: Fields | None = None
        self.upgrade = False
        self.tunnel = False
        self.continued = False
        self.host_changed = False
        self.target_changed = False
        self.done = False
        self._upstream: UpstreamStream | None = None
        self._reframe: Reframe | None = None
        self._outgoing: Outgoing | None = None
        self._waiting = False
        self._replay: bytes | bytearray = b""
        self._replay_trailers: Fields | None = None
        self._kept = True
        self._retry: RetryState | None = None
        self._retrying = False
        self._breaker_held = False
        self._charged = 0
        self._responded = False
        self._deadline = inf
        self._try_deadline = inf
        self._idle_timeout = http.stream_idle_timeout
        self._longest = http.config.max_stream_duration
        self._last = down.state.now
