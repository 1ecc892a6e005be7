"""``%START_TIME(format)%``: C's ``strftime`` in UTC with Envoy's additions for parts of a second."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from proxy.model.config import ConfigError

_SUBSECOND = re.compile(r"%([1-9]?)f")
_KNOWN = re.compile(r"%(?:[aAbBcCdDeFgGhHIjmMnprRsStTuUVwWxXyYzZ%]|[1-9]?f)")


def compile_time(pattern: str, field: str) -> Callable[[float], str]:
    """A function from Unix time to text. ``%s`` is seconds, ``%f`` nanoseconds, ``%3f`` milliseconds of the second.

    "" is Envoy's default, ``2024-01-31T12:00:00.000Z``. Raises ``ConfigError`` for unknown specifiers.
    """
    pattern = pattern or "%Y-%m-%dT%H:%M:%S.%3fZ"
    unknown = re.search("%.?", _KNOWN.sub("", pattern))
    if unknown:
        raise ConfigError(field, f"START_TIME: unknown time specifier {unknown[0]!r}")
    parts = _SUBSECOND.split(pattern)
    texts, digits = parts[0::2], [int(d or 9) for d in parts[1::2]]
    milliseconds_alone = digits == [3]
    cached_second = cached_millisecond = -1
    cached: list[str] = []
    shown = ""

    def whole_second(second: int) -> list[str]:
        utc = time.gmtime(second)
        return [_strftime(text, utc, second) for text in texts]

    def render(at: float) -> str:
        nonlocal cached_second, cached_millisecond, cached, shown
        if milliseconds_alone:
            # Under load many lines begin in the same millisecond.
            millisecond = int(at * 1000.0)
            if millisecond != cached_millisecond:
                second, rest = divmod(millisecond, 1000)
                if second != cached_second:
                    cached, cached_second = whole_second(second), second
                cached_millisecond, shown = millisecond, f"{cached[0]}{rest:03d}{cached[1]}"
            return shown
        second = int(at)
        if second != cached_second:
            cached, cached_second = whole_second(second), second
        if not digits:
            return cached[0]
        micros = int((at - second) * 1_000_000)
        out = cached[0]
        for text, n in zip(cached[1:], digits, strict=True):
            out += _fraction(micros, n) + text
        return out

    return render


def _fraction(micros: int, digits: int) -> str:
    return f"{micros:06d}000"[:digits]


def _strftime(text: str, utc: time.struct_time, second: int) -> str:
    # Python's own %s and %z would read the local time zone.
    text = re.sub(r"%([sz%])", lambda m: {"s": str(second), "z": "+0000", "%": "%%"}[m[1]], text)
    return time.strftime(text, utc)
