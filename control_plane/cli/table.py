"""Tables of objects as ``kubectl`` prints them: upper-case headings, columns by width. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Object = Mapping[str, Any]
Cell = Callable[[Object], str]

_SHARE = re.compile(r"\b\d+/\d+\b")


def _spec(*path: str) -> Cell:
    def cell(body: Object) -> str:
        value: Any = body.get("spec", {})
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            return ",".join(map(str, value)) or "<none>"
        return "<none>" if value in (None, "") else str(value)

    return cell


def _ports(body: Object) -> str:
    ports = body.get("spec", {}).get("ports") or []
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _parents(body: Object) -> str:
    parents = body.get("spec", {}).get("parentRefs") or []
    return ",".join(parent["name"] for parent in parents) or "<none>"


_EXTRA: Mapping[str, Sequence[tuple[str, Cell]]] = {
    "Service": [("CLUSTER-IP", _spec("clusterIP")), ("PORTS", _ports)],
    "GRPCRoute": [("PARENTS", _parents), ("HOSTNAMES", _spec("hostnames"))],
    "HTTPRoute": [("PARENTS", _parents), ("HOSTNAMES", _spec("hostnames"))],
    "WorkloadEntry": [("ADDRESS", _spec("address")), ("SERVICE-ACCOUNT", _spec("serviceAccount"))],
    "ServiceEntry": [("HOSTS", _spec("hosts")), ("RESOLUTION", _spec("resolution"))],
    "PeerAuthentication": [("MODE", _spec("mtls", "mode"))],
    "AuthorizationPolicy": [("ACTION", _spec("action"))],
    "JoinToken": [("SERVICE-ACCOUNT", _spec("serviceAccount")), ("EXPIRES", _spec("expirationTimestamp"))],
}
"""What a kind's table shows between name and status."""

_WITHOUT_STATUS = frozenset({"JoinToken"})


def columns(kind: str, *, namespaces: bool) -> Sequence[tuple[str, Cell]]:
    """Headings and cells for a kind; ``namespaces``: with the namespace first."""
    chosen: list[tuple[str, Cell]] = [("NAME", lambda body: str(body["metadata"]["name"]))]
    if namespaces:
        chosen.insert(0, ("NAMESPACE", lambda body: str(body["metadata"].get("namespace", ""))))
    chosen += _EXTRA.get(kind, ())
    if kind not in _WITHOUT_STATUS:
        chosen.append(("PROGRAMMED", programmed))
    return [*chosen, ("AGE", lambda body: age(body["metadata"].get("creationTimestamp"), datetime.now(UTC)))]


def programmed(body: Object) -> str:
    """How many sidecars use the object (``3/3``), or why not, from its ``Programmed`` conditions."""
    found = [condition for condition in _conditions(body) if condition.get("type") == "Programmed"]
    wrong = [
        condition
        for condition in _conditions(body)
        if condition.get("status") == "False" and condition.get("type") in ("Accepted", "ResolvedRefs")
    ]
    for condition in [*wrong, *found]:
        message = str(condition.get("message", ""))
        share = _SHARE.search(message)
        if condition.get("status") != "False":
            return share[0] if share else str(condition.get("reason") or condition.get("status"))
        reason = str(condition.get("reason") or "False")
        return f"{share[0]} {reason}" if share else reason
    return "-"


def _conditions(body: Object) -> Iterator[Object]:
    status = body.get("status") or {}
    yield from status.get("conditions") or ()
    for parent in status.get("parents") or ():
        yield from parent.get("conditions") or ()


def age(timestamp: str | None, now: datetime) -> str:
    """The time since an RFC 3339 ``timestamp``, in one or two units: ``5s``, ``3m20s``, ``4h``, ``12d``."""
    if not timestamp:
        return "<unknown>"
    seconds = max(int((now - datetime.fromisoformat(timestamp)).total_seconds()), 0)
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        minutes, rest = divmod(seconds, 60)
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if seconds < 7200:
        return f"{seconds // 60}m"
    if seconds < 172_800:
        return f"{seconds // 3600}h"
    return f"{seconds // 86_400}d"


def render(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of left-aligned columns, three spaces apart. Control characters are escaped."""
    table = [list(headings), *([_printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    return "\n".join(format_row(row, widths) for row in table)


def format_row(row: Sequence[str], widths: Sequence[int]) -> str:
    return "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _printable(cell: str) -> str:
    return cell if cell.isprintable() else cell.encode("unicode_escape").decode("ascii")
