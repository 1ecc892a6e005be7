"""A cluster: its hosts, which of them the next request goes to, and how much of it may be in use.

It opens no connection and reads no clock. Endpoints come from configuration, EDS or ``proxy.discovery``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.cluster import flags
from proxy.cluster.balancer import Pick, build_pick, no_host
from proxy.cluster.breaker import Breaker
from proxy.cluster.host import Host
from proxy.model.cluster import Cluster as ClusterConfig
from proxy.model.cluster import Endpoint, LoadAssignment
from proxy.model.connection import Address, Ends
from proxy.model.stats import ClusterStats
from proxy.model.tls import UpstreamTls

MAX_ORIGINAL_DST_HOSTS = 1024
#: Seconds that an unreachable SRV target is out of use: after the first failure, and at most.
UNREACHABLE_BASE = 1.0
UNREACHABLE_CAP = 30.0
_UNHEALTHY = frozenset(("UNHEALTHY", "DRAINING", "TIMEOUT"))
#: What an endpoint that is listed says of its host, whatever was said before.
_SAID_ANEW = (
    flags.FAILED_EDS_HEALTH | flags.DEGRADED_EDS_HEALTH | flags.PENDING_DYNAMIC_REMOVAL | flags.UNREACHABLE
)
#: Where a host that is not listed any more stays while it passes its health checks.
_DYNAMIC = frozenset(("EDS", "STRICT_DNS", "DNS_SRV"))
_REPICKS = 3


def ignore_removed(host: Host) -> None:
    """The ``on_removed`` of a cluster without a pool."""


class Cluster:
    """An upstream cluster.

    ``random`` gives floats in [0, 1). ``on_removed`` is called with each host that leaves, after ``removed`` was set.
    """

    __slots__ = (
        "_on_behalf",
        "_on_removed",
        "_original_dst",
        "_pick",
        "_position",
        "_random",
        "assignment",
        "breaker",
        "config",
        "hosts",
        "max_original_dst_hosts",
        "name",
        "stats",
    )

    def __init__(
        self,
        config: ClusterConfig,
        random: Callable[[], float],
        on_removed: Callable[[Host], None] = ignore_removed,
        *,
        max_original_dst_hosts: int = MAX_ORIGINAL_DST_HOSTS,
    ) -> None:
        self.config = config
        self.name = config.name
        self.stats = ClusterStats()
        self.breaker = Breaker(config.circuit_breakers, self.stats)
        self.hosts: tuple[Host, ...] = ()
        self.assignment: LoadAssignment | None = None
        self.max_original_dst_hosts = max_original_dst_hosts
        self._random = random
        self._on_removed = on_removed
        self._pick: Pick = no_host
        self._position = [int(random() * 1024)]
        self._original_dst: dict[Address, Host] = {}
        self._on_behalf: dict[tuple[Host, Ends], Host] = {}

    def pick(self, retry_excluded: Host | None = None) -> Host | None:
        """The host for the next request, or ``None`` when there is none (flag ``UH``).

        With ``retry_excluded`` another host is preferred, if there is a usable one.
        """
        host = self._pick()
        if host is not retry_excluded or host is None:
            return host
        for _ in range(_REPICKS):
            other = self._pick()
            if other is not host:
                return other
        return next((h for h in self.hosts if h is not host and h.healthy), host)

    def set_endpoints(self, assignment: LoadAssignment) -> None:
        """Take a new list of endpoints; hosts that stay keep their identity. Endpoint addresses are IP literals.

        An address that is listed twice counts once, at its first and highest priority. With health checks, a host
        that is listed no more and passes them stays until it does not (``PENDING_DYNAMIC_REMOVAL``).
        """
        self.assignment = assignment
        before = {h.address: h for h in self.hosts}
        after: dict[Address, Host] = {}
        for locality in sorted(assignment.localities, key=lambda loc: loc.priority):
            for endpoint in locality.endpoints:
                address = (endpoint.address.host, endpoint.address.port)
                if address not in after:
                    after[address] = self._host(before.get(address), address, endpoint, locality.priority)
        for address, host in before.items():
            if address not in after and self._stays(host):
                host.mark(flags.PENDING_DYNAMIC_REMOVAL, True)
                after[address] = host
        changed = tuple(after.values()) != self.hosts
        self.hosts = tuple(after.values())
        self.stats.update_attempt += 1
        self.stats.update_success += 1
        self.stats.membership_change += changed
        self.refresh()
        for address, host in before.items():
            if after.get(address) is not host:
                self._remove(host)

    def _host(self, known: Host | None, address: Address, endpoint: Endpoint, priority: int) -> Host:
        tls = self.tls_for(endpoint.transport_match)
        if known is None or known.tls != tls:
            known = Host(address, tls=tls)
            if self.config.health_check is not None:
                known.mark(flags.FAILED_ACTIVE_HC, True)
                known.mark(flags.PENDING_ACTIVE_HC, self.config.ignore_new_hosts_until_first_hc)
        known.weight = endpoint.weight
        known.priority = priority
        known.hostname = endpoint.hostname
        known.health_check = endpoint.health_check
        said = known.flags & ~_SAID_ANEW
        if endpoint.health_status in _UNHEALTHY:
            said |= flags.FAILED_EDS_HEALTH
        elif endpoint.health_status == "DEGRADED":
            said |= flags.DEGRADED_EDS_HEALTH
        if said & flags.ACTIVE and not self.checks(known):
            said &= ~flags.ACTIVE
        if said != known.flags:
            known.mark(~said, False)
            known.mark(said, True)
        return known

    def checks(self, host: Host) -> bool:
        """Whether ``host`` is one for active health checks."""
        return self.config.health_check is not None and not host.health_check.disabled

    def _stays(self, host: Host) -> bool:
        config = self.config
        return (
            config.type in _DYNAMIC
            and not config.ignore_health_on_host_removal
            and self.checks(host)
            and not host.flags & (flags.FAILED_ACTIVE_HC | flags.FAILED_EDS_HEALTH)
        )

    def set_health(self, found: Mapping[Address, int]) -> None:
        """What active health checks say of some hosts: of ``flags``, those in ``ACTIVE``. Others are not touched."""
        gone = []
        for host in self.hosts:
            said = found.get(host.address)
            if said is None or not self.checks(host):
                continue
            if said & ~host.flags & flags.FAILED_ACTIVE_HC:
                for other in (host, *(made for made in self._on_behalf.values() if made.origin is host)):
                    other.epoch += 1
            host.mark(flags.ACTIVE, False)
            host.mark(said & flags.ACTIVE, True)
            if host.flags & flags.PENDING_DYNAMIC_REMOVAL and said & flags.FAILED_ACTIVE_HC:
                gone.append(host)
        if gone:
            self.hosts = tuple(host for host in self.hosts if host not in gone)
            self.stats.membership_change += 1
        self.refresh()
        for host in gone:
            self._remove(host)

    def tls_for(self, metadata: tuple[tuple[str, str], ...]) -> UpstreamTls | None:
        """The TLS settings for a host with this ``envoy.transport_socket_match`` metadata."""
        for match in self.config.transport_socket_matches:
            if set(match.match) <= set(metadata):
                return match.tls
        return self.config.tls

    def original_dst_host(self, ip: str, port: int) -> Host:
        """ORIGINAL_DST: the host for the address that the client dialled.

        At most ``max_original_dst_hosts`` are remembered; the longest unused one is forgotten first.
        """
        known = self._original_dst
        address = (ip, self.config.original_dst_port or port)
        host = known.pop(address, None)
        if host is None:
            host = Host(address, tls=self.tls_for(()))
            if len(known) >= self.max_original_dst_hosts:
                oldest = next(iter(known))
                self._remove(known.pop(oldest))
        known[address] = host
        return host

    def on_behalf(self, host: Host, ends: Ends) -> Host:
        """What stands for ``host`` in requests of one client, so that its connections are no other client's.

        As many are remembered as original destinations; the longest unused one is forgotten first.
        """
        known = self._on_behalf
        origin = host.origin or host
        key = origin, ends
        made = known.pop(key, None)
        if made is None:
            made = Host(host.address, tls=host.tls, hostname=host.hostname)
            made.ends = ends
            made.origin = origin
            if len(known) >= self.max_original_dst_hosts:
                self._remove(known.pop(next(iter(known))))
        known[key] = made
        return made

    def unreachable(self, host: Host) -> float:
        """A connection to ``host`` could not be made: for how many seconds it is out of use, 0 = not at all.

        Only in DNS_SRV clusters: their client must use the lowest-numbered priority that it *can reach* (RFC 2782,
        "Priority"), and nobody else tells it. The caller calls :meth:`try_again` when the time is over.
        """
        host = host.origin or host
        if self.config.type != "DNS_SRV" or host.removed:
            return 0.0
        host.connect_failures += 1
        if not host.healthy:
            return 0.0
        host.mark(flags.UNREACHABLE, True)
        self.refresh()
        return min(UNREACHABLE_CAP, UNREACHABLE_BASE * 2.0 ** min(host.connect_failures - 1, 10))

    def try_again(self, host: Host) -> None:
        """Let requests find out whether ``host`` can be reached again."""
        host = host.origin or host
        if not host.removed and host.flags & flags.UNREACHABLE:
            host.mark(flags.UNREACHABLE, False)
            self.refresh()

    def refresh(self) -> None:
        """Take changes of hosts' ``healthy``, ``degraded`` or ``weight`` into account."""
        hosts = self.hosts
        factor = self.assignment.overprovisioning_factor if self.assignment is not None else 140
        self._pick = build_pick(self.config, hosts, self._random, self._position, self.stats, factor)
        self.stats.membership_total = len(hosts)
        self.stats.membership_healthy = sum(h.healthy and not h.degraded for h in hosts)
        self.stats.membership_degraded = sum(h.degraded and h.healthy for h in hosts)
        self.stats.membership_excluded = sum(h.excluded for h in hosts)
        self.stats.max_host_weight = max((h.weight for h in hosts), default=0)

    def adopt(self, previous: Cluster) -> None:
        """Take over from the cluster that had this name: counts, statistics, position, and the hosts that fit.

        It belongs to the commit of a new configuration: ``previous`` must not be given endpoints afterwards.
        """
        self.stats = previous.stats
        self.breaker = previous.breaker
        self.breaker.limits = self.config.circuit_breakers
        self._position = previous._position
        previous._forget_clients()
        if self.config.type != previous.config.type:
            previous.close()
            return
        if self.config.type == "ORIGINAL_DST":
            for host in previous._original_dst.values():
                if host.tls == self.tls_for(()) and (
                    self.config.original_dst_port == previous.config.original_dst_port
                ):
                    self._original_dst[host.address] = host
                else:
                    self._remove(host)
            return
        self.hosts = previous.hosts
        if previous.assignment is not None:
            self.set_endpoints(previous.assignment)

    def close(self) -> None:
        """The cluster is gone: every host is removed."""
        for host in (*self.hosts, *self._original_dst.values()):
            self._remove(host)
        self._forget_clients()
        self.hosts = ()
        self._original_dst.clear()
        self._pick = no_host

    def _forget_clients(self) -> None:
        while self._on_behalf:
            self._remove(self._on_behalf.popitem()[1])

    def _remove(self, host: Host) -> None:
        for key in [key for key in self._on_behalf if key[0] is host]:
            self._remove(self._on_behalf.pop(key))
        host.removed = True
        self._on_removed(host)
