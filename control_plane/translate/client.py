"""What outbound configuration depends on of a node; nodes that are equal in this share it."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.translate.node import Node
from control_plane.translate.settings import MeshSettings


@dataclass(frozen=True, slots=True)
class Client:
    """``captured``: traffic comes by redirection. ``srv``: the data plane has SRV clusters."""

    namespace: str
    captured: bool
    mark: int
    ipv6: bool
    access_log: str
    srv: bool


def client_of(node: Node, settings: MeshSettings) -> Client:
    """The class of ``node``."""
    return Client(
        namespace=node.namespace,
        captured=node.mode == "REDIRECT",
        mark=node.capture_mark,
        ipv6=node.ipv6,
        access_log=node.access_log or settings.access_log,
        srv=node.agent != "envoy",
    )
