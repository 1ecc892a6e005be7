"""What all connections of one event loop share. It does nothing by itself: ``proxy.accept.worker`` drives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from proxy.http2.session import Flusher
from proxy.overload.actions import OverloadActions
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import HttpRuntime
from proxy.tls.conn import Buffers
from proxy.tls.handshakes import Budget, Slots
from proxy.tls.store import SecretStore
from proxy.upstream.pipes import Pipes

E = TypeVar("E")


class Swept(Protocol):
    """Something with deadlines. ``sweep`` is called every 100 ms with the loop's time and may end it."""

    def sweep(self, now: float) -> None: ...


class Registered(Swept, Protocol):
    """A downstream connection. ``drain``: end as soon as it is idle; ``abort``: end now."""

    @property
    def busy(self) -> bool: ...
    def drain(self) -> None: ...
    def abort(self) -> None: ...
    def runtime_changed(self) -> None: ...


class LoopState:
    """``now`` is the loop's time, renewed by each sweep: good enough for timeouts, and free to read.

    ``date`` is a ready ``date`` line, of this second. ``exchanges`` holds the requests under way,
    ``inspecting`` the connections whose first bytes are being waited for. ``overload`` and
    ``shortened`` are ``None`` unless an overload action concerns requests, or timeouts.
    """

    __slots__ = (
        "_edges",
        "buffers",
        "connections",
        "date",
        "draining",
        "exchanges",
        "flusher",
        "handshakes",
        "hub",
        "inspecting",
        "last_id",
        "loop",
        "now",
        "overload",
        "pipes",
        "secrets",
        "shortened",
        "slots",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub, secrets: SecretStore) -> None:
        self.loop = loop
        self.hub = hub
        self.secrets = secrets
        self.buffers = Buffers()
        self.handshakes = Budget(loop.call_soon, loop.time)
        self.slots = Slots(loop.time)
        self.connections: set[Registered] = set()
        self.exchanges: set[Swept] = set()
        self.flusher = Flusher(loop.call_soon)
        self.pipes = Pipes(hub.current.stats.splice)
        self.inspecting: set[Swept] = set()
        self.now = loop.time()
        self.date = b""
        self.draining = False
        self.overload: OverloadActions | None = None
        self.shortened: OverloadActions | None = None
        self.last_id = 0
        self._edges: dict[HttpRuntime, Any] = {}

    def edge(self, http: HttpRuntime, make: Callable[[HttpRuntime], E]) -> E:
        """What ``make`` makes of ``http``, made once for each snapshot."""
        found: E | None = self._edges.get(http)
        if found is None:
            found = self._edges[http] = make(http)
        return found

    def runtime_changed(self) -> None:
        """Keep nothing of an earlier snapshot alive."""
        self._edges.clear()

    def next_id(self) -> int:
        """A number for a new connection."""
        self.last_id += 1
        return self.last_id
