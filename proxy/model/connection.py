"""What is known of one accepted connection: the data that chain matching, policy and logs read.

It is filled in by the accept and TLS stages, in that order, and read by everything after them.
"""

from __future__ import annotations

from typing import Literal

from proxy.model.frozen import dataclass

Address = tuple[str, int]
Ends = tuple[Address, Address]
"""Who connected, and to what."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The verified leaf certificate of the peer.

    ``subject`` and ``issuer`` are RFC 2253 strings, ``sha256`` is lower-case hex of the DER, ``serial`` lower-case hex.
    ``pem`` is the leaf alone, empty when nobody asked for it (``x-forwarded-client-cert`` with ``cert``).
    """

    subject: str = ""
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    sha256: str = ""
    serial: str = ""
    issuer: str = ""
    pem: str = ""


class ConnectionInfo:
    """One downstream connection.

    ``remote`` is the client: the peer, or who the peer's PROXY protocol header says; ``direct_remote`` is always the
    peer. ``local`` is the address that the client dialled (the original destination where there is one), ``restored``
    whether that is another than the socket's. ``principal`` is the URI SAN of a *verified* peer certificate, else
    ``None``: policy trusts it.
    """

    __slots__ = (
        "alpn",
        "alpn_offered",
        "cipher",
        "direct_remote",
        "id",
        "listener",
        "local",
        "local_uri",
        "peer",
        "principal",
        "remote",
        "restored",
        "sni",
        "tls_version",
        "transport_protocol",
    )

    def __init__(
        self,
        remote: Address,
        local: Address,
        listener: str = "",
        connection_id: int = 0,
        *,
        transport_protocol: Literal["raw_buffer", "tls"] = "raw_buffer",
        sni: str = "",
        alpn_offered: tuple[str, ...] = (),
    ) -> None:
        self.remote = remote
        self.direct_remote = remote
        self.local = local
        self.restored = False
        self.listener = listener
        self.id = connection_id
        self.transport_protocol: Literal["raw_buffer", "tls"] = transport_protocol
        self.sni = sni
        self.alpn_offered = alpn_offered
        self.alpn = ""
        self.principal: str | None = None
        self.peer: PeerCertificate | None = None
        self.tls_version = ""
        self.cipher = ""
        self.local_uri = ""
