"""How long a whole stream may take where its route limits that, and what the upstream is told of it. Pure.

The timeout of the response is another one (``RouteEntry.timeout``), which such a route does not have.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.grpc import timeout
from proxy.model.exchange import Head
from proxy.runtime.entry import RouteEntry

AT_ONCE: Final = 0.001
"""Seconds for what is over before it began: 0 would be no limit."""
LEFT_OUT: Final = b""
GRPC_TIMEOUT: Final = frozenset((b"grpc-timeout",))


class StreamLimit(NamedTuple):
    """``seconds`` from the stream's beginning, 0 = no limit. ``grpc_timeout`` takes the place of the field that the
    upstream gets; ``LEFT_OUT``: it gets none, ``None``: as the client sent it."""

    seconds: float
    grpc_timeout: bytes | None

    def line(self) -> bytes:
        """The ready line for the upstream, "" without one."""
        return b"grpc-timeout: %b\r\n" % self.grpc_timeout if self.grpc_timeout else b""


def stream_limit(route: RouteEntry, head: Head, manager_max: float, *, grpc: bool) -> StreamLimit:
    """The limit of one request (Envoy's ``ConnectionManagerImpl::ActiveStream::refreshDurationTimeout``).

    ``manager_max`` is the connection manager's ``max_stream_duration``, 0 = none. As in Envoy, ``grpc-timeout`` is
    heeded whatever the content type, but written only for gRPC, and without the time that has passed.
    """
    rules = route.stream_duration
    if rules is not None and rules.grpc_timeout_header_max is not None:
        asked = timeout.parse(head.get(b"grpc-timeout"))
        if asked is not None:
            longest = _milliseconds(rules.grpc_timeout_header_max)
            if longest:
                asked = min(asked, longest)
            if asked and rules.grpc_timeout_header_offset:
                asked = max(0, asked - _milliseconds(rules.grpc_timeout_header_offset))
            return StreamLimit(asked / 1000 or AT_ONCE, timeout.render(asked) if grpc else None)
    longest_of_all = manager_max if route.max_stream_duration is None else route.max_stream_duration
    told = None
    if rules is not None and grpc:
        if longest_of_all:
            told = timeout.render(_milliseconds(longest_of_all))
        elif manager_max:
            told = LEFT_OUT
    return StreamLimit(longest_of_all, told)


def response_timeout(route: RouteEntry, head: Head) -> float:
    """The seconds that a gRPC request may take where ``max_grpc_timeout`` has its route read ``grpc-timeout``, 0 = no
    limit (Envoy's ``FilterUtility::finalTimeout``)."""
    asked = timeout.parse(head.get(b"grpc-timeout")) or 0
    offset = _milliseconds(route.grpc_timeout_offset)
    if offset < asked:
        asked -= offset
    longest = _milliseconds(route.max_grpc_timeout or 0.0)
    if longest and (not asked or asked > longest):
        asked = longest
    return asked / 1000


def told(seconds: float) -> bytes:
    """The ``grpc-timeout`` line for so long."""
    return b"grpc-timeout: %b\r\n" % timeout.render(_milliseconds(seconds))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
