"""The connection that a host is checked by: that of its cluster's requests, TLS and all, but outside of every pool.

As in Envoy its handshake and its HTTP/2 frames count for the cluster, and nothing else: it is no connection or request
of anybody's. It decides nothing about health.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.cluster.cluster import Cluster
from proxy.cluster.host import Host
from proxy.http2 import events
from proxy.model.health_check import HealthCheck
from proxy.model.tls import UpstreamTls
from proxy.tls.errors import MissingSecretError, SecretError
from proxy.upstream.connect import App, connect
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.http2 import Http2Connection
from proxy.upstream.loop_state import LoopState

_COUNTED: Final = (
    "ssl_handshake",
    "ssl_session_reused",
    "ssl_connection_error",
    "ssl_fail_verify_error",
    "ssl_fail_verify_san",
    "ssl_fail_verify_cert_hash",
    "bind_errors",
)


class Line:
    """How to reach one host for a check. Host and cluster are stand-ins of their own, which nobody else counts with.

    ``host.address`` is where it is asked, ``tls`` whether by TLS.
    """

    __slots__ = ("_counts", "_state", "cluster", "host")

    def __init__(self, state: LoopState, cluster: Cluster, host: Host, check: HealthCheck) -> None:
        self._state = state
        self._counts = cluster.stats
        # The check's own timeout is the shorter one: it began before.
        config = replace(
            cluster.config,
            connect_timeout=2 * check.timeout + 1.0,
            max_requests_per_connection=0,
            load_assignment=None,
            health_check=None,
        )
        self.cluster = Cluster(config, _first)
        where = host.health_check
        address = (where.address or host.address[0], where.port or host.address[1])
        self.host = Host(address, tls=_tls(cluster, host, check), hostname=host.hostname)

    @property
    def tls(self) -> bool:
        return self.host.tls is not None

    def ready(self, offer: tuple[str, ...] = ()) -> bool:
        """Whether the secrets for its TLS are there, whatever they are."""
        if self.host.tls is not None:
            try:
                self._state.secrets.client(self.host.tls, offer)
            except MissingSecretError:
                return False
            except SecretError:
                # That is for a check to find out.
                return True
        return True

    async def connect(self, make: Callable[[str], App], offer: tuple[str, ...] = ()) -> App:
        """Raises ``ConnectError``."""
        try:
            return await connect(self._state, self.cluster, self.host, make, offer=offer)
        finally:
            for name in _COUNTED:
                counted = getattr(self.cluster.stats, name)
                setattr(self._counts, name, getattr(self._counts, name) + counted)
                setattr(self.cluster.stats, name, 0)

    def http1(self) -> UpstreamConnection:
        return UpstreamConnection(_Nobody(), self.cluster, self.host)

    def http2(self) -> Http2Connection:
        self.cluster.stats.http2 = self._counts.http2_stats()
        return _CheckConnection(_Nobody(), self._state, self.cluster, self.host)


def _tls(cluster: Cluster, host: Host, check: HealthCheck) -> UpstreamTls | None:
    """The host's, unless ``transport_socket_match_criteria`` say another; ``tls_options`` replace what is offered."""
    tls = cluster.tls_for(check.transport_match) if check.transport_match else host.tls
    if tls is not None and check.alpn_protocols:
        tls = replace(tls, common=replace(tls.common, alpn_protocols=check.alpn_protocols))
    return tls


def _first() -> float:
    """Nothing is left to chance where there is one host."""
    return 0.0


class _Nobody:
    """The pool of a connection that is in none."""

    __slots__ = ()

    def release(self, connection: object, /) -> None:
        return

    def closed(self, connection: object, /) -> None:
        return


class _CheckConnection(Http2Connection):
    """An HTTP/2 connection that one check at a time goes over."""

    __slots__ = ()

    def _goaway(self, event: events.GoAwayReceived) -> None:
        """As in Envoy a graceful end lets the check finish, and an error fails it."""
        super()._goaway(event)
        if event.error_code and not self.closed:
            self._lost("remote_reset", f"GOAWAY with error {event.error_code}")
            self.abort()
