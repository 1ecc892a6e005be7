"""Matchers that routes, RBAC and TLS share (``type.matcher.v3``, ``config.route.v3.HeaderMatcher``)."""

from __future__ import annotations

from typing import Any

from proxy.model.config import ConfigError
from proxy.model.matcher import HeaderMatcher, QueryParameterMatcher, StringMatcher, StringMatchKind
from proxy.xds.decode.fields import UNSUPPORTED, check, forbid, known, required

_STRING = known("exact", "prefix", "suffix", "safe_regex", "contains", "ignore_case")
_REGEX = known("regex", without_effect={"google_re2": "RE2's semantics are the only ones there are"})
_HEADER = known(
    "name",
    "exact_match",
    "safe_regex_match",
    "present_match",
    "prefix_match",
    "suffix_match",
    "contains_match",
    "string_match",
    "invert_match",
    "treat_missing_header_as_empty",
)
_QUERY = known("name", "string_match", "present_match")

_LITERAL_KINDS: dict[str, StringMatchKind] = {
    "exact": "exact",
    "prefix": "prefix",
    "suffix": "suffix",
    "contains": "contains",
}


def string(message: Any, path: str) -> StringMatcher:
    """A ``StringMatcher``."""
    check(message, path, _STRING)
    kind = message.WhichOneof("match_pattern")
    if kind is None:
        raise ConfigError(path, "has no pattern: set exact, prefix, suffix, contains or safe_regex")
    if kind == "safe_regex":
        return StringMatcher("safe_regex", regex(message.safe_regex, f"{path}.safe_regex"))
    value: str = getattr(message, kind)
    forbid(not value and kind != "exact", f"{path}.{kind}", "is empty")
    return StringMatcher(_LITERAL_KINDS[kind], value, message.ignore_case)


def regex(message: Any, path: str) -> str:
    """The pattern of a ``RegexMatcher``; whether it compiles is seen when the runtime is compiled."""
    check(message, path, _REGEX)
    return required(message.regex, f"{path}.regex")


def header(message: Any, path: str) -> HeaderMatcher:
    """A ``HeaderMatcher``, also one in the deprecated spelling (``exact_match`` and its like)."""
    check(message, path, _HEADER)
    name = required(message.name, f"{path}.name")
    kind = message.WhichOneof("header_match_specifier")
    present = True
    match: StringMatcher | None = None
    if kind == "string_match":
        match = string(message.string_match, f"{path}.string_match")
    elif kind == "safe_regex_match":
        match = StringMatcher("safe_regex", regex(message.safe_regex_match, f"{path}.safe_regex_match"))
    elif kind == "present_match":
        present = message.present_match
    elif kind is not None:
        value: str = getattr(message, kind)
        forbid(not value and kind != "exact_match", f"{path}.{kind}", "is empty")
        # An empty deprecated exact_match asks only for presence; string_match.exact "" asks for emptiness.
        match = StringMatcher(_LITERAL_KINDS[kind.removesuffix("_match")], value) if value else None
    return HeaderMatcher(name, match, present, message.invert_match, message.treat_missing_header_as_empty)


def headers(messages: Any, path: str) -> tuple[HeaderMatcher, ...]:
    return tuple(header(message, f"{path}[{index}]") for index, message in enumerate(messages))


def query_parameter(message: Any, path: str) -> QueryParameterMatcher:
    """A ``QueryParameterMatcher``."""
    check(message, path, _QUERY)
    name = required(message.name, f"{path}.name")
    kind = message.WhichOneof("query_parameter_match_specifier")
    if kind == "string_match":
        return QueryParameterMatcher(name, string(message.string_match, f"{path}.string_match"))
    forbid(
        kind == "present_match" and not message.present_match, f"{path}.present_match", f"false {UNSUPPORTED}"
    )
    return QueryParameterMatcher(name)
