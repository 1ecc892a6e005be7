"""Limits of HTTP/1.1 syntax: each is reached by way of its option, answered, and counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.sidecar import Peer, ask, backend, chain, cluster, forward, http, listener, sidecar

REQUESTS = [
    # A head: its bytes, its fields.
    ({"max_request_headers_kb": 1}, b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 1000 + b"\r\n\r\n", 431),
    ({"max_headers_count": 2}, b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\ny: 2\r\n\r\n", 431),
    # What a chunk's size line and the trailers may have is what a head may have.
    (
        {"max_request_headers_kb": 1},
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 1100,
        400,
    ),
    (
        {"max_request_headers_kb": 1},
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 1100,
        431,
    ),
]


@pytest.mark.parametrize(("options", "data", "status"), REQUESTS)
async def test_requests(options: dict[str, Any], data: bytes, status: int) -> None:
    async with (
        backend() as app,
        sidecar(listener(chain(http(forward("/", "up"), **options))), cluster("up", app.port)) as it,
    ):
        answer = await ask(it.port, data)
        assert answer.startswith(b"HTTP/1.1 %d " % status) and b"\r\nconnection: close\r\n" in answer
        assert it.http_stats().downstream_cx_protocol_error == 1
        assert app.connections == 0


@pytest.mark.parametrize(("options", "data", "status"), REQUESTS)
async def test_requests_within_the_defaults(options: dict[str, Any], data: bytes, status: int) -> None:
    end = b"" if data.endswith(b"\r\n\r\n") else b"\r\na\r\n0\r\n\r\n" if b"1;" in data else b"\r\n\r\n"
    async with (
        backend(answer_once) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port)) as it,
    ):
        data = data.replace(b"\r\nhost: a", b"\r\nhost: a\r\nconnection: close") + end
        assert (await ask(it.port, data)).startswith(b"HTTP/1.1 200 ")


async def answer_once(peer: Peer) -> None:
    await peer.until(b"\r\n\r\n")
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    await peer.until(b"never")


RESPONSES = [
    ({"max_response_headers_kb": 1}, b"HTTP/1.1 200 OK\r\nx: " + b"a" * 1100),
    ({"max_headers_count": 2}, b"HTTP/1.1 200 OK\r\nx: 1\r\ny: 2\r\ncontent-length: 0\r\n\r\n"),
    # Interim heads count against the limit of the head that they come before.
    ({"max_response_headers_kb": 1}, b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    (
        {"max_response_headers_kb": 1},
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 1100,
    ),
    (
        {"max_response_headers_kb": 1},
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 1100,
    ),
]


@pytest.mark.parametrize(("options", "data"), RESPONSES)
async def test_responses(options: dict[str, Any], data: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(data)
        await peer.until(b"never")

    async with (
        backend(serve) as app,
        sidecar(listener(chain(http(forward("/", "up")))), cluster("up", app.port, **options)) as it,
    ):
        answer = await ask(it.port, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"HTTP/1.1 502 " in answer and b"HTTP/1.1 200 " not in answer
        assert it.cluster_stats("up").upstream_cx_protocol_error == 1
