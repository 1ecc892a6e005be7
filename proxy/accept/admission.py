"""Whether one more connection is let in: the limits of the worker, of its listeners, of descriptors, and overload.

It decides and counts; who was let in and is gone says so with ``leave``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.overload.actions import OverloadActions, hit
from proxy.runtime.runtime import ListenerRuntime


def reserved(descriptor_limit: int) -> int:
    """Descriptors that are left for upstream connections, log files and the admin endpoint."""
    return min(1024, max(8, descriptor_limit // 20))


class Admission:
    """``open``: connections that are in. ``on_idle`` is called when the last has left."""

    __slots__ = ("_actions", "_by_listener", "_ceiling", "_limit", "_on_idle", "closed", "open")

    def __init__(
        self,
        *,
        limit: int,
        by_listener: Mapping[str, int],
        descriptors: int,
        actions: OverloadActions,
        on_idle: Callable[[], None],
    ) -> None:
        """``descriptors``: the process's limit of them."""
        self._limit = limit
        self._by_listener = by_listener
        self._ceiling = descriptors - reserved(descriptors)
        self._actions = actions
        self._on_idle = on_idle
        self.open = 0
        self.closed = False

    def admit(self, listener: ListenerRuntime, descriptor: int) -> bool:
        """Whether a connection that was accepted as ``descriptor`` may stay; if not, it was counted why (in the order
        of Envoy).
        """
        stats = listener.stats
        if self.open >= self._limit:
            stats.downstream_global_cx_overflow += 1
            return False
        # The kernel gives the lowest free number: at the ceiling, all those below are in use.
        if hit(self._actions.reject_connections) or descriptor >= self._ceiling:
            stats.downstream_cx_overload_reject += 1
            return False
        limit = self._by_listener.get(listener.name)
        if self.closed or (limit is not None and stats.downstream_cx_active >= limit):
            stats.downstream_cx_overflow += 1
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        self.open -= 1
        if not self.open:
            self._on_idle()
