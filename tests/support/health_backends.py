"""Servers that answer health checks in their own ways, and keep what they were asked.

``servers()`` are by name; ``check`` of each is the ``HealthCheck`` that asks it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.grpc.message import frame
from tests.fakes.http2 import Http2Peer, Stream, http2_backend
from tests.fakes.sidecar import Peer, backend

Json = dict[str, Any]
SERVING, NOT_SERVING, UNKNOWN = b"\x08\x01", b"\x08\x02", b""
GRPC_TYPE = ("content-type", "application/grpc")


def says(status: int, *lines: bytes, body: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n" % (status, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


@dataclass
class Server:
    """``check`` is how it is asked. ``answer`` may be changed: bytes of HTTP/1.1 or TCP, or a word for gRPC; "silent"
    says nothing, "close" ends the connection. A list of them is said one by one, and then nothing more. ``asked``: what
    came."""

    kind: str
    check: Json
    answer: Any
    asked: list[Any] = field(default_factory=list)
    port: int = 0

    async def http(self, peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    head += await peer.exactly(int(line[15:]))
            if b"user-agent: Envoy/HC" in head:
                self.asked.append(head)
            if not self._say(peer):
                return

    async def tcp(self, peer: Peer) -> None:
        while data := await peer.reader.read(1000):
            self.asked.append(data)
            if not self._say(peer):
                return

    def _next(self) -> Any:
        if not isinstance(self.answer, list):
            return self.answer
        return self.answer.pop(0) if self.answer else "silent"

    def _say(self, peer: Peer) -> bool:
        """False: the connection is to be closed."""
        answer = self._next()
        if isinstance(answer, bytes):
            peer.send(answer)
        return bool(answer != "close")

    async def grpc(self, peer: Http2Peer, number: int, stream: Stream) -> None:
        await peer.until(lambda: stream.ended or stream.reset is not None)
        self.asked.append((sorted(stream.fields.items()), bytes(stream.body)))
        ended = [("grpc-status", "0")]
        match self._next():
            case bytes() as message:
                peer.respond(number, GRPC_TYPE)
                peer.send(number, frame(message), trailers=ended)
            case "twice":
                peer.respond(number, GRPC_TYPE)
                peer.send(number, frame(SERVING) * 2, trailers=ended)
            case "garbage":
                peer.respond(number, GRPC_TYPE)
                peer.send(number, frame(b"\xff"), trailers=ended)
            case "compressed":
                peer.respond(number, GRPC_TYPE)
                peer.send(number, b"\x01" + frame(SERVING)[1:], trailers=ended)
            case "no trailers":
                peer.respond(number, GRPC_TYPE)
                peer.send(number, frame(SERVING), end=True)
            case "no status":
                peer.respond(number, GRPC_TYPE)
                peer.send(number, frame(SERVING), trailers=[("x", "y")])
            case "error":
                peer.respond(number, GRPC_TYPE)
                peer.send(number, frame(SERVING), trailers=[("grpc-status", "14")])
            case "unimplemented":
                peer.respond(number, GRPC_TYPE, ("grpc-status", "12"), end=True)
            case "html":
                peer.respond(number, ("content-type", "text/html"))
                peer.send(number, b"hi", end=True)
            case "503":
                peer.respond(number, status=503, end=True)
            case "reset":
                peer.reset(number)
            case "goaway":
                peer.h2.send_goaway(11, last_stream_id=number)
                peer.flush()
            case "page":
                peer.respond(number, end=True)


def check(**options: Any) -> Json:
    """Asked once, as nothing is connected to."""
    return {
        "timeout": "3s",
        "interval": "60s",
        "no_traffic_interval": "60s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 2,
        **options,
    }


def http(answer: Any, more: Json | None = None, **options: Any) -> Server:
    return Server("http", check(http_health_check={"path": "/healthz", **options}, **(more or {})), answer)


def tcp(answer: Any, send: str = "", *receive: str) -> Server:
    asks: Json = {"receive": [{"text": text} for text in receive]}
    if send:
        asks["send"] = {"text": send}
    return Server("tcp", check(tcp_health_check=asks), answer)


def grpc(answer: Any, more: Json | None = None, **options: Any) -> Server:
    return Server("grpc", check(grpc_health_check=options, **(more or {})), answer)


def header(name: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> Json:
    return {"header": {"key": name, "value": value}, "append_action": action}


NAMED = {"service_name_matcher": {"prefix": "shop"}}
NAME = b"x-envoy-upstream-healthchecked-cluster: "
FAIL = b"x-envoy-immediate-health-check-fail: 1"


def servers() -> dict[str, Server]:
    """All of them, new."""
    edits = {
        "request_headers_to_add": [
            header("x-one", "1"),
            header("X-One", "2"),
            header("user-agent", "other", "ADD_IF_ABSENT"),
            header("x-absent", "no", "OVERWRITE_IF_EXISTS"),
        ],
    }
    return {
        "http-ok": http(says(200)),
        "http-204": http(says(204)),
        "http-expected": http(says(204), expected_statuses=[{"start": 204, "end": 205}]),
        "http-500": http(says(500)),
        "http-retriable": http(says(429), retriable_statuses=[{"start": 429, "end": 430}]),
        "http-silent": http("silent"),
        "http-closes": http("close"),
        "http-garbage": http(b"SSH-2.0-x\r\n\r\n"),
        "http-degraded": http(says(200, b"x-envoy-degraded: 1")),
        "http-excluded": http(says(503, FAIL)),
        "http-fail-but-ok": http(says(200, FAIL)),
        "http-body": http(says(200, body=b"all is well"), receive=[{"text": "616c6c"}, {"text": "77656c6c"}]),
        "http-no-body": http(says(200, body=b"all is bad"), receive=[{"text": "77656c6c"}]),
        "http-far-body": http(
            says(200, body=b"all is well"), receive=[{"text": "77656c6c"}], response_buffer_size=8
        ),
        "http-name": http(says(200, NAME + b"shop-1"), **NAMED),
        "http-other-name": http(says(200, NAME + b"app"), **NAMED),
        "http-post": http(says(200), method="POST", send={"text": "0168"}, host="h.test"),
        "http-empty-put": http(says(200), method="PUT"),
        "http-head": http(b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n", method="HEAD"),
        "http-edits": http(says(200), **edits),
        "http-removes": http(says(200), request_headers_to_remove=["user-agent"]),
        "http-once": http(says(200), {"reuse_connection": False}),
        "http2": Server(
            "grpc",
            check(http_health_check={"path": "/healthz?a=b", "codec_client_type": "HTTP2"}),
            "page",
        ),
        "tcp-connect": tcp("silent"),
        "tcp-match": tcp(b"..PONG", "50494e47", "504f", "4e47"),
        "tcp-mismatch": tcp(b"GNOP", "50494e47", "504f4e47"),
        "tcp-closes": tcp("close", "50494e47", "504f4e47"),
        "grpc-serving": grpc(SERVING, service_name="shop.Orders", authority="orders.test"),
        "grpc-not-serving": grpc(NOT_SERVING),
        "grpc-unknown": grpc(UNKNOWN),
        "grpc-metadata": grpc(SERVING, initial_metadata=[header("x-one", "1"), header("x-two", "2")]),
        **{
            f"grpc-{kind.replace(' ', '-')}": grpc(kind)
            for kind in (
                *("twice", "garbage", "compressed", "no trailers", "no status", "error", "unimplemented"),
                *("html", "503", "reset", "goaway", "silent"),
            )
        },
    }


@asynccontextmanager
async def serving(given: dict[str, Server], tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """Open them."""
    async with AsyncExitStack() as stack:
        for server in given.values():
            serve: Callable[..., Awaitable[None]] = getattr(server, server.kind)
            opened: Any = http2_backend(serve, tls) if server.kind == "grpc" else backend(serve, tls)
            server.port = (await stack.enter_async_context(opened)).port
        yield
        await asyncio.sleep(0)


def cluster(name: str, server: Server, *ports: int) -> Json:
    """A cluster of the server's port, or of ``ports``."""
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        for port in ports or (server.port,)
    ]
    http2 = {"http2_protocol_options": {}} if server.kind == "grpc" else {}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "health_checks": [server.check],
        **http2,
    }
