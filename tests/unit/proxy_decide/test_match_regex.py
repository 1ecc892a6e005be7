"""``proxy.match.regex`` and ``automaton``: RE2's whole-string semantics in linear time."""

from __future__ import annotations

import re
import time
from re import _parser  # type: ignore[attr-defined]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.match.automaton import Automaton
from proxy.match.regex import compile_regex
from proxy.model.config import ConfigError


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        (r"/r[0-9]+", b"/r12", True),
        (r"/r[0-9]+", b"/r12x", False),
        (r"a|ab", b"ab", True),
        (r".*", b"", True),
        (r"^/a$", b"/a", True),
        (r"(?i)/A.*", b"/abc", True),
        (r"/users/[^/]+/posts(/.*)?", b"/users/7/posts/9", True),
        (r"/users/[^/]+/posts(/.*)?", b"/users/7/8/posts", False),
        (r"(a+)+b", b"aaab", True),
        (r"(x|y)*?z{2,3}", b"xyxzz", True),
        (r"(x|y)*?z{2,3}", b"xyxz", False),
        (r"[^\d]*\.[\w-]*(?:com|net)", b"a.b-c_net", True),
        (r"(?:^a|b)*$", b"abb", True),
        (r"(?:^a|b)*$", b"ba", False),
    ],
)
def test_whole_string_match(pattern: str, subject: bytes, matches: bool) -> None:
    assert compile_regex(pattern, "f")(subject) is matches


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(?=a)b", "look-ahead"),
        (r"(?<!a)b", "look-ahead and look-behind"),
        (r"(a)\1", "back references"),
        (r"(?P<x>a)(?P=x)", "back references"),
        (r"(?>a)", "atomic"),
        (r"a++", "possessive"),
        (r"(a", "not a regular expression"),
        (r"\pL", "not a regular expression"),
        (r"[[:alpha:]]", "POSIX"),
        (r"ä", "ASCII"),
        (r"(x*)*\b(y*)*", "beside several"),
        (r"(a{0,1000}){0,1000}", "states"),
        ("a" * 5000, "limit"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_field(pattern: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        compile_regex(pattern, "route.match.safe_regex.regex")
    assert caught.value.path == "route.match.safe_regex.regex"


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+$", r"(a|aa)*b", r".*a.*a.*a.*ab", r"(a?){30}a{30}b", r"(a*)*b", r"([a-z]+)*\d", r"a*a*a*a*c"],
)
def test_no_subject_takes_long(pattern: str) -> None:
    match = compile_regex(pattern, "f")
    subject = b"a" * 10_000 + b"!"
    start = time.process_time()
    assert not match(subject)
    assert time.process_time() - start < 0.05


_ATOM = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "(?:a|b)", "(?:ab|a|)", r"\d", "^", "$"])
_PATTERN = st.recursive(
    _ATOM,
    lambda p: st.one_of(
        st.lists(p, min_size=1, max_size=3).map("".join),
        st.tuples(p, st.sampled_from(["*", "+", "?", "{1,2}", "*?", "{2}"])).map(
            lambda t: f"(?:{t[0]}){t[1]}"
        ),
        st.tuples(p, p).map(lambda t: f"(?:{t[0]}|{t[1]})"),
    ),
    max_leaves=6,
)


@given(_PATTERN, st.text("ab1", max_size=6), st.integers(2, 5))
def test_the_automaton_agrees_with_re(pattern: str, subject: str, max_states: int) -> None:
    source = pattern.encode()
    automaton = Automaton(_parser.parse(source), max_states=max_states)
    for _ in range(2):
        assert automaton.fullmatch(subject.encode()) is (re.fullmatch(source, subject.encode()) is not None)
