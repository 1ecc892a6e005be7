"""Options that change or refuse a head as a whole: names with ``_``, ports and final dots of hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.http1.head import Head
from proxy.model.listener import HttpConnectionManager

if TYPE_CHECKING:
    from proxy.stream.exchange import HttpExchange

Change = Callable[["HttpExchange"], None]


def has_underscore(head: Head) -> bool:
    """Whether a field's name has ``_``, which CGI and its kind cannot tell from ``-``."""
    return any(b"_" in name for name in head.names)


def compile_changes(config: HttpConnectionManager) -> tuple[Change, ...]:
    """What is done to each head after ``arrive``; nothing that is not configured."""
    changes: list[Change] = []
    if config.headers_with_underscores_action == "DROP_HEADER":
        changes.append(_drop_underscores)
    if config.strip_port != "NO" or config.strip_trailing_host_dot:
        changes.append(_compile_host(config))
    return tuple(changes)


def _drop_underscores(x: HttpExchange) -> None:
    dropped = frozenset(name for name in x.head.names if b"_" in name)
    if dropped:
        stats = x.http.http2_stats if x.down.http2 else x.http.stats
        stats.dropped_headers_with_underscores += len(dropped)
        x.also |= dropped
        for name in dropped:
            del x.head.names[name]


def _compile_host(config: HttpConnectionManager) -> Change:
    any_port = config.strip_port == "ANY"
    matching_port = config.strip_port == "MATCHING"
    dot = config.strip_trailing_host_dot

    def change(x: HttpExchange) -> None:
        host = x.head.host or b""
        name, colon, port = host.rpartition(b":")
        if not colon or not port.isdigit():
            # A name, or an IPv6 address in brackets whose last colon is its own.
            name, port = host, b""
        if port and (any_port or (matching_port and int(port) == x.connection.local[1])) and not x.connect:
            port = b""
        if dot and name.endswith(b"."):
            name = name[:-1]
        made = name + b":" + port if port else name
        if made != host:
            x.head.set_host(made)
            x.host_changed = True

    return change
