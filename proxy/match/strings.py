"""``StringMatcher`` compiled to a predicate, for ``bytes`` (headers, paths) and ``str`` (principals, server names)."""

from __future__ import annotations

from collections.abc import Callable

from proxy.match.regex import BytesPredicate, compile_regex
from proxy.model.config import ConfigError
from proxy.model.matcher import StringMatcher

StrPredicate = Callable[[str], bool]


def compile_bytes(matcher: StringMatcher, field: str) -> BytesPredicate:
    """A predicate on ``bytes``. Raises ``ConfigError`` for ``field`` if it would be meaningless or costly."""
    if matcher.kind == "safe_regex":
        return compile_regex(matcher.value, f"{field}.safe_regex")
    value = _value(matcher, field).encode()
    if matcher.ignore_case:
        folded = _bytes_predicate(matcher.kind, value.lower())
        return lambda subject: folded(subject.lower())
    return _bytes_predicate(matcher.kind, value)


def compile_str(matcher: StringMatcher, field: str) -> StrPredicate:
    """The same on ``str``; a regular expression sees the UTF-8 bytes."""
    if matcher.kind == "safe_regex":
        match = compile_regex(matcher.value, f"{field}.safe_regex")
        return lambda subject: match(subject.encode())
    value = _value(matcher, field)
    if matcher.ignore_case:
        folded = _str_predicate(matcher.kind, _fold(value))
        return lambda subject: folded(_fold(subject))
    return _str_predicate(matcher.kind, value)


def _value(matcher: StringMatcher, field: str) -> str:
    if not matcher.value and matcher.kind != "exact":
        raise ConfigError(f"{field}.{matcher.kind}", "must not be empty: it would match everything")
    return matcher.value


def _fold(text: str) -> str:
    """Lower case of A-Z alone, as Envoy does: no other letter may come to equal an ASCII one (K, the Kelvin sign)."""
    return text.lower() if text.isascii() else "".join(c.lower() if c.isascii() else c for c in text)


def _bytes_predicate(kind: str, value: bytes) -> BytesPredicate:
    if kind == "exact":
        return value.__eq__
    if kind == "prefix":
        return lambda subject: subject.startswith(value)
    if kind == "suffix":
        return lambda subject: subject.endswith(value)
    return lambda subject: value in subject


def _str_predicate(kind: str, value: str) -> StrPredicate:
    if kind == "exact":
        return value.__eq__
    if kind == "prefix":
        return lambda subject: subject.startswith(value)
    if kind == "suffix":
        return lambda subject: subject.endswith(value)
    return lambda subject: value in subject
