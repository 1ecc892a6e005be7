"""Why a certificate or token was refused, as data: the HTTP layer, the log and the counters read the same codes."""

from __future__ import annotations

MALFORMED_TOKEN = "malformed-token"
FOREIGN_TOKEN = "foreign-token"
UNKNOWN_TOKEN = "unknown-token"
EXPIRED_TOKEN = "expired-token"
REPLAYED_TOKEN = "replayed-token"
OTHER_IDENTITY = "other-identity"
WANTS_CA = "wants-ca"
NOT_AN_SVID = "not-an-svid"
EXPIRED_CERTIFICATE = "expired-certificate"
NO_CREDENTIAL = "no-credential"
CA_UNAVAILABLE = "ca-unavailable"


class CertificateRefused(Exception):
    """No certificate. ``reason`` is one of the codes above or of :mod:`certs.csr`; the message is for the user."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
