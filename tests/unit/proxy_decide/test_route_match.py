"""``proxy.route.match`` and ``predicate``: the first route that matches, and what may be remembered."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.model.config import ConfigError
from proxy.model.connection import ConnectionInfo
from proxy.model.matcher import HeaderMatcher, PathMatcher, QueryParameterMatcher, StringMatcher
from proxy.model.route import RouteMatch
from proxy.route.domains import Domains
from proxy.route.match import RouteTable, VirtualHostTable
from proxy.route.predicate import compile_path, compile_request
from tests.fakes.exchange import FakeHead

CONN = ConnectionInfo(("192.0.2.1", 1), ("10.0.0.1", 80))


@pytest.mark.parametrize(
    ("kind", "value", "path", "matches"),
    [
        ("prefix", "/", b"/x", True),
        ("prefix", "/a", b"/ab", True),
        ("prefix", "/a", b"/b", False),
        ("path", "/a", b"/a", True),
        ("path", "/a", b"/a/", False),
        ("path_separated_prefix", "/p", b"/p", True),
        ("path_separated_prefix", "/p", b"/p/x", True),
        ("path_separated_prefix", "/p", b"/px", False),
        ("safe_regex", "/r[0-9]+", b"/r12", True),
        ("safe_regex", "/r[0-9]+", b"/r12x", False),
    ],
)
def test_paths(kind: Any, value: str, path: bytes, matches: bool) -> None:
    check = compile_path(PathMatcher(kind, value), "f")
    assert (check is None or check(path)) is matches


@pytest.mark.parametrize("kind", ["prefix", "path", "path_separated_prefix"])
def test_paths_may_ignore_case(kind: Any) -> None:
    check = compile_path(PathMatcher(kind, "/Ex", case_sensitive=False), "f")
    assert check is not None
    assert check(b"/eX")


@pytest.mark.parametrize(
    "matcher",
    [
        PathMatcher("safe_regex", "/a", case_sensitive=False),
        PathMatcher("path_separated_prefix", "/a/"),
        PathMatcher("path_separated_prefix", "/a?b"),
        PathMatcher("safe_regex", "("),
    ],
)
def test_paths_that_cannot_be_matched(matcher: PathMatcher) -> None:
    with pytest.raises(ConfigError):
        compile_path(matcher, "f")


@pytest.mark.parametrize(
    ("target", "exact_1", "present"),
    [
        # as a real Envoy 1.40 answered
        ("/?x", False, True),
        ("/?x=", False, True),
        ("/?y=1&x=1", True, True),
        ("/?x=2&x=1", False, True),
        ("/?x=1&x=2", True, True),
        ("/?%78=1", False, False),
        ("/?x=1;y", False, True),
        ("/?X=1", False, False),
        ("/", False, False),
    ],
)
def test_query_parameters(target: str, exact_1: bool, present: bool) -> None:
    def check(matcher: QueryParameterMatcher) -> bool:
        predicate = compile_request(RouteMatch(PathMatcher("prefix", "/"), query_parameters=(matcher,)), "f")
        assert predicate is not None
        return predicate(FakeHead(target), b"/")

    assert check(QueryParameterMatcher("x", StringMatcher("exact", "1"))) is exact_1
    assert check(QueryParameterMatcher("x")) is present


@pytest.mark.parametrize(
    ("kinds", "grpc"),
    [
        (["application/grpc"], True),
        (["application/grpc+proto"], True),
        (["application/grpc+"], True),
        (["application/grpc-web"], False),
        (["application/grpc-web+proto"], False),
        (["application/grpc;x=1"], False),
        (["application/GRPC"], False),
        (["text/plain"], False),
        ([], False),
        (["application/grpc", "application/grpc"], False),
        (["application/grpc+a", "b"], True),
    ],
)
def test_grpc(kinds: list[str], grpc: bool) -> None:
    predicate = compile_request(RouteMatch(PathMatcher("prefix", "/"), grpc=True), "f")
    assert predicate is not None
    head = FakeHead("/", *(("content-type", kind) for kind in kinds))
    assert predicate(head, b"/") is grpc
    # CONNECT has no path, and gRPC calls have one.
    assert predicate(head, b"") is False


def test_grpc_is_one_condition_of_several() -> None:
    matches = RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher("x"),), grpc=True)
    predicate = compile_request(matches, "f")
    assert predicate is not None
    call = ("content-type", "application/grpc")
    assert predicate(FakeHead("/", call, ("x", "1")), b"/")
    assert not predicate(FakeHead("/", call), b"/")
    assert not predicate(FakeHead("/", ("x", "1")), b"/")


def _table(*matches: RouteMatch, cache_size: int = 1024, https_only: str | None = None) -> RouteTable[str]:
    rules = tuple(
        (compile_path(m.path, "f"), compile_request(m, "f"), f"r{n}") for n, m in enumerate(matches)
    )
    host = VirtualHostTable(rules, https_only)
    return RouteTable("t", Domains([("h", host, "f")]), cache_size=cache_size)


def test_the_first_route_wins_and_all_conditions_must_hold() -> None:
    path = PathMatcher("prefix", "/a")
    table = _table(
        RouteMatch(path, (HeaderMatcher("x", StringMatcher("exact", "1")), HeaderMatcher("y"))),
        RouteMatch(path),
        RouteMatch(PathMatcher("prefix", "/")),
    )
    assert table.match(FakeHead("/ab", ("x", "1"), ("y", "")), CONN, b"/ab") == "r0"
    assert table.match(FakeHead("/ab", ("x", "1")), CONN, b"/ab") == "r1"
    assert table.match(FakeHead("/ab", ("x", "1"), ("y", "")), CONN, b"/ab") == "r0", (
        "r1 must not be remembered"
    )
    assert table.match(FakeHead("/b"), CONN, b"/b") == "r2"
    assert table.match(FakeHead("/b", host="other"), CONN, b"/b") is None


def test_no_route_is_none_every_time() -> None:
    table = _table(RouteMatch(PathMatcher("path", "/a")))
    assert [table.match(FakeHead("/b"), CONN, b"/b") for _ in range(2)] == [None, None]


def test_what_is_remembered_is_bounded() -> None:
    table = _table(RouteMatch(PathMatcher("prefix", "/")), cache_size=10)
    for n in range(100):
        assert table.match(FakeHead(f"/{n}"), CONN, b"/%d" % n) == "r0"
        assert len(table._cache) <= 10
    assert len(table._cache) > 0


def test_a_virtual_host_for_tls_only() -> None:
    table = _table(RouteMatch(PathMatcher("prefix", "/")), https_only="redirect")
    tls = ConnectionInfo(("192.0.2.1", 1), ("10.0.0.1", 80), transport_protocol="tls")
    assert [table.match(FakeHead("/"), conn, b"/") for conn in (CONN, tls, CONN)] == [
        "redirect",
        "r0",
        "redirect",
    ]
