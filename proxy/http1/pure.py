"""The HTTP/1.1 head scanner in Python: bytes to ``Head``, strictly (RFC 9112), with possessive regular expressions.

It decides nothing about policy and changes no byte: what is forwarded is the received block, with fields cut out and
lines appended. A message that two parsers could read differently is refused here, so that nobody behind the proxy sees
another message than the one that was judged. ``_scan`` reads the plain ones faster, and reads them the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol, TypedDict

from proxy.http1.errors import ProtocolError
from proxy.http1.fields import (
    CHUNKED,
    CLOSE,
    COMMON_METHODS,
    EXPECT,
    HAS_INTERNAL,
    HOST_CHARACTERS,
    INTERNAL,
    INTERNAL_PREFIXES,
    KEEP_ALIVE,
    KNOWN,
    NOMINATED,
    PATH_CHARACTERS,
    PLAIN,
    UPGRADE,
)
from proxy.http1.splice import connection_options, strip_bits, strip_for


class _Refusal(TypedDict, total=False):
    details: str
    status: int


MAX_HEAD_BYTES: Final = 60 * 1024
MAX_FIELDS: Final = 100

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_FIELDS = rb"((?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+)\r\n"
_REQUEST_LINE = rb"(" + _TOKEN + rb") ([!-~]++) HTTP/1\.([01])\r\n"
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + _VALUE + rb")?\r\n"
_match_request = re.compile(_REQUEST_LINE + _FIELDS).match
_match_response = re.compile(_STATUS_LINE + _FIELDS).match
_match_request_line = re.compile(_REQUEST_LINE).match
_match_status_line = re.compile(_STATUS_LINE).match
_find_fields = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n").findall
_match_field = re.compile(_TOKEN + rb":" + _VALUE + rb"\Z").match
# No dot at the start of a segment, no empty segment but the last, nothing that is or must be escaped. No possessive
# quantifiers: fullmatch is wrong with nested ones before Python 3.11.4, and without a slash in the class there is
# nothing to backtrack into.
_PATH_CLASS = b"[" + re.escape(PATH_CHARACTERS) + b"]"
is_plain_target = re.compile(rb"(?:/(?![.])" + _PATH_CLASS + rb"+)+/?(?:\?[^#]*)?|/(?:\?[^#]*)?").fullmatch
is_host = re.compile(b"[" + re.escape(HOST_CHARACTERS) + b"]*+").fullmatch
_trailing_blank = re.compile(rb"[ \t]++(?=\r\n)").sub
# What Envoy answers with 426: a version that is none of ours, or none at all.
_match_other_version = re.compile(
    rb"(?!PRI )" + _TOKEN + rb" [!-~]++(?: (?:HTTP/(?!1\.[01])[0-9]\.[0-9])?)?\r\n"
).match
_find_illegal = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n)").search

_COMMON = frozenset(COMMON_METHODS)
_SINGLE = frozenset((b"content-length", b"host", b"transfer-encoding"))
_REPEATED: Final[Mapping[bytes, _Refusal]] = {
    b"transfer-encoding": {"details": "http1.invalid_transfer_encoding", "status": 501}
}


_LINE_ENDS = (b"\r", b"\n")


class _Matcher(Protocol):
    def __call__(self, string: bytes, pos: int = ..., /) -> re.Match[bytes] | None: ...


class Head:
    """One parsed head.

    ``flags`` and ``present`` are bits of ``proxy.http1.fields``. ``names`` maps lower-case names to values without
    surrounding blanks; several lines of one name are joined with ``b", "``. ``raw`` is the block as received, from the
    first line to the CRLF of the last field (without the empty line); its first field begins at ``fields_at``.
    ``repeated``: some name came in several lines. ``end`` is where the body begins in the scanned data. ``length`` is
    the Content-Length, -1 without one. ``minor`` is the minor HTTP version, 0 or 1. A request has ``status`` 0, a
    response empty ``method`` and ``target``. ``added`` are fields that ``get`` and ``values`` give beside the received
    ones; who sets it or changes ``names`` has to see to ``emit``, which knows only the block.
    """

    __slots__ = (
        "added",
        "end",
        "fields_at",
        "flags",
        "host",
        "length",
        "method",
        "minor",
        "names",
        "present",
        "raw",
        "repeated",
        "status",
        "target",
    )

    added: dict[bytes, bytes] | None
    method: bytes
    target: bytes
    status: int
    minor: int
    flags: int
    present: int
    length: int
    end: int
    fields_at: int
    host: bytes | None
    names: dict[bytes, bytes]
    raw: bytes
    repeated: bool

    def get(self, name: bytes, /) -> bytes | None:
        """The value of ``name`` (lower case), ``None`` if the head has no such field."""
        value = self.names.get(name)
        if value is None and self.added is not None:
            return self.added.get(name)
        return value

    def values(self, name: bytes, /) -> tuple[bytes, ...]:
        """The values of ``name`` (lower case) line by line, which a joined value does not tell apart from one line."""
        joined = self.get(name)
        if joined is None:
            return ()
        if not self.repeated:
            return (joined,)
        lines = tuple(
            value for field, value in _find_fields(self.raw[self.fields_at :]) if field.lower() == name
        )
        # Otherwise it is not what was received: the proxy says something else for it.
        return lines if separator(name).join(lines) == joined else (joined,)

    def set_host(self, host: bytes) -> None:
        """Replace what the ``host`` field says; the block stays as it is."""
        self.host = self.names[b"host"] = host

    def emit(
        self, first: bytes | None, strip: int, extra: bytes, also: frozenset[bytes] = frozenset(), /
    ) -> bytes:
        """The head to send: the first line (``first``, its CRLF included, or the received one), the received fields
        without those of the bits ``strip`` and those named in ``also`` (lower case), then the ready lines ``extra`` and
        the empty line."""
        raw = self.raw
        if self.present & strip:
            raw = strip_bits(strip).cut(raw)
        if also:
            raw = strip_for(also).cut(raw)
        if first is None:
            return b"%b%b\r\n" % (raw, extra)
        return b"%b%b%b\r\n" % (first, raw[self.fields_at :], extra)


def scan_request(
    data: bytes,
    start: int = 0,
    *,
    seen: int = 0,
    max_bytes: int = MAX_HEAD_BYTES,
    max_fields: int = MAX_FIELDS,
) -> Head | None:
    """The request head at ``start``; ``None`` if ``data`` ends before the head does.

    ``seen``: how much of ``data`` an earlier call has already been shown, so that a head which comes byte by byte costs
    linear time. Raises ``ProtocolError``, as early as what is there can no longer become a head.
    """
    match = None if seen and data.find(b"\r\n\r\n", max(start, seen - 3)) < 0 else _match_request(data, start)
    if match is None:
        return _unmatched_request(data, start, seen, max_bytes, max_fields)
    head = Head()
    head.added = None
    head.method, head.target, minor, fields = match.groups()
    head.status = 0
    end = match.end()
    head.raw = data[start : end - 2]
    head.fields_at = match.start(4) - start
    head.end = end
    if end - start > max_bytes:
        raise _too_large(max_bytes)
    if minor == b"1":
        head.minor = 1
        _read_fields(head, fields, max_fields)
    else:
        head.minor = 0
        _read_fields(head, fields, max_fields)
        if head.flags & CHUNKED:
            # RFC 9112 section 6.1: the framing of such a message is faulty.
            raise ProtocolError(
                "transfer-encoding in an HTTP/1.0 request", details="http1.transfer_encoding_not_allowed"
            )
    head.host = host = head.names.get(b"host")
    if host is not None and head.method in _COMMON and is_plain_target(head.target) and is_host(host):
        head.flags |= PLAIN
    return head


def scan_response(
    data: bytes,
    start: int = 0,
    *,
    seen: int = 0,
    max_bytes: int = MAX_HEAD_BYTES,
    max_fields: int = MAX_FIELDS,
) -> Head | None:
    """The response head at ``start``; see ``scan_request``."""
    match = (
        None if seen and data.find(b"\r\n\r\n", max(start, seen - 3)) < 0 else _match_response(data, start)
    )
    if match is None:
        _refuse(data, start, seen, max_bytes, _match_status_line, b"HTTP/1.1 200", "status line")
        return None
    head = Head()
    head.added = None
    head.method = head.target = b""
    minor, status, fields = match.groups()
    head.status = int(status)
    head.minor = 1 if minor == b"1" else 0
    end = match.end()
    head.raw = data[start : end - 2]
    head.fields_at = match.start(3) - start
    head.end = end
    if end - start > max_bytes:
        raise _too_large(max_bytes)
    _read_fields(head, fields, max_fields)
    head.host = None
    return head


def _read_fields(head: Head, fields: bytes, max_fields: int) -> None:
    """Fill ``names``, ``flags`` and ``length``; refuse ambiguous framing."""
    if b" \r\n" in fields or b"\t\r\n" in fields:
        fields = _trailing_blank(b"", fields)
        head.raw = head.raw[: head.fields_at] + fields
    found = _find_fields(fields)
    names = {name.lower(): value for name, value in found}
    head.repeated = len(names) != len(found)
    if head.repeated:
        _join(names, found)
    if len(found) > max_fields:
        raise ProtocolError(
            f"{len(found)} header fields, the limit is {max_fields}",
            details="http1.too_many_headers",
            status=431,
        )
    head.names = names
    flags = 0
    length = -1
    value = names.get(b"content-length")
    if value is not None:
        if b"transfer-encoding" not in names and (not value.isdigit() or len(value) > 18):
            raise ProtocolError("content-length is not a number of at most 18 digits")
        length = int(value) if value.isdigit() else 0
    value = names.get(b"transfer-encoding")
    if value is not None:
        if length >= 0:
            raise ProtocolError(
                "both content-length and transfer-encoding",
                details="http1.content_length_and_chunked_not_allowed",
            )
        if value.lower() != b"chunked":
            raise ProtocolError(
                "a transfer-encoding other than chunked",
                details="http1.invalid_transfer_encoding",
                status=501,
            )
        flags = CHUNKED
    value = names.get(b"connection")
    if value is not None:
        flags |= _connection_flags(value, names)
    if b"expect" in names:
        flags |= EXPECT
    present = 0
    for name in names:
        bit = KNOWN.get(name)
        if bit is not None:
            present |= bit
        elif name[:8] in INTERNAL_PREFIXES:
            present |= HAS_INTERNAL
            flags |= INTERNAL
    head.present = present
    head.length = length
    head.flags = flags


def _join(names: dict[bytes, bytes], found: list[tuple[bytes, bytes]]) -> None:
    """Make ``names`` hold all values of repeated fields. Raises ``ProtocolError`` for those that must be single."""
    names.clear()
    for name, value in found:
        name = name.lower()
        before = names.get(name)
        if before is None:
            names[name] = value
        elif name in _SINGLE:
            raise ProtocolError(f"more than one {name.decode()} field", **_REPEATED.get(name, {}))
        else:
            names[name] = before + separator(name) + value


def separator(name: bytes) -> bytes:
    """RFC 9110 section 5.3; RFC 6265 section 5.4 for cookies, which have one of their own."""
    return b"; " if name == b"cookie" else b", "


def _connection_flags(value: bytes, names: Mapping[bytes, bytes]) -> int:
    value = value.lower()
    if value == b"keep-alive":
        return KEEP_ALIVE
    if value == b"close":
        return CLOSE
    flags = 0
    for option in connection_options(value):
        if option == b"close":
            flags |= CLOSE
        elif option == b"keep-alive":
            flags |= KEEP_ALIVE
        elif option == b"upgrade":
            if b"upgrade" in names:
                flags |= UPGRADE
        else:
            flags |= NOMINATED
    return flags


def _unmatched_request(data: bytes, start: int, seen: int, max_bytes: int, max_fields: int) -> Head | None:
    if data.startswith(b"\r\n", start):
        # RFC 9112 section 2.2: one empty line before the request line is to be ignored.
        if data.startswith(b"\r\n", start + 2):
            raise ProtocolError("more than one empty line before the request line")
        if len(data) == start + 2:
            return None
        return scan_request(data, start + 2, seen=seen, max_bytes=max_bytes, max_fields=max_fields)
    if len(data) == start + 1 and data[start] == 0x0D:
        return None
    _refuse(data, start, seen, max_bytes, _match_request_line, b"", "request line")
    return None


def _refuse(
    data: bytes, start: int, seen: int, max_bytes: int, match_line: _Matcher, first_line: bytes, what: str
) -> None:
    """Raise ``ProtocolError`` if ``data`` cannot become a head; return if it may, given more bytes.

    What is wrong first counts, so that the reason does not depend on how the bytes come. Only fields are judged when
    all of the head is there.
    """
    end = data.find(b"\r\n\r\n", max(start, seen - 3))
    stop = len(data) if end < 0 else end + 4
    limit = start + max_bytes
    illegal = _find_illegal(data, max(start, seen - 1), min(stop, limit))
    if illegal is not None and illegal.group() == b"\r" and illegal.end() == min(len(data), limit):
        illegal = None  # The LF may follow.
    bad_from = stop if illegal is None else illegal.start()
    _judge_start(data, start, bad_from, first_line, what)
    line_end = data.find(b"\r\n", start, min(bad_from, limit))
    if line_end >= 0 and line_end + 2 > seen and match_line(data, start) is None:
        if not first_line and _match_other_version(data, start):
            raise ProtocolError("neither HTTP/1.1 nor HTTP/1.0", details="low_version", status=426)
        raise ProtocolError(f"bad {what}")
    if illegal is not None:
        raise ProtocolError(
            f"byte 0x{illegal.group()[0]:02x} in the head, or a line that does not end in CRLF",
            # As in Envoy, which looks at the characters of a head only when it has begun like one.
            details="http1.codec_error"
            if illegal.group() in _LINE_ENDS or illegal.start() == start
            else "http1.invalid_characters",
        )
    if stop > limit:
        raise _too_large(max_bytes)
    if end >= 0:
        for line in data[line_end + 2 : end].split(b"\r\n"):
            if _match_field(line) is None:
                raise ProtocolError("bad header field: a name, a colon, a value")
        raise ProtocolError(f"bad {what}")


def _judge_start(data: bytes, start: int, stop: int, first_line: bytes, what: str) -> None:
    """Judge the first bytes, up to ``stop``, of a first line that need not have ended yet."""
    if first_line:
        if data[start : min(start + 7, stop)] != first_line[: min(7, stop - start)]:
            raise ProtocolError(f"bad {what}")
        return
    method = data[start : min(start + 32, stop)].split(b" ", 1)[0]
    if method and _match_field(method + b":") is None:
        raise ProtocolError(f"bad {what}")


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError(
        f"the head is larger than {limit} bytes", details="http1.headers_too_large", status=431
    )
