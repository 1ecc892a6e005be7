"""``python -m bench.load.grpc_server PORT SIZE``: answers every HTTP/2 request like a gRPC server with one message.

It reads no fields, only where streams end, and writes ready frames: HEADERS, SIZE bytes of DATA, trailers. What a
real server spends on its own is not what is measured. It keeps to flow control.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import cast

import uvloop

PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
FRAME = 16384
WINDOW = 0x7FFFFFFF


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A field that enters no table (RFC 7541 section 6.2.2)."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


HEAD = b"\x88" + literal(b"content-type", b"application/grpc") + literal(b"grpc-encoding", b"identity")
TRAILERS = literal(b"grpc-status", b"0")
SETTINGS = frame(4, 0, 0, b"\0\4" + WINDOW.to_bytes(4, "big"))
CREDIT = frame(8, 0, 0, (WINDOW - 65535).to_bytes(4, "big"))


class Connection(asyncio.Protocol):
    """One connection. ``size``: of every message."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._body = b"\0" + (size - 5).to_bytes(4, "big") + bytes(min(size, FRAME))
        self._buffer = b""
        self._skip = PREFACE
        self._window = self._initial = 65535
        self._windows: dict[int, int] = {}
        self._waiting: deque[tuple[int, int]] = deque()
        self._consumed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no subclass.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(SETTINGS + CREDIT)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        at = 0
        if self._skip:
            if len(buffer) < self._skip:
                self._buffer = buffer
                return
            at, self._skip = self._skip, 0
        out: list[bytes] = []
        while len(buffer) - at >= 9:
            end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if end > len(buffer):
                break
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._frame(buffer[at + 3], buffer[at + 4], stream, buffer[at + 9 : end], out)
            at = end
        self._buffer = buffer[at:]
        self._send(out)
        if out:
            self._transport.write(b"".join(out))

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, out: list[bytes]) -> None:
        if kind == 0:
            self._consumed += len(payload)
            if self._consumed > 1 << 20:
                out.append(frame(8, 0, 0, self._consumed.to_bytes(4, "big")))
                self._consumed = 0
        elif kind == 4 and not flags:
            for at in range(0, len(payload), 6):
                if payload[at : at + 2] == b"\0\4":
                    new = int.from_bytes(payload[at + 2 : at + 6], "big")
                    self._windows = {key: left + new - self._initial for key, left in self._windows.items()}
                    self._initial = new
            out.append(frame(4, 1, 0, b""))
        elif kind == 6 and not flags:
            out.append(frame(6, 1, 0, payload))
        elif kind == 8:
            more = int.from_bytes(payload, "big")
            if stream:
                # One that is answered has none any more.
                if stream in self._windows:
                    self._windows[stream] += more
            else:
                self._window += more
        elif kind == 3:
            self._windows.pop(stream, None)
        if kind in (0, 1):
            if kind == 1:
                self._windows.setdefault(stream, self._initial)
            if flags & 1:
                out.append(frame(1, 4, stream, HEAD))
                self._waiting.append((stream, self._size))

    def _send(self, out: list[bytes]) -> None:
        """As much of the messages as the windows allow, each stream in its turn."""
        for _ in range(len(self._waiting)):
            stream, left = self._waiting.popleft()
            if stream not in self._windows:
                continue
            while left:
                size = min(left, FRAME, self._window, self._windows[stream])
                if size <= 0:
                    break
                body = self._body[:size] if left == self._size else bytes(size)
                out.append(frame(0, 0, stream, body))
                self._window -= size
                self._windows[stream] -= size
                left -= size
            if left:
                self._waiting.append((stream, left))
            else:
                del self._windows[stream]
                out.append(frame(1, 5, stream, TRAILERS))


async def main() -> None:
    port, size = int(sys.argv[1]), int(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(lambda: Connection(size), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
