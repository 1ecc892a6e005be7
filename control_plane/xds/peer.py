"""Who is at the other end of a stream: the SPIFFE ID of its certificate, and whether its node says the same. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from certs.spiffe import SpiffeId
from certs.svid import SvidError, read_leaf
from control_plane.translate.node import Node

_CERTIFICATE = "x509_pem_cert"


class PeerError(Exception):
    """The peer is not who it must be."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An authenticated peer. ``not_after``: when its certificate ends, Unix seconds."""

    spiffe_id: SpiffeId
    not_after: int


def peer_of(auth_context: Mapping[str, Sequence[bytes]], trust_domain: str) -> Peer | None:
    """The peer of a gRPC stream whose TLS handshake has validated the chain; ``None`` without TLS.

    Raises :class:`PeerError`.
    """
    # Anything but the one word that gRPC has for no TLS at all needs a certificate.
    if [*auth_context.get("transport_security_type", ())] == [b"insecure"]:
        return None
    certificates = auth_context.get(_CERTIFICATE)
    if not certificates:
        raise PeerError("the client sent no certificate; connect with the workload's SVID")
    try:
        der = ssl.PEM_cert_to_DER_cert(certificates[0].decode("ascii"))
        leaf = read_leaf(der, trust_domain)
    except (SvidError, ValueError) as error:
        raise PeerError(f"the client's certificate is no X.509-SVID of this mesh: {error}") from error
    return Peer(leaf.spiffe_id, leaf.not_after)


def check_node(peer: Peer, node: Node) -> None:
    """Whether ``node`` speaks for the workload that ``peer`` is. Raises :class:`PeerError`."""
    proven = (peer.spiffe_id.namespace, peer.spiffe_id.service_account)
    if (node.namespace, node.service_account) != proven:
        raise PeerError(
            f"node.metadata says NAMESPACE {node.namespace!r} and SERVICE_ACCOUNT {node.service_account!r}, "
            f"but the certificate is that of {peer.spiffe_id}; correct the bootstrap, or enrol with a token "
            "for that service account"
        )
