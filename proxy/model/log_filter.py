"""Conditions on an exchange (``config.accesslog.v3.AccessLogFilter``): local replies are chosen by them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from proxy.model.frozen import dataclass
from proxy.model.matcher import HeaderMatcher

Comparison = Literal["EQ", "GE", "LE", "NE"]


@dataclass(frozen=True, slots=True)
class StatusCodeFilter:
    """``status_code_filter``."""

    op: Comparison
    value: int


@dataclass(frozen=True, slots=True)
class DurationFilter:
    """``duration_filter``, in milliseconds."""

    op: Comparison
    value: int


@dataclass(frozen=True, slots=True)
class HeaderFilter:
    """``header_filter``: on a header of the request."""

    header: HeaderMatcher


@dataclass(frozen=True, slots=True)
class ResponseFlagFilter:
    """``response_flag_filter``: one of ``flags`` is set, or with none named any at all."""

    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GrpcStatusFilter:
    """``grpc_status_filter``: the gRPC status is one of ``statuses``, or with ``exclude`` none of them."""

    statuses: frozenset[int]
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class AndFilter:
    """``and_filter``: all of them."""

    filters: tuple[LogFilter, ...]


@dataclass(frozen=True, slots=True)
class OrFilter:
    """``or_filter``: at least one of them."""

    filters: tuple[LogFilter, ...]


LogFilter: TypeAlias = (
    StatusCodeFilter
    | DurationFilter
    | HeaderFilter
    | ResponseFlagFilter
    | GrpcStatusFilter
    | AndFilter
    | OrFilter
)
