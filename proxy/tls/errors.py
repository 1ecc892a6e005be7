"""Why there is no TLS connection, or no TLS context."""

from __future__ import annotations

from typing import Literal

RefusalKind = Literal["no_cert", "error", "san", "cert_hash"]


class SecretError(ValueError):
    """Key, certificate or trust roots that a TLS context needs are missing or unusable; the text says which."""


class MissingSecretError(SecretError):
    """A secret has not come yet. What needs it fails closed until it does."""


class PeerRefusedError(Exception):
    """The handshake succeeded, yet the peer is not who it must be.

    ``kind`` names the counter: ``ssl.fail_verify_<kind>``.
    """

    def __init__(self, kind: RefusalKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class HandshakeError(ConnectionError):
    """The handshake is ended by us: too many at one time, or too many bytes for one."""


class TruncatedError(ConnectionResetError):
    """The peer ended the TLS connection without ``close_notify``: what came may be incomplete."""


class FloodError(ConnectionError):
    """The peer keeps the engine busy with records that carry nothing."""
