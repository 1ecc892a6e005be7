"""Role-based access control: ``envoy.filters.http.rbac`` and ``envoy.filters.network.rbac``.

Compiled once from ``proxy.model.rbac.Rbac``; a verdict is ``None`` (go on) or a ready answer.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.filters.rules import Check, always, compile_any_of
from proxy.model.config import ConfigError
from proxy.model.connection import ConnectionInfo
from proxy.model.exchange import Exchange, Head
from proxy.model.rbac import Rbac
from proxy.model.reply import Denied, Reply
from proxy.model.stats import RbacStats

DENIED_BODY = b"RBAC: access denied"


def http_rbac(rbac: Rbac, stats: RbacStats, field: str) -> Callable[[Exchange], Reply | None]:
    """A filter on requests. A refusal is 403 with Envoy's body and details, without a response flag (as Envoy)."""
    policies = [
        (check, Reply(403, DENIED_BODY, details=_details(name), grpc_status=7))
        for check, name in _policies(rbac, field)
    ]
    if rbac.action == "DENY":

        def deny(exchange: Exchange) -> Reply | None:
            conn, head, path = exchange.connection, exchange.head, exchange.path
            for check, reply in policies:
                if check(conn, head, path):
                    stats.denied += 1
                    return reply
            stats.allowed += 1
            return None

        return deny

    checks = tuple(check for check, _ in policies)
    refused = Reply(403, DENIED_BODY, details=_details("none"), grpc_status=7)

    def allow(exchange: Exchange) -> Reply | None:
        conn, head, path = exchange.connection, exchange.head, exchange.path
        for check in checks:
            if check(conn, head, path):
                stats.allowed += 1
                return None
        stats.denied += 1
        return refused

    return allow


def network_rbac(rbac: Rbac, stats: RbacStats, field: str) -> Callable[[ConnectionInfo], Denied | None]:
    """A filter on connections. Rules about requests are false here."""
    policies = _policies(rbac, field)
    deny = rbac.action == "DENY"
    head: Head | None = None

    def judge(conn: ConnectionInfo) -> Denied | None:
        matched = next((name for check, name in policies if check(conn, head, b"")), None)
        if (matched is not None) is deny:
            stats.denied += 1
            return Denied(_details(matched or "none"))
        stats.allowed += 1
        return None

    return judge


def _details(policy: str) -> str:
    # Envoy replaces blanks, so that the details stay one word in a text log.
    return f"rbac_access_denied_matched_policy[{'_'.join(policy.split()) or policy}]"


def _policies(rbac: Rbac, field: str) -> list[tuple[Check, str]]:
    compiled = []
    for policy in rbac.policies:
        path = f"{field}.rules.policies[{policy.name}]"
        if not policy.permissions or not policy.principals:
            raise ConfigError(path, "a policy needs at least one permission and one principal")
        permitted = compile_any_of(policy.permissions, f"{path}.permissions")
        by = compile_any_of(policy.principals, f"{path}.principals")
        compiled.append((_and(permitted, by), policy.name))
    return compiled


def _and(permitted: Check, by: Check) -> Check:
    if permitted is always:
        return by
    if by is always:
        return permitted

    # The principal first: one look-up in a set, in the usual case.
    return lambda conn, head, path: by(conn, head, path) and permitted(conn, head, path)
