"""``AccessLogFilter``: the conditions that need nothing but the exchange."""

from __future__ import annotations

from typing import Any

from proxy.grpc.status import MAXIMUM_KNOWN
from proxy.model.config import ConfigError
from proxy.model.log_filter import (
    AndFilter,
    Comparison,
    DurationFilter,
    GrpcStatusFilter,
    HeaderFilter,
    LogFilter,
    OrFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from proxy.observe.operators import FLAGS
from proxy.xds.decode import matcher
from proxy.xds.decode.fields import UNSUPPORTED, check, enum, forbid, known

_FILTER = known(
    "status_code_filter",
    "duration_filter",
    "header_filter",
    "response_flag_filter",
    "grpc_status_filter",
    "and_filter",
    "or_filter",
)
_COMPARED = known("comparison")
_COMPARISON = known("op", "value")
_VALUE = known(
    "default_value", without_effect={"runtime_key": "there are no runtime overrides, so the default counts"}
)
_HEADER = known("header")
_FLAGS = known("flags")
_GRPC = known("statuses", "exclude")
_FILTERS = known("filters")
_OPERATORS: dict[str, Comparison] = {"EQ": "EQ", "GE": "GE", "LE": "LE", "NE": "NE"}


def log_filter(message: Any, path: str) -> LogFilter:
    """An ``AccessLogFilter``."""
    check(message, path, _FILTER)
    kind = message.WhichOneof("filter_specifier")
    if kind is None:
        raise ConfigError(path, "is empty: set one of the filters")
    value = getattr(message, kind)
    at = f"{path}.{kind}"
    if kind == "status_code_filter":
        return StatusCodeFilter(*_comparison(value, at))
    if kind == "duration_filter":
        return DurationFilter(*_comparison(value, at))
    if kind == "header_filter":
        check(value, at, _HEADER)
        return HeaderFilter(matcher.header(value.header, f"{at}.header"))
    if kind == "response_flag_filter":
        check(value, at, _FLAGS)
        for n, flag in enumerate(value.flags):
            forbid(flag not in FLAGS, f"{at}.flags[{n}]", f"{flag!r} {UNSUPPORTED}")
        return ResponseFlagFilter(tuple(value.flags))
    if kind == "grpc_status_filter":
        check(value, at, _GRPC)
        for n, status in enumerate(value.statuses):
            forbid(not 0 <= status <= MAXIMUM_KNOWN, f"{at}.statuses[{n}]", f"{status} is no gRPC status")
        return GrpcStatusFilter(frozenset(value.statuses), value.exclude)
    check(value, at, _FILTERS)
    forbid(len(value.filters) < 2, f"{at}.filters", "needs at least two")
    inner = tuple(log_filter(item, f"{at}.filters[{n}]") for n, item in enumerate(value.filters))
    return AndFilter(inner) if kind == "and_filter" else OrFilter(inner)


def _comparison(message: Any, path: str) -> tuple[Comparison, int]:
    check(message, path, _COMPARED)
    at = f"{path}.comparison"
    check(message.comparison, at, _COMPARISON)
    check(message.comparison.value, f"{at}.value", _VALUE)
    return enum(message.comparison, at, "op", _OPERATORS), message.comparison.value.default_value
