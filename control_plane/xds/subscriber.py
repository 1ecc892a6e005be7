"""One stream as the pusher sees it: a node, a session, and the frames that wait to be written.

It executes a session's actions. It must not wait for anything: frames are left for whoever writes them, and
there are never more of them than types, as a session sends nothing twice before it was answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from control_plane.translate.node import Node
from control_plane.xds.session import Acked, Action, Nacked, Send, Session
from control_plane.xds.snapshot import Snapshot


class Subscriber:
    """``on_verdict`` is told of every ACK and NACK. ``identity``: the SPIFFE ID that the peer proved, if any."""

    __slots__ = (
        "_hold",
        "_hold_timeout",
        "_on_hold_expired",
        "_on_verdict",
        "identity",
        "node",
        "outbox",
        "session",
        "variant",
        "waiting",
    )

    def __init__(
        self,
        node: Node,
        session: Session,
        *,
        identity: str,
        variant: str,
        hold_timeout: float,
        on_verdict: Callable[[Subscriber, Acked | Nacked], None],
        on_hold_expired: Callable[[], None],
    ) -> None:
        self.node = node
        self.session = session
        self.identity = identity
        self.variant = variant
        self.outbox: deque[bytes] = deque()
        self.waiting = asyncio.Event()
        """Set when there is something in ``outbox``."""
        self._hold: asyncio.TimerHandle | None = None
        self._hold_timeout = hold_timeout
        self._on_verdict = on_verdict
        self._on_hold_expired = on_hold_expired

    def receive(self, request: Any) -> None:
        """Raises :class:`~control_plane.xds.session.TooManySubscriptions`."""
        self._execute(self.session.receive(request))

    def update(self, snapshot: Snapshot) -> None:
        self._execute(self.session.update(snapshot))

    def close(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        self.outbox.clear()

    def _execute(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.outbox.append(action.frame)
                self.waiting.set()
            else:
                self._on_verdict(self, action)
        if not self.session.holding:
            if self._hold is not None:
                self._hold.cancel()
                self._hold = None
        elif self._hold is None:
            self._hold = asyncio.get_running_loop().call_later(self._hold_timeout, self._release)

    def _release(self) -> None:
        self._hold = None
        self._on_hold_expired()
        self._execute(self.session.release())
