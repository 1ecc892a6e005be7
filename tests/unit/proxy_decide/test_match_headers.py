"""``proxy.match.headers`` and ``strings``: each row of the first table as a real Envoy 1.40 answered."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.match.cidr import compile_ranges, network
from proxy.match.headers import compile_header
from proxy.match.strings import compile_bytes, compile_str
from proxy.model.address import CidrRange
from proxy.model.config import ConfigError
from proxy.model.matcher import HeaderMatcher, StringMatcher
from tests.fakes.exchange import FakeHead

REQUESTS: list[list[str]] = [[], ["1"], ["2"], ["1", "2"], ["2", "1"], ["1,2"], ["1, 2"], [""]]


def _exact(value: str, **more: Any) -> HeaderMatcher:
    return HeaderMatcher("X-A", StringMatcher("exact", value), **more)


@pytest.mark.parametrize(
    ("matcher", "answers"),
    [
        (_exact("1,2"), "-----+--"),
        (_exact("1"), "-+-++---"),
        (_exact("1", invert_match=True), "--+--+++"),
        (_exact("", treat_missing_header_as_empty=True), "+------+"),
        (HeaderMatcher("x-a", present=False), "+-------"),
        (HeaderMatcher("x-a", present=True), "-+++++++"),
        (HeaderMatcher("x-a", present=True, invert_match=True), "+-------"),
        (_exact("1", invert_match=True, treat_missing_header_as_empty=True), "+-+--+++"),
    ],
)
def test_every_line_of_a_header_counts(matcher: HeaderMatcher, answers: str) -> None:
    check = compile_header(matcher, "f")
    found = ["+" if check(FakeHead("/", *[("x-a", v) for v in lines]), b"/") else "-" for lines in REQUESTS]
    assert "".join(found) == answers


@pytest.mark.parametrize(
    ("name", "value", "matches"),
    [
        (":method", "GET", True),
        (":authority", "h", True),
        ("host", "h", True),
        ("Host", "x", False),
        (":path", "/norm?q=1", True),
        (":path", "/norm", False),
    ],
)
def test_pseudo_headers(name: str, value: str, matches: bool) -> None:
    check = compile_header(HeaderMatcher(name.lower(), StringMatcher("exact", value)), "f")
    assert check(FakeHead("/x/../norm?q=1"), b"/norm") is matches


@pytest.mark.parametrize("name", ["", ":scheme", ":status"])
def test_names_that_cannot_be_matched(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be matched") as caught:
        compile_header(HeaderMatcher(name), "f.headers[0]")
    assert caught.value.path == "f.headers[0].name"


@pytest.mark.parametrize(
    ("matcher", "yes", "no"),
    [
        (StringMatcher("exact", "aB"), "aB", "ab"),
        (StringMatcher("exact", "aB", ignore_case=True), "Ab", "abc"),
        (StringMatcher("exact", ""), "", "a"),
        (StringMatcher("prefix", "a/"), "a/b", "a"),
        (StringMatcher("prefix", "A", ignore_case=True), "abc", "bc"),
        (StringMatcher("suffix", ".x"), "y.x", "y.xx"),
        (StringMatcher("contains", "b"), "abc", "ac"),
        (StringMatcher("contains", "B", ignore_case=True), "abc", "ac"),
        (StringMatcher("safe_regex", "a+"), "aa", "aab"),
        # U+212A, the Kelvin sign, is k in Unicode's lower case: it must not be k in a name.
        (StringMatcher("exact", "k", ignore_case=True), "K", "\u212a"),
    ],
)
def test_strings(matcher: StringMatcher, yes: str, no: str) -> None:
    on_str, on_bytes = compile_str(matcher, "f"), compile_bytes(matcher, "f")
    assert (on_str(yes), on_str(no)) == (True, False)
    assert (on_bytes(yes.encode()), on_bytes(no.encode())) == (True, False)


@pytest.mark.parametrize("kind", ["prefix", "suffix", "contains"])
def test_an_empty_pattern_would_match_everything(kind: Any) -> None:
    for compiled in (compile_str, compile_bytes):
        with pytest.raises(ConfigError, match="match everything"):
            compiled(StringMatcher(kind, ""), "f")


@pytest.mark.parametrize(
    ("cidr", "inside", "outside"),
    [
        (CidrRange("10.0.0.0", 8), "10.9.8.7", "11.0.0.0"),
        (CidrRange("10.0.0.9", 8), "10.9.8.7", "11.0.0.0"),
        (CidrRange("10.0.0.0", 8), "::ffff:10.1.1.1", "::10.1.1.1"),
        (CidrRange("fd00::", 8), "fd12::1%eth0", "10.0.0.1"),
        (CidrRange("0.0.0.0", 0), "1.2.3.4", "::1"),
        (CidrRange("::1", 128), "::1", "::2"),
        (CidrRange("10.0.0.0", 8), "10.0.0.1", "nonsense"),
    ],
)
def test_ranges(cidr: CidrRange, inside: str, outside: str) -> None:
    contains = compile_ranges([network(cidr, "f")])
    assert (contains(inside), contains(outside)) == (True, False)


def test_a_range_that_is_none() -> None:
    with pytest.raises(ConfigError, match="300"):
        network(CidrRange("300.0.0.0", 8), "f")
