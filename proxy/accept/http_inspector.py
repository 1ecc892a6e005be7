"""Whether the first bytes of a connection are HTTP, and which version (``envoy.filters.listener.http_inspector``).

Pure; the answer does not depend on how the bytes were split. It looks at the request line alone and validates no more
of it than tells HTTP from other protocols: the codec does the rest.
"""

from __future__ import annotations

import re
from typing import Final, Literal

MAX_BYTES: Final = 64 * 1024
"""The longest request line that is looked at; a longer one is no HTTP that anybody serves."""
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How an HTTP/2 connection begins (RFC 9113 section 3.4)."""

Found = Literal["http/1.0", "http/1.1", "h2c", ""]
"""The ALPN name of what was found; "" = this is not HTTP."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")
_LINE: Final = re.compile(
    rb"(?P<method>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]+(?P<target>[^ \t]+)"
    rb"(?:[ \t]+(?P<version>HTTP/[0-9]\.[0-9]))?[ \t]*\r?"
)
_TARGET: Final = re.compile(rb"[/*]|[A-Za-z][A-Za-z0-9+.\-]*://.")


class HttpInspector:
    """Is shown the growing beginning of a connection; each byte is searched once."""

    __slots__ = ("_searched",)

    def __init__(self) -> None:
        self._searched = 0

    def look(self, early: bytearray) -> Found | None:
        """What the connection is; ``None`` = more bytes are needed."""
        size = len(early)
        if early[: len(PREFACE)] == PREFACE:
            return "h2c"
        if PREFACE.startswith(early):
            return None
        end = early.find(b"\n", self._searched)
        if end < 0:
            token = _TOKEN.match(early)
            # What cannot become a method needs no more bytes: binary protocols are not kept waiting.
            if token is None or not token.end() or (token.end() < size and early[token.end()] not in b" \t"):
                return ""
            self._searched = size
            return "" if size >= MAX_BYTES else None
        line = _LINE.fullmatch(early, 0, end)
        if line is None or not (_TARGET.match(line["target"]) or line["method"] == b"CONNECT"):
            return ""
        return "http/1.1" if line["version"] == b"HTTP/1.1" else "http/1.0"
