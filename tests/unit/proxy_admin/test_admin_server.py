"""The admin server over real sockets: what it answers and whom it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.admin.server import AdminServer, Answer, Page, is_local_host
from proxy.model.address import SocketAddress


@pytest.fixture
async def server() -> AsyncIterator[AdminServer]:
    calls: list[str] = []

    def drain(query: object) -> Answer:
        calls.append("drain")
        return Answer("OK\n")

    made = AdminServer(
        {
            "/ready": Page(lambda query: Answer("LIVE\n"), "readiness"),
            "/echo": Page(lambda query: Answer(",".join(f"{k}={v}" for k, v in query.items())), "the query"),
            "/drain": Page(drain, "drain", post=True),
        },
        SocketAddress("127.0.0.1", 0),
    )
    await made.start()
    yield made
    await made.stop()


async def ask(server: AdminServer, request: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(request.encode("latin-1"))
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /ready", 200, "LIVE\n"),
        ("GET /ready/", 200, "LIVE\n"),
        ("HEAD /ready", 200, ""),
        ("POST /ready", 405, "/ready only reads: use GET\n"),
        ("GET /echo?a=1&b=&c=%20x", 200, "a=1,b=,c= x"),
        ("GET /drain", 405, "/drain changes something: use POST\n"),
        ("POST /drain", 200, "OK\n"),
    ],
)
async def test_pages(server: AdminServer, request_line: str, status: int, body: str) -> None:
    assert await ask(server, f"{request_line} HTTP/1.1\r\nhost: localhost\r\n\r\n") == (status, body)


async def test_unknown_paths_list_what_there_is(server: AdminServer) -> None:
    status, body = await ask(server, "GET /nope HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert status == 404
    assert "/ready: readiness" in body


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "169.254.169.254", ""])
async def test_foreign_hosts_are_refused(server: AdminServer, host: str) -> None:
    status, _ = await ask(server, f"GET /ready HTTP/1.1\r\nhost: {host}\r\n\r\n")
    assert status == 403
    assert server.refused == 1


async def test_malformed_and_oversized_requests_get_an_answer(server: AdminServer) -> None:
    assert (await ask(server, "GET /ready HTTP/1.1\r\nbad header: x\r\n\r\n"))[0] == 400
    assert (await ask(server, f"GET /ready HTTP/1.1\r\nhost: localhost\r\nx: {'y' * 40000}\r\n\r\n"))[
        0
    ] == 431


async def test_connections_above_the_limit_are_closed_and_counted(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.admin.server.MAX_CONNECTIONS", 1)
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET /re")
    await writer.drain()
    second_reader, second_writer = await asyncio.open_connection(*server.address)
    assert await second_reader.read() == b""
    assert server.overflows == 1
    writer.write(b"ady HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert (await reader.read()).endswith(b"LIVE\n")
    writer.close()
    second_writer.close()


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("LOCALHOST:15000", True), ("127.0.0.1:15000", True), ("127.42.0.7", True),
        ("[::1]:15000", True), ("[::1]", True), ("::1", False), ("10.0.0.1", False), ("localhost.", False),
        ("a.localhost", False),
    ],
)  # fmt: skip
def test_local_hosts(host: str, local: bool) -> None:
    assert is_local_host(host) is local


async def test_a_page_that_fails_is_a_500_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(query: object) -> Answer:
        raise RuntimeError("bug")

    server = AdminServer({"/stats": Page(broken, "statistics")}, SocketAddress("127.0.0.1", 0))
    await server.start()
    try:
        status, body = await ask(server, "GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n")
    finally:
        await server.stop()
    assert (status, body) == (500, "/stats failed; the application log says why\n")
    assert "bug" in caplog.text
