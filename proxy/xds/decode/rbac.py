"""Role-based access control (``config.rbac.v3`` and its HTTP and network filters)."""

from __future__ import annotations

from typing import Any, Literal

from proxy.model.config import ConfigError
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
from proxy.xds.decode import address, matcher
from proxy.xds.decode.fields import check, enum, forbid, known

_HTTP_FILTER = known("rules", "rules_stat_prefix")
_NETWORK_FILTER = known("rules", "stat_prefix")
_RULES = known("action", "policies")
_POLICY = known("permissions", "principals")
_PERMISSION = known(
    "and_rules",
    "or_rules",
    "any",
    "header",
    "url_path",
    "destination_ip",
    "destination_port",
    "not_rule",
    "requested_server_name",
)
_PRINCIPAL = known(
    "and_ids",
    "or_ids",
    "any",
    "authenticated",
    "direct_remote_ip",
    "remote_ip",
    "header",
    "url_path",
    "not_id",
)
_SET_OF_PERMISSIONS = known("rules")
_SET_OF_PRINCIPALS = known("ids")
_AUTHENTICATED = known("principal_name")
_PATH = known("path")

_ACTIONS: dict[str, Literal["ALLOW", "DENY"]] = {"ALLOW": "ALLOW", "DENY": "DENY"}

MAX_DEPTH = 32
"""Rules nested deeper than this are refused: each level is a call while a request waits."""


def http_filter(message: Any, path: str) -> Rbac | None:
    """The HTTP filter ``RBAC``; ``None`` without ``rules``, which lets everything through."""
    check(message, path, _HTTP_FILTER)
    return _rules(message, path, message.rules_stat_prefix)


def network_filter(message: Any, path: str) -> Rbac | None:
    """The network filter ``RBAC``, as :func:`http_filter`."""
    check(message, path, _NETWORK_FILTER)
    return _rules(message, path, message.stat_prefix)


def _rules(message: Any, path: str, stat_prefix: str) -> Rbac | None:
    if not message.HasField("rules"):
        return None
    path = f"{path}.rules"
    rules = message.rules
    check(rules, path, _RULES)
    action = enum(rules, path, "action", _ACTIONS)
    policies = []
    for name in sorted(rules.policies):
        policy = rules.policies[name]
        at = f"{path}.policies[{name}]"
        check(policy, at, _POLICY)
        forbid(not policy.permissions, f"{at}.permissions", "is empty")
        forbid(not policy.principals, f"{at}.principals", "is empty")
        permissions = _each(_permission, policy.permissions, f"{at}.permissions", 1)
        principals = _each(_principal, policy.principals, f"{at}.principals", 1)
        policies.append(Policy(name, permissions, principals))
    return Rbac(action, tuple(policies), stat_prefix)


def _each(decode: Any, messages: Any, path: str, depth: int) -> tuple[Rule, ...]:
    forbid(not messages, path, "is empty")
    forbid(depth > MAX_DEPTH, path, f"nested deeper than {MAX_DEPTH} levels")
    return tuple(decode(item, f"{path}[{index}]", depth) for index, item in enumerate(messages))


def _permission(message: Any, path: str, depth: int) -> Rule:
    check(message, path, _PERMISSION)
    kind: str | None = message.WhichOneof("rule")
    if kind is None:
        raise ConfigError(path, "is empty: it needs one rule")
    value = getattr(message, kind)
    path = f"{path}.{kind}"
    if kind in ("and_rules", "or_rules"):
        check(value, path, _SET_OF_PERMISSIONS)
        rules = _each(_permission, value.rules, f"{path}.rules", depth + 1)
        return AndRules(rules) if kind == "and_rules" else OrRules(rules)
    if kind == "not_rule":
        forbid(depth >= MAX_DEPTH, path, f"nested deeper than {MAX_DEPTH} levels")
        return NotRule(_permission(value, path, depth + 1))
    if kind == "destination_ip":
        return DestinationIpRule(address.cidr(value, path))
    if kind == "destination_port":
        forbid(value > 65535, path, f"{value} is not a port")
        return DestinationPortRule(value)
    if kind == "requested_server_name":
        return RequestedServerNameRule(matcher.string(value, path))
    return _shared(kind, value, path)


def _principal(message: Any, path: str, depth: int) -> Rule:
    check(message, path, _PRINCIPAL)
    kind: str | None = message.WhichOneof("identifier")
    if kind is None:
        raise ConfigError(path, "is empty: it needs one identifier")
    value = getattr(message, kind)
    path = f"{path}.{kind}"
    if kind in ("and_ids", "or_ids"):
        check(value, path, _SET_OF_PRINCIPALS)
        rules = _each(_principal, value.ids, f"{path}.ids", depth + 1)
        return AndRules(rules) if kind == "and_ids" else OrRules(rules)
    if kind == "not_id":
        forbid(depth >= MAX_DEPTH, path, f"nested deeper than {MAX_DEPTH} levels")
        return NotRule(_principal(value, path, depth + 1))
    if kind == "authenticated":
        check(value, path, _AUTHENTICATED)
        named = value.HasField("principal_name")
        return AuthenticatedRule(
            matcher.string(value.principal_name, f"{path}.principal_name") if named else None
        )
    if kind == "direct_remote_ip":
        return SourceIpRule(address.cidr(value, path), "direct_remote_ip")
    if kind == "remote_ip":
        return SourceIpRule(address.cidr(value, path), "remote_ip")
    return _shared(kind, value, path)


def _shared(kind: str, value: Any, path: str) -> Rule:
    """The kinds that permissions and principals have in common."""
    if kind == "any":
        forbid(not value, path, "must be true")
        return AnyRule()
    if kind == "header":
        return HeaderRule(matcher.header(value, path))
    check(value, path, _PATH)
    return UrlPathRule(matcher.string(value.path, f"{path}.path"))
