"""What costs more to take than to send ends its connection: GOAWAY says why, a counter counts it, memory is bounded.

The bytes are made by hand: no client library sends them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import repeat

import pytest
from hpack import Encoder

from proxy.accept.listeners import SocketKey, bind
from proxy.accept.worker import WorkerOptions
from proxy.model.http2 import Http2Options
from tests.fakes.http2 import dial_http2
from tests.fakes.sidecar import HOST, Sidecar, backend, chain, cluster, forward, http, listener, sidecar
from tests.support.h2_engines import engine

__all__ = ["engine"]

pytestmark = pytest.mark.usefixtures("engine")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, END_HEADERS = 1, 4
ENHANCE_YOUR_CALM = 11


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def head(encoder: Encoder, *more: tuple[str, str], method: str = "GET") -> bytes:
    fields = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a"), *more]
    block: bytes = encoder.encode(fields)
    return block


HELLO = PREFACE + frame(SETTINGS, 0, 0)


def rapid_reset() -> bytes:
    encoder = Encoder()
    return b"".join(
        frame(HEADERS, END_STREAM | END_HEADERS, n, head(encoder))
        + frame(RST_STREAM, 0, n, struct.pack(">I", 8))
        for n in range(1, 1200, 2)
    )


def continuation() -> bytes:
    block = head(Encoder())
    return frame(HEADERS, END_STREAM, 1, block) + frame(CONTINUATION, 0, 1, b"\0\1x\1y") * 1000


def continuation_without_bytes() -> bytes:
    return frame(HEADERS, END_STREAM, 1, head(Encoder())) + frame(CONTINUATION, 0, 1) * 10


def empty_data() -> bytes:
    return frame(HEADERS, END_HEADERS, 1, head(Encoder(), method="POST")) + frame(DATA, 0, 1) * 10


def priority() -> bytes:
    return frame(PRIORITY, 0, 3, struct.pack(">IB", 1, 15)) * 500


def window_update() -> bytes:
    return frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 500


FLOODS: dict[str, Callable[[], bytes]] = {
    "downstream_rq_too_many_premature_resets": rapid_reset,
    "header_overflow": continuation,
    "inbound_empty_frames_flood": empty_data,
    "inbound_empty_frames_flood (CONTINUATION)": continuation_without_bytes,
    "inbound_priority_frames_flood": priority,
    "inbound_window_update_frames_flood": window_update,
}


def _small(key: SocketKey) -> socket.socket:
    """The kernel would take megabytes of answers before any wait here, and making them takes seconds."""
    opened = bind(key)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return opened


@asynccontextmanager
async def attacked(**options: object) -> AsyncIterator[Sidecar]:
    async with backend() as app:
        manager = http(forward("/", "up"), **options)
        limits = WorkerOptions(open_socket=_small)
        async with sidecar(cluster("up", app.port), listener(chain(manager)), options=limits) as it:
            yield it
            # Others are served, and nothing is left of the attack.
            client = await dial_http2(it.port)
            assert bytes((await client.response(client.request())).body) == b"ok"
            client.close()
            assert it.http_stats().downstream_rq_active == 0
            assert it.cluster_stats("up").upstream_rq_active == 0


class Attack(threading.Thread):
    """Sends, and reads only what is asked for."""

    def __init__(self, port: int, data: Iterable[bytes], *, reads: bool = True) -> None:
        super().__init__(daemon=True)
        self._data = data
        self._reads = reads
        self._port = port
        self.answer = b""

    def run(self) -> None:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(30)
            sock.connect((HOST, self._port))
            try:
                sock.sendall(HELLO)
                for piece in self._data:
                    sock.sendall(piece)
                if self._reads:
                    while part := sock.recv(1 << 16):
                        self.answer += part
            except ConnectionError:
                # It was thrown out while it was still sending.
                pass

    def codes(self) -> list[int]:
        """The error codes of the GOAWAY frames that came."""
        found, at = [], 0
        while at + 9 <= len(self.answer):
            size = int.from_bytes(self.answer[at : at + 3], "big")
            if self.answer[at + 3] == GOAWAY:
                found.append(int.from_bytes(self.answer[at + 13 : at + 17], "big"))
            at += 9 + size
        return found


async def over(attack: Attack) -> None:
    attack.start()
    await asyncio.to_thread(attack.join, 40)
    assert not attack.is_alive()


@pytest.mark.parametrize("name", FLOODS)
async def test_floods_end_with_a_reason_and_a_counter(name: str) -> None:
    async with attacked() as it:
        attack = Attack(it.port, (FLOODS[name](),))
        await over(attack)
        assert attack.codes() == [ENHANCE_YOUR_CALM]
        counter = name.partition(" ")[0]
        owner = it.http_stats() if counter.startswith("downstream") else it.hub.current.stats.http2
        assert getattr(owner, counter) == 1


@pytest.mark.parametrize("kind", ["ping", "settings", "resets"])
async def test_answers_that_nobody_reads_are_bounded(kind: str) -> None:
    """A client that makes us answer and does not read: what waits for it is bounded."""
    data: Iterable[bytes]
    if kind == "ping":
        data = repeat(frame(PING, 0, 0, b"12345678") * 1000)
    elif kind == "settings":
        data = repeat(frame(SETTINGS, 0, 0) * 1000)
    else:
        # Heads that are refused, each with a reset.
        encoder = Encoder()
        data = (
            frame(HEADERS, END_STREAM | END_HEADERS, n, head(encoder, ("connection", "x")))
            for n in range(1, 1 << 31, 2)
        )
    options = Http2Options(stream_error_on_invalid_http_message=True)
    async with attacked(http2=options) as it:
        await over(Attack(it.port, data, reads=False))
        if kind == "resets":
            # As in Envoy: a stream that the codec resets for what came counts like one that the client resets.
            assert it.http_stats().downstream_rq_too_many_premature_resets == 1
        else:
            assert it.hub.current.stats.http2.outbound_control_flood == 1


async def test_a_head_that_expands_is_refused() -> None:
    """HPACK: a large field put into the table once, then named again and again (CVE-2016-6581)."""
    encoder = Encoder()
    first = head(encoder, ("x-a", "b" * 3900))
    data = frame(HEADERS, END_STREAM | END_HEADERS, 1, first)
    data += frame(HEADERS, END_STREAM | END_HEADERS, 3, head(encoder) + b"\xbe" * 15_000)
    async with attacked() as it:
        attack = Attack(it.port, (data,))
        await over(attack)
        assert it.hub.current.stats.http2.header_overflow == 1
