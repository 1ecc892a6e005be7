"""``AccessLogFilter`` compiled to a predicate on the exchange."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable

from proxy.grpc import status as grpc_status
from proxy.match.headers import compile_header
from proxy.model.exchange import Exchange
from proxy.model.log_filter import (
    AndFilter,
    DurationFilter,
    GrpcStatusFilter,
    HeaderFilter,
    LogFilter,
    OrFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)

Predicate = Callable[[Exchange], bool]

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "EQ": operator.eq,
    "GE": operator.ge,
    "LE": operator.le,
    "NE": operator.ne,
}


def compile_filter(wanted: LogFilter, field: str) -> Predicate:
    """The predicate of ``wanted``. Raises ``ConfigError`` under ``field``."""
    match wanted:
        case StatusCodeFilter(op, value):
            compare = _COMPARE[op]
            return lambda x: compare(x.status, value)
        case DurationFilter(op, value):
            compare_ms = _COMPARE[op]
            # A reply is chosen before the exchange has an end.
            return lambda x: compare_ms(int(((x.end or time.monotonic()) - x.start) * 1000), value)
        case HeaderFilter(header):
            matches = compile_header(header, f"{field}.header_filter.header")
            return lambda x: x.head is not None and matches(x.head, x.path)
        case ResponseFlagFilter(flags):
            if not flags:
                return lambda x: bool(x.flags)
            any_of = frozenset(flags)
            return lambda x: not any_of.isdisjoint(x.flags.split(","))
        case GrpcStatusFilter(statuses, exclude):
            # As in Envoy, the content type does not matter, and without any status it is UNKNOWN.
            return lambda x: (_grpc_status(x) in statuses) is not exclude
        case AndFilter(filters):
            every = tuple(
                compile_filter(one, f"{field}.and_filter.filters[{n}]") for n, one in enumerate(filters)
            )
            return lambda x: all(one(x) for one in every)
        case OrFilter(filters):
            some = tuple(
                compile_filter(one, f"{field}.or_filter.filters[{n}]") for n, one in enumerate(filters)
            )
            return lambda x: any(one(x) for one in some)


def _grpc_status(x: Exchange) -> int:
    found = grpc_status.of_response(x.trailers, x.response, x.status)
    return grpc_status.UNKNOWN if found is None else found
