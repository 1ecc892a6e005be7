"""``HeaderMatcher`` compiled to a predicate on a head and the normalised path.

As in Envoy 1.40, a header that comes in several lines matches when one of its lines does: no line can hide another.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.match.strings import compile_bytes
from proxy.model.config import ConfigError
from proxy.model.exchange import Head
from proxy.model.matcher import HeaderMatcher

HeaderPredicate = Callable[[Head, bytes], bool]
Values = Callable[[Head, bytes], tuple[bytes, ...]]


def compile_header(matcher: HeaderMatcher, field: str) -> HeaderPredicate:
    """A predicate on ``(head, path)``. Raises ``ConfigError`` for ``field``."""
    values = _values(matcher.name, f"{field}.name")
    if matcher.string_match is None:
        wanted = matcher.present != matcher.invert_match
        return lambda head, path: bool(values(head, path)) is wanted
    match = compile_bytes(matcher.string_match, f"{field}.string_match")
    invert = matcher.invert_match
    # A header that is not there neither matches nor, inverted, does: unless it counts as empty.
    missing = (match(b"") is not invert) if matcher.treat_missing_header_as_empty else False

    def check(head: Head, path: bytes) -> bool:
        found = values(head, path)
        if not found:
            return missing
        if len(found) == 1:
            return match(found[0]) is not invert
        return any(map(match, found)) is not invert

    return check


def _values(name: str, field: str) -> Values:
    if name == ":method":
        return lambda head, path: (head.method,)
    if name == ":path":
        # CONNECT has none.
        return lambda head, path: (path + _query(head.target),) if path else ()
    if name in (":authority", "host"):
        return lambda head, path: () if head.host is None else (head.host,)
    if not name or name.startswith(":"):
        raise ConfigError(
            field, f"{name!r} cannot be matched; of the pseudo headers :method, :path and :authority can"
        )
    key = name.lower().encode()
    return lambda head, path: head.values(key)


def _query(target: bytes) -> bytes:
    at = target.find(b"?")
    return b"" if at < 0 else target[at:]
