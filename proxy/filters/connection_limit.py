"""``envoy.filters.network.connection_limit``: so many connections at a time through a filter chain.

Who was let in gives its place back with ``leave``, once. What happens to the others is the listener's business.
"""

from __future__ import annotations

from proxy.model.listener import ConnectionLimit
from proxy.model.stats import ConnectionLimitStats


class ConnectionLimiter:
    """The count is the ``active_connections`` of the ``stat_prefix``: it outlives a change of the configuration."""

    __slots__ = ("_most", "_stats", "delay")

    def __init__(self, config: ConnectionLimit, stats: ConnectionLimitStats) -> None:
        self._most = config.max_connections
        self._stats = stats
        self.delay = config.delay

    def enter(self) -> bool:
        """Whether there is room for one more; counts ``limited_connections`` if not."""
        stats = self._stats
        if stats.active_connections >= self._most:
            stats.limited_connections += 1
            return False
        stats.active_connections += 1
        return True

    def leave(self) -> None:
        self._stats.active_connections -= 1
