"""Whether a decoded header list is a well-formed message (RFC 9113 sections 8.2 and 8.3), as strictly as nghttp2.

It judges names, values, pseudo-header fields and content-length, and says how long the body is to be. It knows no
frames and no streams, and repairs nothing but what nghttp2 leaves out: content-length in a 204, or in a 2xx to CONNECT.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.http2.events import Header, Headers

_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_is_value = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
).fullmatch
_is_method = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_path = re.compile(rb"[\x21-\x7e\x80-\xff]+").fullmatch
_is_scheme = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*").fullmatch
_is_authority = re.compile(rb"[!$%&'()*+,\-.0-9:;=A-Z\[\]_a-z~]*").fullmatch
_is_status = re.compile(rb"[1-9][0-9]{2}").fullmatch
_is_length = re.compile(rb"[0-9]+").fullmatch

_MAX_LENGTH: Final = (1 << 63) - 1
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_REQUEST_PSEUDO: Final = {
    b":method": _is_method,
    b":scheme": _is_scheme,
    b":authority": _is_authority,
    b":path": _is_path,
    b":protocol": _is_value,
}


@dataclass(frozen=True, slots=True)
class Message:
    """A well-formed head, or trailers."""

    headers: Headers
    content_length: int | None = None
    """Bytes that the body must have, if the message says so."""
    method: bytes = b""
    status: int = 0


def request(headers: Sequence[Header], *, allow_connect: bool) -> Message | None:
    """A request's head; None when it is malformed. ``allow_connect``: extended CONNECT (RFC 8441) was offered."""
    pseudo: dict[bytes, bytes] = {}
    length: int | None = None
    host: bytes | None = None
    regular = False
    for name, value in headers:
        if name.startswith(b":"):
            check = _REQUEST_PSEUDO.get(name)
            # A pseudo-header field follows no other, comes once and is not empty (section 8.3).
            if regular or check is None or name in pseudo or not value or check(value) is None:
                return None
            pseudo[name] = value
            continue
        regular = True
        if not _regular(name, value):
            return None
        if name == b"content-length":
            if length is not None:
                return None
            length = _length(value)
            if length is None:
                return None
        elif name == b"host":
            if host is not None or not value or _is_authority(value) is None:
                return None
            host = value
    method = pseudo.get(b":method", b"")
    if method == b"CONNECT" and b":protocol" not in pseudo:
        if b":scheme" in pseudo or b":path" in pseudo or b":authority" not in pseudo:
            return None
        length = None
    elif not _complete(pseudo, host, allow_connect):
        return None
    return Message(tuple(headers), length, method)


def _complete(pseudo: dict[bytes, bytes], host: bytes | None, allow_connect: bool) -> bool:
    """Section 8.3.1, and RFC 8441 section 4, for all but an ordinary CONNECT."""
    if not {b":method", b":scheme", b":path"} <= pseudo.keys():
        return False
    if b":authority" not in pseudo and host is None:
        return False
    if b":protocol" in pseudo and not (
        allow_connect and pseudo[b":method"] == b"CONNECT" and b":authority" in pseudo
    ):
        return False
    path = pseudo[b":path"]
    return (
        pseudo[b":scheme"].lower() not in (b"http", b"https")
        or path.startswith(b"/")
        or (path == b"*" and pseudo[b":method"] == b"OPTIONS")
    )


def response(headers: Sequence[Header], *, method: bytes) -> Message | None:
    """A response's head, final or informational, to a request of ``method``; None when it is malformed."""
    status = 0
    length: int | None = None
    regular = False
    kept: list[Header] = []
    for header in headers:
        name, value = header
        if name.startswith(b":"):
            if regular or name != b":status" or status or _is_status(value) is None or value == b"101":
                return None
            status = int(value)
            kept.append(header)
            continue
        regular = True
        if name == b"content-length" and 200 <= status < 300 and status != 204 and method == b"CONNECT":
            # It means nothing there (RFC 9110 section 9.3.6), whatever it says.
            continue
        if not _regular(name, value):
            return None
        if name == b"content-length":
            if status == 204:
                # RFC 9110 section 8.6 forbids it; common servers send zero.
                if length is not None or value != b"0":
                    return None
                length = 0
                continue
            if status < 200:
                return None
            if length is not None:
                return None
            length = _length(value)
            if length is None:
                return None
        kept.append(header)
    if not status:
        return None
    if status >= 200:
        if method == b"HEAD" or status in (204, 304):
            length = 0
        elif method == b"CONNECT":
            length = None
    return Message(tuple(kept), length, method, status)


def trailers(headers: Sequence[Header]) -> Message | None:
    """A trailer section; None when it is malformed. Its content-length, if any, counts as the head's."""
    length: int | None = None
    for name, value in headers:
        if name.startswith(b":") or not _regular(name, value):
            return None
        if name == b"content-length":
            if length is not None:
                return None
            length = _length(value)
            if length is None:
                return None
    return Message(tuple(headers), length)


def _regular(name: bytes, value: bytes) -> bool:
    """Sections 8.2.1 and 8.2.2."""
    if _is_name(name) is None or _is_value(value) is None or name in _CONNECTION_SPECIFIC:
        return False
    return name != b"te" or value.lower() == b"trailers"


def _length(value: bytes) -> int | None:
    if _is_length(value) is None or len(value) > 4096:
        return None
    length = int(value)
    return length if length <= _MAX_LENGTH else None
