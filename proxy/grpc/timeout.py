"""``grpc-timeout``: how long the caller waits, as Envoy reads and writes it. Whole milliseconds."""

from __future__ import annotations

from typing import Final

from proxy.grpc.numbers import integer

MAX_VALUE: Final = 99999999
"""A timeout has at most 8 digits. More have overflowed where they were not looked at (CVE-2021-28682)."""

_MILLISECONDS: Final = {b"H": 3600000, b"M": 60000, b"S": 1000, b"m": 1}
_PARTS: Final = {b"u": 1000, b"n": 1000000}


def parse(value: bytes | None) -> int | None:
    """The milliseconds, rounded up; ``None`` without a timeout and for what is none (``getGrpcTimeout``)."""
    if not value:
        return None
    number = integer(value[:-1])
    if number is None or not 0 <= number <= MAX_VALUE:
        return None
    unit = value[-1:]
    factor = _MILLISECONDS.get(unit)
    if factor is not None:
        return number * factor
    part = _PARTS.get(unit)
    return None if part is None else -(-number // part)


def render(milliseconds: int) -> bytes:
    """The value for so long, in the smallest unit of Envoy's in which it has 8 digits (``toGrpcTimeout``)."""
    if milliseconds <= MAX_VALUE:
        return b"%dm" % milliseconds
    value = milliseconds // 1000
    for unit in (b"S", b"M"):
        if value <= MAX_VALUE:
            return b"%d%b" % (value, unit)
        value //= 60
    return b"%dH" % min(value, MAX_VALUE)
