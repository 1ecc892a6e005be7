"""From authority and path to a route: virtual hosts, then the first route that matches.

It decides nothing about what the route does: an entry is whatever the compiler put there.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from proxy.model.connection import ConnectionInfo
from proxy.model.exchange import Head

E = TypeVar("E")


class RouteTable(Generic[E]):
    """A compiled route configuration. ``name`` is the RDS name ("" for an inline table)."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def match(self, head: Head, conn: ConnectionInfo, path: bytes) -> E | None:
        """The entry for a request, ``None`` = 404. ``path`` is normalised and has no query."""
        raise NotImplementedError
