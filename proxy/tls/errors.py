"""Why there is no TLS connection, or no TLS context."""

from __future__ import annotations

from typing import Literal

RefusalKind = Literal["no_cert", "error", "san"]


class SecretError(ValueError):
    """Key, certificate or trust roots that a TLS context needs are missing or unusable; the text says which."""


class PeerRefusedError(Exception):
    """The handshake succeeded, yet the peer is not who it must be.

    ``kind`` names the counter: ``ssl.fail_verify_<kind>``.
    """

    def __init__(self, kind: RefusalKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class TruncatedError(ConnectionResetError):
    """The peer ended the TCP connection without TLS's ``close_notify``: what came may be incomplete."""
