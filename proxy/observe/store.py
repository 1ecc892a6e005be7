"""Where statistics live between configurations: one object for each name, made when first asked for."""

from __future__ import annotations

from typing import TypeVar

from proxy.model.stats import AccessLogStats, HttpStats, ListenerStats, RbacStats, RouteStats, TcpStats

S = TypeVar("S")


class StatStore:
    """All statistics but those of clusters (a cluster carries its own). Keys come from configuration only, so their
    number is bounded by it."""

    __slots__ = ("access_log", "http", "listener", "rbac", "route", "tcp")

    def __init__(self) -> None:
        self.http: dict[str, HttpStats] = {}
        self.tcp: dict[str, TcpStats] = {}
        self.listener: dict[str, ListenerStats] = {}
        self.rbac: dict[str, RbacStats] = {}
        self.route: dict[tuple[str, str], RouteStats] = {}
        self.access_log = AccessLogStats()
