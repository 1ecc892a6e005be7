"""Cut fields out of a received head without rebuilding it: what stays is passed on byte for byte.

It knows which fields a client cannot make disappear; it decides nothing else about headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol

from proxy.http1.errors import ProtocolError
from proxy.http1.fields import HAS_INTERNAL, INTERNAL_PREFIXES, KNOWN, NOMINATED

NEVER_NOMINATED: Final = frozenset(
    (
        b"authorization", b"connection", b"content-length", b"content-type", b"cookie", b"forwarded", b"host",
        b"set-cookie", b"te", b"traceparent", b"tracestate", b"trailer", b"transfer-encoding", b"via",
        b"x-forwarded-client-cert", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id",
    )
)  # fmt: skip
"""Fields that a ``connection`` option cannot make disappear: a client must not hide them from what is behind us.
``connection`` itself is never passed on, but what it nominates is looked up in it to the end. ``te`` has to be
nominated (RFC 9110 section 10.1.4), and what of it may pass is decided by its value."""

MAX_NOMINATED: Final = 9
"""Options of ``connection``, as in Envoy."""
_REFUSED: Final = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))

_UPGRADE: Final = frozenset((b"upgrade",))
_INTERNAL_FIELD: Final = rb"(?:" + b"|".join(INTERNAL_PREFIXES) + rb")[!-9;-~]*+"


class _Flagged(Protocol):
    @property
    def flags(self) -> int: ...
    def get(self, name: bytes, /) -> bytes | None: ...


class _Named(_Flagged, Protocol):
    @property
    def names(self) -> dict[bytes, bytes]: ...


class Strip:
    """Leaves the fields named in ``names`` (lower case) out of a head. Made when configuration changes."""

    __slots__ = ("_cut", "names")

    def __init__(self, names: Iterable[bytes], pattern: bytes = b"") -> None:
        """``pattern``: a regular expression of further names."""
        self.names = frozenset(names)
        either = [re.escape(name) for name in sorted(self.names)] + ([pattern] if pattern else [])
        self._cut = re.compile(rb"\r\n(?i:" + (b"|".join(either) or b"(?!)") + rb"):[^\r\n]*+").sub

    def cut(self, raw: bytes) -> bytes:
        """``raw``, whose lines end in CRLF, without those fields; its first line stays as it is."""
        return self._cut(b"", raw)


@lru_cache(maxsize=256)
def strip_for(names: frozenset[bytes]) -> Strip:
    """A ``Strip`` for a set that is only known per request (bounded: a client can ask for any set)."""
    return Strip(names)


@lru_cache(maxsize=256)
def strip_bits(bits: int) -> Strip:
    """A ``Strip`` for the fields of ``HAS_…`` bits."""
    return Strip(
        (name for name, bit in KNOWN.items() if bit & bits),
        rb"(?!x-envoy-upstream-service-time:)" + _INTERNAL_FIELD if bits & HAS_INTERNAL else b"",
    )


def connection_options(value: bytes) -> frozenset[bytes]:
    """The options of a ``connection`` field, lower case (RFC 9110 section 7.6.1)."""
    return frozenset(option.strip() for option in value.lower().split(b",") if option.strip())


def nominated(head: _Flagged) -> frozenset[bytes]:
    """The fields that ``connection`` nominates and that may be left out."""
    if not head.flags & NOMINATED:
        return frozenset()
    return connection_options(head.get(b"connection") or b"") - NEVER_NOMINATED


def forget_nominated(head: _Named) -> None:
    """Have a request's head not say what its ``connection`` nominates: what is not passed on, routes and policy must
    not see either. ``upgrade`` is looked at on its own.

    Raises ``ProtocolError`` if it nominates what it never may, or too much, as Envoy does.
    """
    value = head.get(b"connection") or b""
    options = connection_options(value)
    count = sum(1 for option in value.split(b",") if option.strip())
    if count > MAX_NOMINATED or any(option[:1] == b":" or option in _REFUSED for option in options):
        raise ProtocolError(
            "connection nominates what it must not", details="http1.connection_header_rejected"
        )
    for name in options - NEVER_NOMINATED - _UPGRADE:
        head.names.pop(name, None)
