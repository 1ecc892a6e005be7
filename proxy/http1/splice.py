"""Cut fields out of a received head without rebuilding it: what stays is passed on byte for byte.

It knows which fields never leave a connection; it decides nothing else about headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from proxy.http1.head import NOMINATED, Head, connection_options

HOP_BY_HOP: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade"))
"""Fields that are about one connection (RFC 9110 section 7.6.1). ``te`` is looked at apart; framing is passed on."""

NEVER_NOMINATED: Final = frozenset(
    (
        b"authorization", b"content-length", b"content-type", b"cookie", b"forwarded", b"host", b"set-cookie",
        b"traceparent", b"tracestate", b"trailer", b"transfer-encoding", b"via", b"x-forwarded-client-cert",
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id",
    )
)  # fmt: skip
"""Fields that a ``connection`` option cannot make disappear: a client must not hide them from what is behind us."""

_INTERNAL_FIELD = rb"x-(?:envoy|tulle)-[!-9;-~]*+"
_cut_internal = re.compile(rb"\r\n(?i:" + _INTERNAL_FIELD + rb"):[^\r\n]*+").sub


class Strip:
    """Leaves the fields named in ``names`` (lower case) out of a head. Made when configuration changes."""

    __slots__ = ("_cut", "names")

    def __init__(self, names: Iterable[bytes]) -> None:
        self.names = frozenset(names)
        any_name = b"|".join(re.escape(name) for name in sorted(self.names)) or b"(?!)"
        self._cut = re.compile(rb"\r\n(?i:" + any_name + rb"):[^\r\n]*+").sub

    def __call__(self, head: Head) -> bytes:
        """``head.raw`` without the fields; ``head.fields_at`` is still right for it."""
        if self.names.isdisjoint(head.names):
            return head.raw
        return self._cut(b"", head.raw)

    def cut(self, raw: bytes) -> bytes:
        """The same for a block that was already cut."""
        return self._cut(b"", raw)


@lru_cache(maxsize=256)
def strip_for(names: frozenset[bytes]) -> Strip:
    """A ``Strip`` for a set that is only known per request (bounded: a client can ask for any set)."""
    return Strip(names)


def nominated(head: Head) -> frozenset[bytes]:
    """The fields that ``connection`` nominates and that may be left out."""
    return connection_options(head.names) - NEVER_NOMINATED if head.flags & NOMINATED else frozenset()


def cut_internal(raw: bytes) -> bytes:
    """``raw`` without the fields that only the mesh itself may set (``x-envoy-*``, ``x-tulle-*``)."""
    return _cut_internal(b"", raw)
