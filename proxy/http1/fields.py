"""Bits that say what a head has: ``flags`` for what its fields mean, ``present`` for fields that the proxy may own.

Whether a head can be passed on as one block is then one comparison of bits. Constants only.
"""

from __future__ import annotations

from typing import Final

# Flags.
CHUNKED: Final = 1
"""``transfer-encoding: chunked``."""
CLOSE: Final = 2
"""``connection`` has the option ``close``."""
KEEP_ALIVE: Final = 4
"""``connection`` has the option ``keep-alive``."""
UPGRADE: Final = 8
"""``connection`` has the option ``upgrade`` and there is an ``upgrade`` header."""
EXPECT: Final = 16
"""There is an ``expect`` header."""
INTERNAL: Final = 32
"""There is a header whose name begins with ``x-envoy-`` or ``x-tulle-``."""
NOMINATED: Final = 64
"""``connection`` names other headers: see ``connection_options``."""
PLAIN: Final = 128
"""A common method, a path that no normalisation changes, and a host: nothing is left to find out about the target."""

COMMON_METHODS: Final = (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS")
PATH_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~!$&'()*+,;=:@.[]"
"""Those that ``PLAIN`` lets be in a path, beside the slash."""
HOST_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+;=:%[]"
"""Those that can be in an authority (RFC 3986 section 3.2)."""

# Fields.
HAS_HOST: Final = 1
HAS_HOP_BY_HOP: Final = 2
"""``connection``, ``keep-alive``, ``proxy-connection``, ``upgrade``: about one connection (RFC 9110 section 7.6.1)."""
HAS_TE: Final = 4
HAS_EXPECT: Final = 8
HAS_FRAMING: Final = 16
"""``transfer-encoding`` or ``trailer``."""
HAS_REQUEST_ID: Final = 32
HAS_FORWARDED_FOR: Final = 64
HAS_FORWARDED_PROTO: Final = 128
HAS_CLIENT_CERT: Final = 256
"""``x-forwarded-client-cert``."""
HAS_SERVER: Final = 512
HAS_DATE: Final = 1024
HAS_SERVICE_TIME: Final = 2048
"""``x-envoy-upstream-service-time``."""
HAS_INTERNAL: Final = 4096
"""Any other ``x-envoy-*`` or ``x-tulle-*``."""
HAS_LENGTH: Final = 8192

KNOWN: Final = {
    b"host": HAS_HOST,
    b"connection": HAS_HOP_BY_HOP,
    b"keep-alive": HAS_HOP_BY_HOP,
    b"proxy-connection": HAS_HOP_BY_HOP,
    b"upgrade": HAS_HOP_BY_HOP,
    b"te": HAS_TE,
    b"expect": HAS_EXPECT,
    b"transfer-encoding": HAS_FRAMING,
    b"trailer": HAS_FRAMING,
    b"x-request-id": HAS_REQUEST_ID,
    b"x-forwarded-for": HAS_FORWARDED_FOR,
    b"x-forwarded-proto": HAS_FORWARDED_PROTO,
    b"x-forwarded-client-cert": HAS_CLIENT_CERT,
    b"server": HAS_SERVER,
    b"date": HAS_DATE,
    b"x-envoy-upstream-service-time": HAS_SERVICE_TIME,
    b"content-length": HAS_LENGTH,
}
"""The bit of each field that has one by its whole name (lower case)."""
INTERNAL_PREFIXES: Final = (b"x-envoy-", b"x-tulle-")
