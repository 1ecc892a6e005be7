"""Socket addresses, CIDR ranges and socket options."""

from __future__ import annotations

from proxy.model.frozen import dataclass


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An IP literal (or, in DNS clusters, a host name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class CidrRange:
    """``config.core.v3.CidrRange``."""

    address_prefix: str
    prefix_len: int


@dataclass(frozen=True, slots=True)
class SocketOption:
    """``config.core.v3.SocketOption`` with an integer value: ``setsockopt(level, name, value)`` before bind."""

    level: int
    name: int
    int_value: int


@dataclass(frozen=True, slots=True)
class BindConfig:
    """``config.core.v3.BindConfig``: the source address (or ``None``) and options of upstream sockets.

    ``extra_source_addresses`` holds the other family's address (Envoy's field of that name).
    """

    source_address: SocketAddress | None = None
    extra_source_addresses: tuple[SocketAddress, ...] = ()
    socket_options: tuple[SocketOption, ...] = ()
