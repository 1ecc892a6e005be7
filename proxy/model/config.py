"""Everything a sidecar is told, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, LoadAssignment
from proxy.model.frozen import dataclass
from proxy.model.listener import Listener
from proxy.model.route import RouteConfiguration
from proxy.model.tls import Secret


@dataclass(frozen=True, slots=True)
class Config:
    """All resources by name; ``assignments`` by EDS service name. ``version`` names the set in logs and admin."""

    version: str = ""
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    routes: Mapping[str, RouteConfiguration] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    assignments: Mapping[str, LoadAssignment] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Admin:
    """``config.bootstrap.v3.Admin``."""

    address: SocketAddress


class ConfigError(ValueError):
    """A resource cannot be used. ``path`` is its field path, e.g. ``listener[in].filter_chains[0].filters[1]``."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message
