"""Dates as HTTP writes them. The standard library's way to this costs half a megabyte of modules."""

from __future__ import annotations

import time
from typing import Final

_DAYS: Final = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS: Final = (
    *(b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun"),
    *(b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"),
)


def http_date(at: int) -> bytes:
    """The IMF-fixdate of a Unix time (RFC 9110 section 5.6.7), whatever the locale."""
    utc = time.gmtime(at)
    day, month = _DAYS[utc.tm_wday], _MONTHS[utc.tm_mon - 1]
    clock = (utc.tm_hour, utc.tm_min, utc.tm_sec)
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (day, utc.tm_mday, month, utc.tm_year, *clock)
