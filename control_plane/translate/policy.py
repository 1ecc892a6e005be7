"""AuthorizationPolicy as RBAC filters, with Istio's semantics: DENY first, then ALLOW.

Where an ALLOW policy applies, what no rule allows is denied. On ports that are not HTTP, an ALLOW rule that speaks of
methods or paths can never hold and is left out, and a DENY rule loses those parts, so it denies more: a policy errs
on the side of refusing. Principals are matched on the verified SPIFFE ID alone; a caller without one matches no
``principals`` or ``namespaces``, and every ``notPrincipals``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.type.matcher.v3 import path_pb2, regex_pb2, string_pb2

from control_plane.api.kinds import AuthorizationPolicy
from control_plane.api.kinds.istio_security import AuthorizationRule, Operation, Source
from control_plane.api.kinds.meta import selects
from control_plane.registry.entry import Entry
from control_plane.translate.pack import packed


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is known of the connections that a filter will see.

    ``port``: the policy's number for it where the listener has another one (then ``ports`` are decided here), else
    ``None`` (the port that the client dialled is compared).
    """

    http: bool
    port: int | None = None


class _Never(Exception):
    """A rule that cannot hold for this traffic."""


def applicable(
    entries: Iterable[Entry], namespace: str, labels: Mapping[str, str], root_namespace: str
) -> tuple[Entry, ...]:
    """The AuthorizationPolicies for a workload, in order of namespace and name."""
    found = []
    for entry in entries:
        model: AuthorizationPolicy = entry.model
        selector = model.spec.selector.match_labels if model.spec.selector else {}
        if entry.key.namespace in (namespace, root_namespace) and selects(selector, labels):
            found.append(entry)
    return tuple(sorted(found, key=lambda entry: entry.key))


def http_filters(policies: Sequence[Entry], trust_domain: str, port: int | None = None) -> list[Any]:
    """RBAC filters for an HTTP connection manager, DENY before ALLOW; none without policies."""
    return [
        hcm_pb2.HttpFilter(
            name="envoy.filters.http.rbac", typed_config=packed(http_rbac_pb2.RBAC(rules=rules))
        )
        for rules in _rules(policies, trust_domain, Traffic(http=True, port=port))
    ]


def network_filters(
    policies: Sequence[Entry], trust_domain: str, stat_prefix: str, port: int | None = None
) -> list[Any]:
    """The same for a TCP filter chain."""
    return [
        listener_components_pb2.Filter(
            name="envoy.filters.network.rbac",
            typed_config=packed(network_rbac_pb2.RBAC(rules=rules, stat_prefix=f"{stat_prefix}.")),
        )
        for rules in _rules(policies, trust_domain, Traffic(http=False, port=port))
    ]


def _rules(policies: Sequence[Entry], trust_domain: str, traffic: Traffic) -> Iterator[Any]:
    for action in ("DENY", "ALLOW"):
        chosen = [entry for entry in policies if entry.model.spec.action == action]
        if not chosen:
            continue
        rules = rbac_pb2.RBAC(action=action)
        for entry in chosen:
            for index, rule in enumerate(entry.model.spec.rules_):
                name = f"ns[{entry.key.namespace}]-policy[{entry.key.name}]-rule[{index}]"
                try:
                    policy = _policy(rule, trust_domain, traffic, deny=action == "DENY")
                except _Never:
                    continue
                rules.policies[name].CopyFrom(policy)
        yield rules


def _policy(rule: AuthorizationRule, trust_domain: str, traffic: Traffic, *, deny: bool) -> Any:
    sources = [_principal(item.source, trust_domain) for item in rule.from_ or ()]
    operations = []
    for item in rule.to or ():
        try:
            operations.append(_permission(item.operation, traffic, deny=deny))
        except _Never:
            continue
    if rule.to and not operations:
        raise _Never
    return rbac_pb2.Policy(
        permissions=operations or [rbac_pb2.Permission(any=True)],
        principals=sources or [rbac_pb2.Principal(any=True)],
    )


def _principal(source: Source, trust_domain: str) -> Any:
    parts = []
    for values, negate, matcher in (
        (source.principals, False, _identity),
        (source.not_principals, True, _identity),
        (source.namespaces, False, lambda value: _namespace(value, trust_domain)),
        (source.not_namespaces, True, lambda value: _namespace(value, trust_domain)),
    ):
        if values:
            parts.append(_any_identity(values, matcher, negate=negate))
    if len(parts) == 1:
        return parts[0]
    return rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=parts))


def _any_identity(values: Iterable[str], matcher: Callable[[str], Any], *, negate: bool) -> Any:
    ids = [
        rbac_pb2.Principal(authenticated=rbac_pb2.Principal.Authenticated(principal_name=matcher(value)))
        for value in values
    ]
    one = ids[0] if len(ids) == 1 else rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=ids))
    return rbac_pb2.Principal(not_id=one) if negate else one


def _identity(value: str) -> Any:
    """Istio writes principals without their scheme: ``<trust domain>/ns/<namespace>/sa/<service account>``."""
    if value == "*":
        return string_pb2.StringMatcher(prefix="spiffe://")
    if value.startswith("*"):
        return string_pb2.StringMatcher(suffix=value[1:])
    if value.endswith("*"):
        return string_pb2.StringMatcher(prefix=f"spiffe://{value[:-1]}")
    return string_pb2.StringMatcher(exact=f"spiffe://{value}")


def _namespace(value: str, trust_domain: str) -> Any:
    """A namespace of our trust domain: the path segment after ``/ns/``, whole unless there is a wildcard."""
    start = f"spiffe://{trust_domain}/ns/"
    if value == "*":
        return string_pb2.StringMatcher(prefix=start)
    if value.startswith("*"):
        pattern = f"{re.escape(start)}[^/]*{re.escape(value[1:])}/.*"
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=pattern))
    if value.endswith("*"):
        return string_pb2.StringMatcher(prefix=start + value[:-1])
    return string_pb2.StringMatcher(prefix=f"{start}{value}/")


def _permission(operation: Operation, traffic: Traffic, *, deny: bool) -> Any:
    parts = []
    for values, negate, matcher, http_only in (
        (operation.ports, False, lambda value: _port(value, traffic), False),
        (operation.not_ports, True, lambda value: _port(value, traffic), False),
        (operation.methods, False, _method, True),
        (operation.not_methods, True, _method, True),
        (operation.paths, False, _path, True),
        (operation.not_paths, True, _path, True),
    ):
        if not values:
            continue
        if http_only and not traffic.http:
            if not deny:
                raise _Never
            continue
        permissions = [matcher(value) for value in values]
        one = (
            permissions[0]
            if len(permissions) == 1
            else rbac_pb2.Permission(or_rules=rbac_pb2.Permission.Set(rules=permissions))
        )
        parts.append(rbac_pb2.Permission(not_rule=one) if negate else one)
    if not parts:
        return rbac_pb2.Permission(any=True)
    if len(parts) == 1:
        return parts[0]
    return rbac_pb2.Permission(and_rules=rbac_pb2.Permission.Set(rules=parts))


def _port(value: str, traffic: Traffic) -> Any:
    if traffic.port is None:
        return rbac_pb2.Permission(destination_port=int(value))
    always = rbac_pb2.Permission(any=True)
    return always if traffic.port == int(value) else rbac_pb2.Permission(not_rule=always)


def _method(value: str) -> Any:
    matcher = _wildcard(value)
    header = route_components_pb2.HeaderMatcher(name=":method", string_match=matcher)
    return rbac_pb2.Permission(header=header)


def _path(value: str) -> Any:
    return rbac_pb2.Permission(url_path=path_pb2.PathMatcher(path=_wildcard(value)))


def _wildcard(value: str) -> Any:
    if value == "*":
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=".+"))
    if value.startswith("*"):
        return string_pb2.StringMatcher(suffix=value[1:])
    if value.endswith("*"):
        return string_pb2.StringMatcher(prefix=value[:-1])
    return string_pb2.StringMatcher(exact=value)
