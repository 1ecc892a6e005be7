"""What a client of the mesh can call: named services with ports and endpoints, wherever they were declared.

Data only: Services and ServiceEntries both become :class:`MeshService`, so that translate knows one shape. This
module must not know objects' JSON, nor xDS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from control_plane.store.base import Key


class AppProtocol(Enum):
    """How the sidecar treats a port's bytes; TLS is the app's own and is relayed, told apart by its server name.

    HTTP is HTTP/1.1, as in Istio; HTTP2 and GRPC are HTTP/2 in plaintext with prior knowledge (h2c).
    """

    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    TCP = "TCP"
    TLS = "TLS"

    @property
    def is_http(self) -> bool:
        """Whether requests are routed one by one, in whichever version."""
        return self is AppProtocol.HTTP or self.is_http2

    @property
    def is_http2(self) -> bool:
        """Whether the app behind the port wants HTTP/2."""
        return self is AppProtocol.HTTP2 or self is AppProtocol.GRPC


class Resolution(Enum):
    """Where endpoints come from: the view, DNS names, DNS SRV records, or the address that the client dialled."""

    EDS = "EDS"
    DNS = "DNS"
    DNS_SRV = "DNS_SRV"
    PASSTHROUGH = "PASSTHROUGH"


@dataclass(frozen=True, slots=True)
class MeshPort:
    """A port of a service as clients name it. ``target`` is the workloads' port, number or name (Services only)."""

    number: int
    name: str
    protocol: AppProtocol
    target: int | str


@dataclass(frozen=True, slots=True)
class MeshEndpoint:
    """One address and port that answers for a service's port.

    ``sidecar``: it speaks the mesh's mutual TLS. ``service_account`` and ``namespace`` are its identity ("" =
    not known); ``labels`` its workload's; ``target_port`` the port that policies of the workload speak of.
    """

    address: str
    port: int
    target_port: int
    namespace: str
    service_account: str = ""
    sidecar: bool = False
    weight: int = 1
    locality: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MeshService:
    """A service: ``hostname`` is what clients call it.

    ``addresses`` are its virtual IPs. ``name`` is set for Kubernetes Services, which have short names too.
    ``endpoints`` are in the order of ``ports``. ``srv_name`` is set when an SRV owner name was
    given. ``origin`` is the object that declares it and ``sources`` all that made it, with
    their revisions: equal sources make an equal service.
    """

    hostname: str
    namespace: str
    name: str
    addresses: tuple[str, ...]
    ports: tuple[MeshPort, ...]
    resolution: Resolution
    endpoints: tuple[tuple[MeshEndpoint, ...], ...]
    origin: Key
    created: int
    sources: tuple[tuple[Key, int], ...]
    srv_name: str = ""

    def port(self, number: int) -> MeshPort | None:
        """The port with this number."""
        return next((port for port in self.ports if port.number == number), None)

    def endpoints_of(self, number: int) -> tuple[MeshEndpoint, ...]:
        """The endpoints of the port with this number."""
        return next(
            (ends for port, ends in zip(self.ports, self.endpoints, strict=True) if port.number == number), ()
        )

    @property
    def keys(self) -> frozenset[Key]:
        """All objects that made this service."""
        return frozenset(key for key, _ in self.sources)
