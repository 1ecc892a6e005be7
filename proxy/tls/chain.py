"""The chain by which OpenSSL verified a peer.

``ssl`` shows it from Python 3.13 on; its C module has had it since 3.10.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Any

from certs.der import DerError, read_certificate

_ENCODING_DER = 2


def verified_chain(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """Certificates as DER, leaf first, trust anchor last; empty if none was verified in this handshake."""
    public = getattr(tls, "get_verified_chain", None)
    if public is not None:
        return tuple(bytes(der) for der in public())
    inner: Any = tls._sslobj  # type: ignore[attr-defined]
    return tuple(one.public_bytes(_ENCODING_DER) for one in inner.get_verified_chain() or ())


@lru_cache(maxsize=256)
def expiry(der: bytes) -> float:
    """A CA certificate's notAfter; 0 if it cannot be read."""
    try:
        return read_certificate(der).not_after
    except DerError:
        return 0.0
