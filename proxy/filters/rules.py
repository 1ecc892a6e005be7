"""The rule trees of RBAC compiled to predicates, with the common shapes made flat.

A rule reads only what was verified or normalised: the principal of the TLS handshake, the dialled address, the
normalised path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.match.cidr import compile_ranges, network
from proxy.match.headers import compile_header
from proxy.match.strings import compile_bytes, compile_str
from proxy.model.config import ConfigError
from proxy.model.connection import ConnectionInfo
from proxy.model.exchange import Head
from proxy.model.rbac import (
    AndRules,
    AnyRule,
    AuthenticatedRule,
    DestinationIpRule,
    DestinationPortRule,
    HeaderRule,
    NotRule,
    OrRules,
    RequestedServerNameRule,
    Rule,
    SourceIpRule,
    UrlPathRule,
)

Check = Callable[[ConnectionInfo, Head | None, bytes], bool]

MAX_DEPTH = 64


def always(conn: ConnectionInfo, head: Head | None, path: bytes) -> bool:
    """The rule ``any``."""
    return True


def never(conn: ConnectionInfo, head: Head | None, path: bytes) -> bool:
    """What an empty list of alternatives is."""
    return False


Located = tuple[Rule, str]


def compile_any_of(rules: Sequence[Rule], field: str) -> Check:
    """True if one of ``rules`` is. Raises ``ConfigError`` under ``field``."""
    return _any_of(_located(rules, field), 0)


def _located(rules: Sequence[Rule], field: str) -> list[Located]:
    return [(rule, f"{field}[{n}]") for n, rule in enumerate(rules)]


def _any_of(rules: list[Located], depth: int) -> Check:
    flat: list[Located] = []
    _flatten(rules, flat, depth)
    if any(isinstance(rule, AnyRule) for rule, _ in flat):
        return always
    checks = []
    for group in (_exact_principals, _path_prefixes, _exact_paths, _methods, _ports):
        check = group([rule for rule, _ in flat])
        if check is not None:
            checks.append(check[0])
            taken = check[1]
            flat = [(rule, path) for rule, path in flat if not any(rule is t for t in taken)]
    checks += [_compile(rule, path, depth) for rule, path in flat]
    return _either(checks)


def _flatten(rules: list[Located], into: list[Located], depth: int) -> None:
    for rule, path in rules:
        if depth > MAX_DEPTH:
            raise ConfigError(path, f"rules are nested more than {MAX_DEPTH} deep")
        if isinstance(rule, OrRules):
            _flatten(_located(rule.rules, f"{path}.or_rules"), into, depth + 1)
        elif isinstance(rule, AndRules) and len(rule.rules) == 1:
            _flatten(_located(rule.rules, f"{path}.and_rules"), into, depth + 1)
        else:
            into.append((rule, path))


def _either(checks: list[Check]) -> Check:
    if not checks:
        return never
    if len(checks) == 1:
        return checks[0]
    if len(checks) == 2:
        one, two = checks
        return lambda conn, head, path: one(conn, head, path) or two(conn, head, path)
    every = tuple(checks)

    def any_of(conn: ConnectionInfo, head: Head | None, path: bytes) -> bool:
        for check in every:  # noqa: SIM110  a generator would cost more than the checks
            if check(conn, head, path):
                return True
        return False

    return any_of


def _both(checks: list[Check]) -> Check:
    checks = [check for check in checks if check is not always]
    if not checks:
        return always
    if len(checks) == 1:
        return checks[0]
    if len(checks) == 2:
        one, two = checks
        return lambda conn, head, path: one(conn, head, path) and two(conn, head, path)
    every = tuple(checks)

    def all_of(conn: ConnectionInfo, head: Head | None, path: bytes) -> bool:
        for check in every:  # noqa: SIM110
            if not check(conn, head, path):
                return False
        return True

    return all_of


Grouped = tuple[Check, list[Rule]] | None


def _exact_principals(rules: list[Rule]) -> Grouped:
    """Any number of exact principals is one look-up in a set."""
    taken: list[Rule] = []
    names = set()
    for rule in rules:
        if isinstance(rule, AuthenticatedRule) and rule.principal_name is not None:
            matcher = rule.principal_name
            if matcher.kind == "exact" and not matcher.ignore_case:
                taken.append(rule)
                names.add(matcher.value)
    if not taken:
        return None
    known = frozenset(names)
    return (lambda conn, head, path: conn.principal in known), taken


def _path_prefixes(rules: list[Rule]) -> Grouped:
    taken = [
        r for r in rules if isinstance(r, UrlPathRule) and r.path.kind == "prefix" and not r.path.ignore_case
    ]
    prefixes = tuple(r.path.value.encode() for r in taken)
    if not all(prefixes) or not taken:  # an empty prefix is left for the general case, which refuses it
        return None
    return (lambda conn, head, path: head is not None and path.startswith(prefixes)), list(taken)


def _exact_paths(rules: list[Rule]) -> Grouped:
    taken = [
        r for r in rules if isinstance(r, UrlPathRule) and r.path.kind == "exact" and not r.path.ignore_case
    ]
    if not taken:
        return None
    paths = frozenset(r.path.value.encode() for r in taken)
    return (lambda conn, head, path: head is not None and path in paths), list(taken)


def _methods(rules: list[Rule]) -> Grouped:
    taken: list[Rule] = []
    names = set()
    for rule in rules:
        if isinstance(rule, HeaderRule) and rule.header.name == ":method" and not rule.header.invert_match:
            matcher = rule.header.string_match
            if matcher is not None and matcher.kind == "exact" and not matcher.ignore_case:
                taken.append(rule)
                names.add(matcher.value.encode())
    if not taken:
        return None
    methods = frozenset(names)
    return (lambda conn, head, path: head is not None and head.method in methods), taken


def _ports(rules: list[Rule]) -> Grouped:
    taken = [r for r in rules if isinstance(r, DestinationPortRule)]
    if not taken:
        return None
    ports = frozenset(r.port for r in taken)
    return (lambda conn, head, path: conn.local[1] in ports), list(taken)


def _compile(rule: Rule, field: str, depth: int) -> Check:
    match rule:
        case AnyRule():
            return always
        case AndRules(rules):
            if not rules:
                raise ConfigError(f"{field}.and_rules", "must not be empty: it would match everything")
            return _both([_any_of([part], depth + 1) for part in _located(rules, f"{field}.and_rules")])
        case NotRule(inner):
            positive = _any_of([(inner, f"{field}.not")], depth + 1)
            return lambda conn, head, path: not positive(conn, head, path)
        case HeaderRule(header):
            header_matches = compile_header(header, f"{field}.header")
            return lambda conn, head, path: head is not None and header_matches(head, path)
        case UrlPathRule(matcher):
            path_matches = compile_bytes(matcher, f"{field}.url_path.path")
            return lambda conn, head, path: head is not None and path_matches(path)
        case DestinationPortRule(port):
            return lambda conn, head, path: conn.local[1] == port
        case DestinationIpRule(cidr):
            dialled = compile_ranges((network(cidr, f"{field}.destination_ip"),))
            return lambda conn, head, path: dialled(conn.local[0])
        case RequestedServerNameRule(matcher):
            name_matches = compile_str(matcher, f"{field}.requested_server_name")
            return lambda conn, head, path: name_matches(conn.sni)
        case AuthenticatedRule(None):
            return lambda conn, head, path: conn.principal is not None
        case AuthenticatedRule(principal_name):
            assert principal_name is not None
            principal_matches = compile_str(principal_name, f"{field}.authenticated.principal_name")
            return lambda conn, head, path: conn.principal is not None and principal_matches(conn.principal)
        case SourceIpRule(cidr, kind):
            came_from = compile_ranges((network(cidr, f"{field}.{kind}"),))
            if kind == "direct_remote_ip":
                return lambda conn, head, path: came_from(conn.direct_remote[0])
            return lambda conn, head, path: came_from(conn.remote[0])
    raise ConfigError(field, f"unknown rule {rule!r}")
