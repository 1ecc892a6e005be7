"""Matchers that several parts of the API share: strings, headers, query parameters, paths."""

from __future__ import annotations

from typing import Literal

from proxy.model.frozen import dataclass

StringMatchKind = Literal["exact", "prefix", "suffix", "contains", "safe_regex"]


@dataclass(frozen=True, slots=True)
class StringMatcher:
    """``type.matcher.v3.StringMatcher``; a ``safe_regex`` must match the whole string (RE2 semantics)."""

    kind: StringMatchKind
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class HeaderMatcher:
    """``config.route.v3.HeaderMatcher``. ``string_match`` ``None`` asks only for presence (``present``)."""

    name: str
    string_match: StringMatcher | None = None
    present: bool = True
    invert_match: bool = False
    treat_missing_header_as_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryParameterMatcher:
    """``config.route.v3.QueryParameterMatcher``; ``string_match`` ``None`` asks only for presence."""

    name: str
    string_match: StringMatcher | None = None


PathMatchKind = Literal["prefix", "path", "path_separated_prefix", "safe_regex", "connect_matcher"]


@dataclass(frozen=True, slots=True)
class PathMatcher:
    """The path part of ``config.route.v3.RouteMatch``; the query is not part of what is matched.

    ``connect_matcher`` (without a value) is for CONNECT requests, which have no path.
    """

    kind: PathMatchKind
    value: str
    case_sensitive: bool = True
