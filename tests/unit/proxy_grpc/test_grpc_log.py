"""What logs and conditions on them say of gRPC: the operators, the filter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from envoy.config.accesslog.v3 import accesslog_pb2
from google.protobuf import json_format

from proxy.model.access_log import JsonLogFormat
from proxy.model.config import ConfigError
from proxy.model.log_filter import GrpcStatusFilter
from proxy.observe.format import compile_json, compile_text
from proxy.observe.log_filter import compile_filter
from proxy.xds.decode.log_filter import log_filter
from tests.fakes.exchange import FakeExchange, FakeHead

GRPC = FakeHead("/s/m", ("content-type", "application/grpc+proto"), method="POST")
HTTP = FakeHead("/s/m", ("content-type", "application/json"), method="POST")


def text(operator: str, x: Any) -> str:
    return compile_text(operator, "f")(x)


def value(operator: str, x: Any) -> Any:
    return json.loads(compile_json(JsonLogFormat((("v", operator),)), "f")(x))["v"]


def answered(trailers: Any = None, *fields: tuple[str, str], status: int = 200, head: Any = GRPC) -> Any:
    return FakeExchange(head, response=FakeHead("", *fields, status=status), trailers=trailers, status=status)


@pytest.mark.parametrize(
    ("x", "camel", "snake", "number"),
    [
        (answered([(b"grpc-status", b"0")]), "OK", "OK", 0),
        (answered([(b"a", b"b"), (b"grpc-status", b"5")]), "NotFound", "NOT_FOUND", 5),
        (answered([(b"grpc-status", b"1")]), "Canceled", "CANCELLED", 1),
        (answered([(b"grpc-status", b"-1")]), "-1", "-1", -1),
        (answered([(b"grpc-status", b"42738")]), "42738", "42738", 42738),
        (answered([], ("grpc-status", "14")), "Unavailable", "UNAVAILABLE", 14),
        (
            answered([(b"grpc-status", b"7")], ("grpc-status", "14")),
            "PermissionDenied",
            "PERMISSION_DENIED",
            7,
        ),
        (answered(None, status=404), "Unimplemented", "UNIMPLEMENTED", 12),
        (answered(None, status=200), "Unknown", "UNKNOWN", 2),
        (FakeExchange(GRPC, status=503), "Unavailable", "UNAVAILABLE", 14),
    ],
)
def test_the_status_by_its_names_and_as_a_number(x: Any, camel: str, snake: str, number: int) -> None:
    assert text("%GRPC_STATUS%", x) == value("%GRPC_STATUS(CAMEL_STRING)%", x) == camel
    assert text("%GRPC_STATUS(SNAKE_STRING)%", x) == value("%GRPC_STATUS(SNAKE_STRING)%", x) == snake
    assert text("%GRPC_STATUS(NUMBER)%", x) == str(number)
    assert value("%GRPC_STATUS_NUMBER%", x) == value("%GRPC_STATUS(NUMBER)%", x) == number


@pytest.mark.parametrize(
    "x",
    [
        answered([(b"grpc-status", b"5")], head=HTTP),
        answered([(b"grpc-status", b"5")], head=FakeHead("", ("content-type", "application/grpc"))),
        FakeExchange(GRPC, status=0),
        FakeExchange(None, status=0),
    ],
    ids=["other type", "no path", "no answer", "no request"],
)
def test_there_is_no_status_without_a_call_and_an_answer(x: Any) -> None:
    assert text("%GRPC_STATUS%", x) == text("%GRPC_STATUS_NUMBER%", x) == "-"
    assert value("%GRPC_STATUS%", x) is None and value("%GRPC_STATUS_NUMBER%", x) is None


def test_trailers_are_read_like_headers() -> None:
    x = answered([(b"x-a", b"1"), (b"x-a", b"2"), (b"x-long", b"abcdef")], ("x-b", "head"))
    assert text("%TRAILER(X-A)% %RESPONSE_TRAILER(x-long):3%", x) == "1 abc"
    assert text("%TRAILER(x-b?x-a)% %TRAILER(x-b)%", x) == "1 -"
    assert value("%TRAILER(x-a)%", x) == "1" and value("%TRAILER(x-b)%", x) is None
    assert text("%TRAILER(x-a)%", answered()) == "-"
    # Nothing of what is special among headers is among trailers.
    assert text("%TRAILER(:status)%", x) == "-"


@pytest.mark.parametrize(
    "wrong", ["%GRPC_STATUS(SHOUT)%", "%GRPC_STATUS_NUMBER(NUMBER)%", "%TRAILER%", "%TRAILER(a b)%"]
)
def test_what_no_operator_takes_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_text(wrong, "f")
    assert caught.value.path == "f"


@pytest.mark.parametrize(
    ("statuses", "exclude", "x", "expected"),
    [
        ({5}, False, answered([(b"grpc-status", b"5")]), True),
        ({5, 7}, False, answered([(b"grpc-status", b"7")], head=HTTP), True),
        ({5}, False, answered([(b"grpc-status", b"6")], ("grpc-status", "5")), False),
        ({5}, True, answered([(b"grpc-status", b"5")]), False),
        ({5}, True, answered([(b"grpc-status", b"6")]), True),
        ({0}, False, answered([(b"grpc-status", b"junk")]), False),
        ({14}, False, answered(None, status=503), True),
        ({2}, False, answered(None), True),
        ({2}, False, FakeExchange(GRPC, status=0), True),
        (set(), False, answered(None), False),
        (set(), True, answered(None), True),
    ],
)
def test_the_filter(statuses: set[int], exclude: bool, x: Any, expected: bool) -> None:
    assert compile_filter(GrpcStatusFilter(frozenset(statuses), exclude), "f")(x) is expected


def test_the_filter_is_decoded() -> None:
    def decoded(statuses: list[Any], **more: Any) -> Any:
        message = accesslog_pb2.AccessLogFilter()
        json_format.ParseDict({"grpc_status_filter": {"statuses": statuses, **more}}, message)
        return log_filter(message, "f")

    assert decoded(["OK", "UNAVAILABLE"], exclude=True) == GrpcStatusFilter(frozenset((0, 14)), True)
    assert decoded([]) == GrpcStatusFilter(frozenset())
    with pytest.raises(ConfigError) as caught:
        decoded([1, 17])
    assert caught.value.path == "f.grpc_status_filter.statuses[1]"
