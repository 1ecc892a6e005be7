"""Exchanges made up by hypothesis: plain and odd parts put together, then a few bytes damaged.

Every exchange comes to an end by itself: after the request the client sends what ends whatever a parser waits for
(``flush``), and the backend ends its half after its answer.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

from tests.support.raw_exchange import Answer, Case, Outcome

_METHODS = st.sampled_from((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"get", b"FOO"))
_TARGETS = st.sampled_from(
    (b"/", b"/a?b", b"/direct", b"http://h/x", b"http://h:80/", b"*", b"/%00", b"//a", b"/a#b", b"x")
)
_VERSIONS = st.sampled_from((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"))
_FIELDS = st.sampled_from(
    (
        b"x: y", b"X-Other:y", b"x:", b"x: a, b", b"cookie: a=b", b"connection: close", b"connection: keep-alive",
        b"connection: x", b"te: trailers", b"expect: 100-continue", b"content-length: 0", b"content-length: 3",
        b"content-length: 3", b"content-length: 5", b"content-length: x", b"transfer-encoding: chunked",
        b"transfer-encoding: chunked", b"transfer-encoding: gzip", b"x : y", b" x: y", b"x: \x01", b"host: i",
        b"user-agent: me", b"accept: */*", b"x_y: z", b"x: " + b"a" * 300,
    )
)  # fmt: skip
_BODIES = st.sampled_from(
    (
        b"", b"", b"abc", b"abcde", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"3;e=f\r\nabc\r\n0\r\n\r\n",
        b"5\r\nabc\r\n",
        b"z\r\n", b"3\r\nabcX", b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
    )
)  # fmt: skip
_STATUS_LINES = st.sampled_from(
    (
        b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified", b"HTTP/1.0 200 OK", b"HTTP/2.0 200 OK", b"HTTP/1.1 20 OK",
    )
)  # fmt: skip
_DAMAGE = st.tuples(
    st.integers(0, 400),
    st.sampled_from((b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b":", b";", b",", b'"', b"x", b"-", b"\x7f",
         b"\x80", b"")),
    st.integers(0, 1),
)  # fmt: skip


def _damaged(data: bytes, damage: list[tuple[int, bytes, int]]) -> bytes:
    for where, what, gone in damage:
        at = where % (len(data) + 1)
        data = data[:at] + what + data[at + gone :]
    return data


_HURT = st.lists(_DAMAGE, max_size=2)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    line = b" ".join((draw(_METHODS), draw(_TARGETS), draw(_VERSIONS)))
    fields = [b"host: h", *draw(st.lists(_FIELDS, max_size=4))]
    return _damaged(b"\r\n".join((line, *fields, b"", draw(_BODIES))), draw(_HURT))


@st.composite
def _answers(draw: st.DrawFn) -> bytes:
    head = [draw(_STATUS_LINES), *draw(st.lists(_FIELDS, max_size=3))]
    return _damaged(b"\r\n".join((*head, b"", draw(_BODIES))), draw(_HURT))


@st.composite
def batches(draw: st.DrawFn) -> list[Case]:
    """Some exchanges that are played together."""
    config = st.sampled_from(("plain", "http10", "normalize"))
    made = draw(st.lists(st.tuples(_requests(), _answers(), config), min_size=8, max_size=16))
    return [
        Case(
            f"{n}",
            request,
            (Answer(answer, "end"),) * 3,
            config=config,
            end="flush",
            heads=frozenset((0,)) if request.startswith(b"HEAD ") else frozenset(),
        )
        for n, (request, answer, config) in enumerate(made)
    ]


REFUSALS = frozenset((b"400", b"426", b"431", b"501", b"502"))


def disagreement(expected: Outcome, got: Outcome) -> str:
    """What is wrong with ``got``, empty if nothing.

    Either both did the same. Or, up to some response they did, and there Tulle is the stricter one: it says so with a
    status. In any case the backend had nothing from it that it had not from Envoy too.
    """
    more = [request for request in requests_of(got) if request not in requests_of(expected)]
    if more:
        return f"the backend got more: {more}"
    for wanted, made in itertools.zip_longest(map(_shown, expected.client), map(_shown, got.client)):
        if made != wanted:
            return "" if made is not None and made[0][9:12] in REFUSALS else f"{made} instead of {wanted}"
    return ""


def _shown(message: Any) -> tuple[Any, ...]:
    """Without the reason phrase, and without what a message that has no body says of one: both are in
    docs/envoy-differences.md."""
    first, fields, framing, *rest = message
    if framing == "none":
        fields = tuple(field for field in fields if field[0] != b"transfer-encoding")
    return (first[:12], fields, framing, *rest)


def requests_of(outcome: Outcome) -> list[object]:
    """The complete requests that reached the backend, over all connections."""
    return [message for shown, _, _ in outcome.backend for message in shown if message[5]]  # type: ignore[misc,attr-defined]
