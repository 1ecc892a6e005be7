"""Access log lines in Envoy's format language, compiled once to one function per format."""

from __future__ import annotations

from collections.abc import Callable

from proxy.model.exchange import Exchange


class AccessLogWriter:
    """One configured log. ``log(exchange)`` formats and buffers a line; it does no input or output."""

    __slots__ = ("log",)

    def __init__(self, log: Callable[[Exchange], None]) -> None:
        self.log = log
