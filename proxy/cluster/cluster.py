"""A cluster: its hosts, which of them the next request goes to, and how much of it may be in use.

It opens no connection and reads no clock. Endpoints come from configuration, EDS or ``proxy.discovery``.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.cluster.breaker import Breaker
from proxy.cluster.host import Host
from proxy.model.cluster import Cluster as ClusterConfig
from proxy.model.cluster import LoadAssignment
from proxy.model.stats import ClusterStats


class Cluster:
    """An upstream cluster.

    ``random`` gives floats in [0, 1). With a ``previous`` cluster of the same name, its hosts, breaker counts and
    statistics are taken over when the hub commits the new configuration, not before (``adopt``).
    """

    __slots__ = ("assignment", "breaker", "config", "hosts", "name", "on_removed", "stats")

    def __init__(
        self, config: ClusterConfig, random: Callable[[], float], previous: Cluster | None = None
    ) -> None:
        self.config = config
        self.name = config.name
        self.stats: ClusterStats = ClusterStats() if previous is None else previous.stats
        self.breaker = Breaker(config.circuit_breakers, self.stats)
        self.hosts: tuple[Host, ...] = ()
        self.assignment: LoadAssignment | None = None
        self.on_removed: Callable[[Host], None] | None = None

    def pick(self, retry_excluded: Host | None = None) -> Host | None:
        """The host for the next request, or ``None`` when there is none (flag ``UH``).

        With ``retry_excluded`` another host is preferred, if there is one.
        """
        raise NotImplementedError

    def set_endpoints(self, assignment: LoadAssignment) -> None:
        """Take a new list of endpoints; hosts that stay keep their identity. Endpoint addresses are IP literals."""
        raise NotImplementedError

    def original_dst_host(self, ip: str, port: int) -> Host:
        """ORIGINAL_DST: the host for the address that the client dialled (bounded LRU)."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Take a change of some host's ``healthy`` or ``weight`` into account."""
        raise NotImplementedError
