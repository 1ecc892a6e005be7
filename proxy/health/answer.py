"""What the answer to a check over HTTP or gRPC comes to, piece by piece. It asks nobody."""

from __future__ import annotations

from typing import Final, Protocol

from proxy.cluster.health_answer import Judge
from proxy.grpc.health import HealthCall, Verdict
from proxy.health.outcome import DEGRADED, PASSED, Outcome
from proxy.http1.head import Head
from proxy.upstream.stream import Fields

EXCLUDE: Final = b"x-envoy-immediate-health-check-fail"


class Answer(Protocol):
    """What a response is read into. ``outcome`` ``None``: there is more to come."""

    def head(self, head: Head, done: bool, /) -> Outcome | None: ...
    def body(self, data: bytes, done: bool, /) -> Outcome | None: ...
    def trailers(self, fields: Fields, /) -> Outcome | None: ...


class HttpAnswer:
    """The answer to a check over HTTP; at most ``limit`` bytes of its body are kept, 0 = all of it."""

    __slots__ = ("_body", "_head", "_judge", "_limit", "_wanted")

    def __init__(self, judge: Judge, limit: int, *, wanted: bool) -> None:
        """``wanted``: the body is looked at."""
        self._judge = judge
        self._limit = limit
        self._wanted = wanted
        self._head: Head | None = None
        self._body = b""

    def head(self, head: Head, done: bool) -> Outcome | None:
        self._head = head
        return self._outcome() if done else None

    def body(self, data: bytes, done: bool) -> Outcome | None:
        if self._wanted and (not self._limit or len(self._body) < self._limit):
            self._body += data
            if self._limit:
                self._body = self._body[: self._limit]
        return self._outcome() if done else None

    def trailers(self, fields: Fields) -> Outcome | None:
        return self._outcome()

    def _outcome(self) -> Outcome:
        head = self._head
        assert head is not None
        verdict = self._judge(head, self._body)
        if verdict == "passed":
            return PASSED
        if verdict == "degraded":
            return DEGRADED
        return Outcome(
            "active",
            f"status {head.status}",
            retriable=verdict == "retriable",
            excluded=head.get(EXCLUDE) is not None,
        )


class GrpcAnswer:
    """The answer to a ``grpc.health.v1.Health/Check``."""

    __slots__ = ("_call",)

    def __init__(self) -> None:
        self._call = HealthCall()

    def head(self, head: Head, done: bool) -> Outcome | None:
        return _of(self._call.head(head, done=done))

    def body(self, data: bytes, done: bool) -> Outcome | None:
        return _of(self._call.body(data, done=done))

    def trailers(self, fields: Fields) -> Outcome | None:
        return _of(self._call.trailers(fields))


def _of(verdict: Verdict | None) -> Outcome | None:
    if verdict is None:
        return None
    return PASSED if verdict.healthy else Outcome("active", verdict.why)
