"""What an answer to a health check over HTTP or TCP says. Pure; ``proxy.grpc.health`` is its like for gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from proxy.match.strings import compile_str
from proxy.model.exchange import Head
from proxy.model.health_check import HttpCheck, StatusRange

Answer = Literal["passed", "degraded", "failed", "retriable"]
Judge = Callable[[Head, bytes], Answer]


def holds(body: bytes, wanted: tuple[bytes, ...]) -> bool:
    """Whether all of ``wanted`` are in ``body``, one after the other (Envoy's ``PayloadMatcher::match``)."""
    at = 0
    for piece in wanted:
        at = body.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def compile_http(check: HttpCheck, field: str, verified: Callable[[], None]) -> Judge:
    """The verdict on a response (``HttpActiveHealthCheckSession::healthCheckResult``). Raises ``ConfigError`` under
    ``field``.

    ``verified`` is called when the name of the service is looked at. Of its body, as much is given as
    ``response_buffer_size`` says. A response that is not passed and has ``x-envoy-immediate-health-check-fail``
    excludes the host besides, which is for the caller to see.
    """
    called = None
    if check.service_name is not None:
        called = compile_str(check.service_name, f"{field}.service_name_matcher")

    def judge(head: Head, body: bytes) -> Answer:
        if check.receive and not holds(body, check.receive):
            return "failed"
        if not _within(head.status, check.expected_statuses):
            return "retriable" if _within(head.status, check.retriable_statuses) else "failed"
        if called is not None:
            verified()
            name = head.get(b"x-envoy-upstream-healthchecked-cluster") or b""
            if not called(name.decode("latin-1")):
                return "failed"
        return "passed" if head.get(b"x-envoy-degraded") is None else "degraded"

    return judge


def _within(status: int, ranges: tuple[StatusRange, ...]) -> bool:
    return any(first <= status < end for first, end in ranges)
