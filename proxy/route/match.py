"""From authority and path to a route: virtual hosts, then the first route that matches.

It decides nothing about what the route does: an entry is whatever the compiler put there.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from proxy.match.regex import BytesPredicate
from proxy.model.connection import ConnectionInfo
from proxy.model.exchange import Head
from proxy.route.domains import Domains
from proxy.route.predicate import RequestPredicate

E = TypeVar("E")
Rule = tuple[BytesPredicate | None, RequestPredicate | None, E]

CACHE_SIZE = 1024


class VirtualHostTable(Generic[E]):
    """The rules of one virtual host, in order; ``connect_rules`` are those for CONNECT, which has no path.

    ``https_only`` is the entry for requests that came without TLS.
    """

    __slots__ = ("connect_rules", "https_only", "rules")

    def __init__(
        self,
        rules: tuple[Rule[E], ...],
        https_only: E | None = None,
        connect_rules: tuple[Rule[E], ...] = (),
    ) -> None:
        self.rules = rules
        self.connect_rules = connect_rules
        self.https_only = https_only


class RouteTable(Generic[E]):
    """A compiled route configuration. ``name`` is the RDS name ("" for an inline table).

    What was found by authority and path alone is remembered, for at most ``cache_size`` pairs; then it starts again.
    """

    __slots__ = ("_cache", "_cache_size", "_domains", "name")

    def __init__(
        self, name: str, domains: Domains[VirtualHostTable[E]], *, cache_size: int = CACHE_SIZE
    ) -> None:
        self.name = name
        self._domains = domains
        self._cache: dict[tuple[bytes | None, bytes], E] = {}
        self._cache_size = cache_size

    def match(self, head: Head, conn: ConnectionInfo, path: bytes) -> E | None:
        """The entry for a request, ``None`` = 404. ``path`` is normalised and has no query."""
        key = (head.host, path)
        found = self._cache.get(key)
        if found is not None:
            return found
        return self._search(key, head, conn, path)

    def match_connect(self, head: Head, conn: ConnectionInfo) -> E | None:
        """The entry for a CONNECT request."""
        host = self._domains.find(head.host or b"")
        if host is None:
            return None
        if host.https_only is not None and conn.transport_protocol != "tls":
            return host.https_only
        for _, request_matches, entry in host.connect_rules:
            if request_matches is None or request_matches(head, b""):
                return entry
        return None

    def _search(
        self, key: tuple[bytes | None, bytes], head: Head, conn: ConnectionInfo, path: bytes
    ) -> E | None:
        host = self._domains.find(key[0] or b"")
        if host is None:
            return None
        by_path_alone = True
        if host.https_only is not None:
            if conn.transport_protocol != "tls":
                return host.https_only
            by_path_alone = False
        for path_matches, request_matches, entry in host.rules:
            if path_matches is not None and not path_matches(path):
                continue
            if request_matches is not None:
                by_path_alone = False
                if not request_matches(head, path):
                    continue
            if by_path_alone:
                if len(self._cache) >= self._cache_size:
                    self._cache.clear()
                self._cache[key] = entry
            return entry
        return None
