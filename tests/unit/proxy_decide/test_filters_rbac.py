"""``proxy.filters.rbac``: rules, actions, counters, and the attacks on paths and headers by name."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.filters.rbac import http_rbac, network_rbac
from proxy.filters.rules import MAX_DEPTH
from proxy.model.address import CidrRange
from proxy.model.config import ConfigError
from proxy.model.connection import ConnectionInfo
from proxy.model.matcher import HeaderMatcher, StringMatcher
from proxy.model.rbac import (
    AndRules,
    AnyRule,
    AuthenticatedRule,
    DestinationIpRule,
    DestinationPortRule,
    HeaderRule,
    NotRule,
    OrRules,
    Policy,
    Rbac,
    RequestedServerNameRule,
    Rule,
    SourceIpRule,
    UrlPathRule,
)
from proxy.model.reply import Denied, Reply
from proxy.model.stats import RbacStats
from proxy.route.path import compile_normalize
from tests.fakes.exchange import FakeExchange, FakeHead

A, B = "spiffe://mesh.local/ns/default/sa/a", "spiffe://mesh.local/ns/default/sa/b"
ANY = (AnyRule(),)


def _principal(name: str, kind: Any = "exact") -> AuthenticatedRule:
    return AuthenticatedRule(StringMatcher(kind, name))


def _path(value: str, kind: Any = "prefix") -> UrlPathRule:
    return UrlPathRule(StringMatcher(kind, value))


def _header(name: str, value: str, **more: Any) -> HeaderRule:
    return HeaderRule(HeaderMatcher(name, StringMatcher("exact", value), **more))


def _conn(principal: str | None = A) -> ConnectionInfo:
    conn = ConnectionInfo(("192.0.2.7", 40000), ("10.1.0.5", 8080), sni="b.mesh.local")
    conn.principal = principal
    return conn


def _exchange(
    target: str = "/a?x=1", *lines: tuple[str, str], principal: str | None = A, **more: Any
) -> FakeExchange:
    return FakeExchange(FakeHead(target, *lines, **more), connection=_conn(principal))


def _rbac(action: Any, *policies: tuple[str, tuple[Rule, ...], tuple[Rule, ...]]) -> Rbac:
    return Rbac(action, tuple(Policy(*p) for p in policies))


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (AnyRule(), True),
        (_path("/a"), True),
        (_path("/b"), False),
        (_path("/a", "exact"), True),
        (_path("/a?x=1", "exact"), False),
        (_path("/A", "exact"), False),
        (UrlPathRule(StringMatcher("prefix", "/A", ignore_case=True)), True),
        (_path("/[ab]", "safe_regex"), True),
        (_header(":method", "GET"), True),
        (_header(":method", "POST"), False),
        (_header(":method", "POST", invert_match=True), True),
        (_header(":path", "/a?x=1"), True),
        (_header(":authority", "h"), True),
        (_header("x-a", "1"), False),
        (HeaderRule(HeaderMatcher("x-a", present=False)), True),
        (DestinationPortRule(8080), True),
        (DestinationPortRule(80), False),
        (DestinationIpRule(CidrRange("10.1.0.0", 16)), True),
        (DestinationIpRule(CidrRange("10.2.0.0", 16)), False),
        (SourceIpRule(CidrRange("192.0.2.0", 24), "direct_remote_ip"), True),
        (SourceIpRule(CidrRange("10.0.0.0", 8), "remote_ip"), False),
        (RequestedServerNameRule(StringMatcher("suffix", ".mesh.local")), True),
        (_principal(A), True),
        (_principal(B), False),
        (_principal("spiffe://mesh.local/ns/default/", "prefix"), True),
        (_principal("spiffe://mesh.local/ns/[a-z]+/sa/a", "safe_regex"), True),
        (AuthenticatedRule(None), True),
        (NotRule(_principal(B)), True),
        (NotRule(AnyRule()), False),
        (AndRules((_path("/a"), _header(":method", "GET"))), True),
        (AndRules((_path("/a"), _header(":method", "POST"))), False),
        (AndRules((_path("/a"), AnyRule(), DestinationPortRule(8080))), True),
        (OrRules((_path("/b"), _header(":method", "GET"))), True),
        (OrRules((_path("/b"), OrRules((_path("/c"), AndRules((_path("/a"),)))))), True),
        (OrRules(()), False),
    ],
)
def test_rules_as_permission_and_as_principal(rule: Rule, matches: bool) -> None:
    for permissions, principals in (((rule,), ANY), (ANY, (rule,)), ((rule,), (rule,))):
        check = http_rbac(_rbac("ALLOW", ("p", permissions, principals)), RbacStats(), "f")
        assert (check(_exchange()) is None) is matches


@pytest.mark.parametrize(
    ("rule", "matches"),
    [(AuthenticatedRule(None), False), (_principal(A), False), (_principal("s", "prefix"), False)],
)
def test_without_a_verified_peer_nobody_is_anybody(rule: Rule, matches: bool) -> None:
    check = http_rbac(_rbac("ALLOW", ("p", ANY, (rule,))), RbacStats(), "f")
    assert (check(_exchange(principal=None)) is None) is matches


def test_allow_lets_through_what_one_policy_matches() -> None:
    stats = RbacStats()
    check = http_rbac(
        _rbac("ALLOW", ("a", (_path("/a"),), (_principal(A),)), ("b", (_path("/b"),), (_principal(B),))),
        stats,
        "f",
    )
    assert check(_exchange("/a")) is None
    assert check(_exchange("/b", principal=B)) is None
    refused = Reply(
        403, b"RBAC: access denied", details="rbac_access_denied_matched_policy[none]", grpc_status=7
    )
    assert check(_exchange("/b")) == refused
    assert check(_exchange("/c")) == refused
    assert (stats.allowed, stats.denied) == (2, 2)


def test_deny_names_the_first_policy_that_matches() -> None:
    stats = RbacStats()
    check = http_rbac(
        _rbac("DENY", ("no admin", (_path("/admin"),), ANY), ("z", (_path("/a"),), ANY)), stats, "f"
    )
    reply = check(_exchange("/admin/x"))
    assert reply is not None
    assert (reply.status, reply.flag) == (403, "")
    assert reply.details == "rbac_access_denied_matched_policy[no_admin]"
    assert check(_exchange("/b")) is None
    assert (stats.allowed, stats.denied) == (1, 1)


def test_no_policies() -> None:
    assert http_rbac(_rbac("ALLOW"), RbacStats(), "f")(_exchange()) is not None
    assert http_rbac(_rbac("DENY"), RbacStats(), "f")(_exchange()) is None


def test_many_alternatives_of_every_shape_together() -> None:
    permissions = (
        _path("/x"), _path("/y"), _path("/e", "exact"), _header(":method", "PUT"), DestinationPortRule(1),
        DestinationPortRule(2), _path("/z", "suffix"), NotRule(_header("x-token", "1", invert_match=True)),
    )  # fmt: skip
    check = http_rbac(_rbac("ALLOW", ("p", permissions, (_principal(A), _principal(B)))), RbacStats(), "f")
    assert check(_exchange("/y1")) is None
    assert check(_exchange("/e")) is None
    assert check(_exchange("/q", method="PUT")) is None
    assert check(_exchange("/q/z")) is None
    assert check(_exchange("/q", ("x-token", "1"))) is None
    assert check(_exchange("/e/", ("x-token", "2"))) is not None
    assert check(_exchange("/q")) is None, (
        "a header that is missing does not match even inverted, so its negation does"
    )
    assert check(_exchange("/q", ("x-token", "2"))) is not None
    assert check(_exchange("/e", principal=A + "x")) is not None


NORMALIZE = compile_normalize(normalize_path=True, merge_slashes=True, escaped_slashes="UNESCAPE_AND_FORWARD")


@pytest.mark.parametrize(
    "target",
    ["//admin", "/%2fadmin", "/\\admin", "/x/%2e%2e/admin", "/admin?q", "/admin;x", "/./admin", "/%61dmin",
     "/x/..;/admin", "/x%2f..%2fadmin", "/%5cadmin"],
)  # fmt: skip
def test_no_spelling_of_a_path_passes_a_deny_policy(target: str) -> None:
    normalized = NORMALIZE(target.encode())
    assert isinstance(normalized, bytes)
    exchange = _exchange(normalized.decode())
    deny = http_rbac(_rbac("DENY", ("p", (_path("/admin"),), ANY)), RbacStats(), "f")
    assert deny(exchange) is not None


@pytest.mark.parametrize("lines", [["1"], ["1", "2"], ["2", "1"], ["2", "3", "1"]])
def test_no_second_line_hides_a_header_from_a_deny_policy(lines: list[str]) -> None:
    deny = http_rbac(_rbac("DENY", ("p", (_header("x-a", "1"),), ANY)), RbacStats(), "f")
    assert deny(_exchange("/", *[("x-a", line) for line in lines])) is not None


def test_network_filter() -> None:
    stats = RbacStats()
    allow = network_rbac(_rbac("ALLOW", ("p", (DestinationPortRule(8080),), (_principal(A),))), stats, "f")
    assert allow(_conn()) is None
    assert allow(_conn(B)) == Denied("rbac_access_denied_matched_policy[none]")
    deny = network_rbac(_rbac("DENY", ("q", ANY, (_principal(A),))), stats, "f")
    assert deny(_conn()) == Denied("rbac_access_denied_matched_policy[q]")
    assert deny(_conn(B)) is None
    assert (stats.allowed, stats.denied) == (2, 2)


@pytest.mark.parametrize(
    "rule",
    [
        _path("/"),
        _path("/", "exact"),
        _path("", "exact"),
        _header(":method", "GET"),
        HeaderRule(HeaderMatcher("x", present=False)),
    ],
)
def test_rules_about_requests_are_false_on_a_connection(rule: Rule) -> None:
    assert network_rbac(_rbac("DENY", ("p", (rule,), ANY)), RbacStats(), "f")(_conn()) is None
    assert network_rbac(_rbac("ALLOW", ("p", (rule,), ANY)), RbacStats(), "f")(_conn()) is not None


def _deep(levels: int) -> Rule:
    rule: Rule = _path("/a")
    for _ in range(levels):
        rule = NotRule(rule)
    return rule


@pytest.mark.parametrize(
    ("permissions", "field"),
    [
        ((), "f.rules.policies[p]"),
        ((_path(""),), "f.rules.policies[p].permissions[0].url_path.path.prefix"),
        ((AnyRule(), AndRules(())), None),
        ((_path("/a"), AndRules(())), "f.rules.policies[p].permissions[1].and_rules"),
        ((AndRules((_path("/a"), _path("(", "safe_regex"))),),
         "f.rules.policies[p].permissions[0].and_rules[1].url_path.path.safe_regex"),
        ((DestinationIpRule(CidrRange("x", 8)),), "f.rules.policies[p].permissions[0].destination_ip"),
        ((OrRules((_path("/a"), _header(":scheme", "x"))),),
         "f.rules.policies[p].permissions[0].or_rules[1].header.name"),
        ((_deep(MAX_DEPTH + 2),), "f.rules.policies[p].permissions[0]" + ".not" * (MAX_DEPTH + 1)),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_used_are_refused_by_path(
    permissions: tuple[Rule, ...], field: str | None
) -> None:
    rbac = _rbac("ALLOW", ("p", permissions, ANY))
    if field is None:
        http_rbac(rbac, RbacStats(), "f")
        return
    with pytest.raises(ConfigError) as caught:
        http_rbac(rbac, RbacStats(), "f")
    assert caught.value.path == field
