"""Path normalisation: the one form of a request target that is matched, judged and forwarded.

Envoy's ``normalize_path``, ``merge_slashes`` and ``path_with_escaped_slashes_action``, in Envoy's order: unescape
slashes, normalise (RFC 3986 section 6, backslash as slash), merge slashes. The query is never touched. On a target
that ``proxy.http1.fields.PLAIN`` is said of, none of it does anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.model.listener import SlashesAction
from proxy.model.reply import Reply

Normalize = Callable[[bytes], bytes | Reply]

_REFUSED = Reply(400, details="path_normalization_failed")
_ESCAPED_SLASH = re.compile(rb"%(2[Ff]|5[Cc])")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NEW_ESCAPE = re.compile(rb"\x00(?=[0-9A-Fa-f]{2})")
_UNSAFE = re.compile(rb'[\x00-\x20"<>^`{|}\x7f-\xff]')
_SLASHES = re.compile(rb"//+")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def compile_normalize(
    *, normalize_path: bool, merge_slashes: bool, escaped_slashes: SlashesAction = "KEEP_UNCHANGED"
) -> Normalize:
    """A function from an origin-form target to the target to use, or to the reply that refuses or redirects it."""

    def normalize(target: bytes) -> bytes | Reply:
        if b"#" in target:
            return _REFUSED
        path, mark, query = target.partition(b"?")
        redirect = False
        if escaped_slashes != "KEEP_UNCHANGED" and _ESCAPED_SLASH.search(path):
            if escaped_slashes == "REJECT_REQUEST":
                return _REFUSED
            redirect = escaped_slashes == "UNESCAPE_AND_REDIRECT"
            path = _ESCAPED_SLASH.sub(_unescape_slash, path)
        if normalize_path:
            canonical = canonical_path(path)
            if canonical is None:
                return _REFUSED
            path = canonical
        if merge_slashes:
            path = _SLASHES.sub(b"/", path)
        target = path + mark + query
        if redirect:
            return Reply(307, headers=b"location: " + target + b"\r\n", details="path_normalization_failed")
        return target

    return normalize


def canonical_path(path: bytes) -> bytes | None:
    """The path with unreserved characters unescaped, unsafe ones escaped, backslashes as slashes, no dot segments.

    A dot segment may have parameters (``..;x``): servers behind us drop those. ``None``: it holds an escaped NUL.
    """
    if b"%00" in path or b"\0" in path:
        return None
    if _STRAY_PERCENT.search(path):
        # "%a%41" must not become "%aA", which whoever is behind us would unescape once more.
        path = _ESCAPE.sub(_unescape, _STRAY_PERCENT.sub(b"\0", path))
        path = _NEW_ESCAPE.sub(b"%25", path).replace(b"\0", b"%")
    else:
        path = _ESCAPE.sub(_unescape, path)
    path = _UNSAFE.sub(_escape, path.replace(b"\\", b"/"))
    if b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")
    last = len(segments) - 1
    for n, segment in enumerate(segments):
        name = segment.partition(b";")[0] if segment[:1] == b"." else segment
        if name == b".." or name == b".":
            if name == b".." and len(kept) > 1:
                kept.pop()
            if n == last:
                kept.append(b"")
        else:
            kept.append(segment)
    return b"/".join(kept)


def _unescape_slash(match: re.Match[bytes]) -> bytes:
    return b"/" if match[1][:1] == b"2" else b"\\"


def _unescape(match: re.Match[bytes]) -> bytes:
    byte = int(match[1], 16)
    return bytes((byte,)) if byte in _UNRESERVED else match[0]


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]
