"""The ADS gRPC server (skeleton)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from control_plane.xds.push import Pusher


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """PEM bytes: the server's key, its chain (leaf first, then issuing CA), and the roots that clients must chain to."""

    private_key: bytes
    chain: bytes
    client_roots: bytes


@dataclass(frozen=True, slots=True)
class ServerOptions:
    max_streams: int = 10_000
    max_request_bytes: int = 4 * 1024 * 1024
    max_node_bytes: int = 64 * 1024
    max_subscriptions: int = 50_000


class XdsServer:
    def __init__(
        self, pusher: Pusher, *, trust_domain: str, options: ServerOptions | None = None
    ) -> None: ...

    async def listen_tls(self, address: str, identity: ServerIdentity) -> int:
        """Bind ``host:port`` (port 0 = any) and return the port."""
        raise NotImplementedError

    async def listen_plaintext(self, address: str) -> int:
        """Bind a loopback address and return the port. Raises ``ValueError`` for any other address."""
        raise NotImplementedError

    async def start(self) -> None: ...

    def rotate(self, identity: ServerIdentity) -> None:
        """Use ``identity`` for every connection accepted from now on."""

    async def stop(self, grace: float) -> None: ...
