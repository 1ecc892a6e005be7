"""Prefix rewrites, redirects and splits; the targets and locations are those of a real Envoy 1.40."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from proxy.model.config import ConfigError
from proxy.model.matcher import PathMatcher
from proxy.model.route import RedirectAction
from proxy.route.rewrite import compile_prefix_rewrite, compile_redirect
from proxy.route.weighted import compile_choice


@pytest.mark.parametrize(
    ("kind", "matched", "replacement", "target", "rewritten"),
    [
        ("prefix", "/rw", "/new", b"/rw", b"/new"),
        ("prefix", "/rw", "/new", b"/rw/x?q=1", b"/new/x?q=1"),
        ("prefix", "/rw", "/new", b"/rwx", b"/newx"),
        ("prefix", "/rs/", "/", b"/rs/a", b"/a"),
        ("path", "/rx", "/new", b"/rx?q", b"/new?q"),
        ("safe_regex", "/ry.*", "/new", b"/ryaa?q", b"/new?q"),
        ("path_separated_prefix", "/sp", "/", b"/sp/a", b"//a"),
        ("path_separated_prefix", "/sp", "/", b"/sp", b"/"),
    ],
)
def test_prefix_rewrite(kind: Any, matched: str, replacement: str, target: bytes, rewritten: bytes) -> None:
    assert compile_prefix_rewrite(PathMatcher(kind, matched), replacement, "f")(target) == rewritten


@pytest.mark.parametrize(
    ("action", "host", "target", "location"),
    [
        (RedirectAction(scheme="https"), b"h", b"/d1/x?q=1", b"https://h/d1/x?q=1"),
        (RedirectAction(scheme="https"), b"h:9999", b"/d1/x?q=1", b"https://h:9999/d1/x?q=1"),
        (RedirectAction(scheme="https"), b"h:80", b"/", b"https://h/"),
        (RedirectAction("https", "o.example", 8443), b"h:1", b"/d2/x", b"https://o.example:8443/d2/x"),
        (RedirectAction(path="/new", strip_query=True), b"h", b"/d3/x?q=1", b"http://h/new"),
        (RedirectAction(path="/new"), b"h", b"/d3/x?q=1", b"http://h/new?q=1"),
        (RedirectAction(prefix_rewrite="/n"), b"h", b"/d1/x?q=1", b"http://h/n/x?q=1"),
        (RedirectAction(path="/new?y=1"), b"h", b"/d5?q=1", b"http://h/new?y=1"),
        (RedirectAction(port=8080), b"h:9999", b"/d6", b"http://h:8080/d6"),
        (RedirectAction(port=8080), b"[::1]:9", b"/", b"http://[::1]:8080/"),
        (RedirectAction("https", port=443), b"h", b"/d7", b"https://h:443/d7"),
        (RedirectAction(host="x", strip_query=True), b"h", b"/d8/x?q", b"http://x/d8/x"),
    ],
)
def test_redirect(action: RedirectAction, host: bytes, target: bytes, location: bytes) -> None:
    reply = compile_redirect(action, PathMatcher("prefix", "/d1"), "f")(host, target, b"http")
    assert reply.headers == b"location: " + location + b"\r\n"
    assert (reply.status, reply.details, reply.flag) == (301, "direct_response", "")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_codes(code: int) -> None:
    redirect = compile_redirect(RedirectAction(response_code=code), PathMatcher("prefix", "/"), "f")
    assert redirect(b"h", b"/", b"http").status == code


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (RedirectAction(response_code=200), "f.response_code"),
        (RedirectAction(path="/a", prefix_rewrite="/b"), "f.path_redirect"),
        (RedirectAction(host="a\r\nset-cookie: x"), "f.host_redirect"),
    ],
)
def test_redirects_that_cannot_be(action: RedirectAction, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_redirect(action, PathMatcher("prefix", "/"), "f")
    assert caught.value.path == field


def test_a_split_is_in_proportion_and_leaves_out_weight_zero() -> None:
    choose = compile_choice([(90, "a"), (10, "b"), (0, "c")], random.Random(2).random, "f")
    counts = Counter(choose() for _ in range(10_000))
    chi_square = (counts["a"] - 9000) ** 2 / 9000 + (counts["b"] - 1000) ** 2 / 1000
    assert chi_square < 10.83
    assert counts["c"] == 0


def test_a_single_cluster_needs_no_weight() -> None:
    assert compile_choice([(0, "a")], random.random, "f")() == "a"


@pytest.mark.parametrize("shares", [[], [(0, "a"), (0, "b")]])
def test_a_split_of_nothing(shares: list[tuple[int, str]]) -> None:
    with pytest.raises(ConfigError):
        compile_choice(shares, random.random, "f")
