"""The app behind the sidecars: it answers well, in bulk, slowly, in part, with nonsense, or not at all, by path."""

from __future__ import annotations

import asyncio
from typing import Final

BLOCK: Final = b"\0" * (256 * 1024)
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GARBAGE: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"hello\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
)


class App:
    """One server on loopback. ``sent`` counts bytes of bulk responses; ``/hold`` goes on when ``release`` is set."""

    def __init__(self) -> None:
        self.port = 0
        self.sent = 0
        self.release = asyncio.Event()
        self._garbage = 0
        self._server: asyncio.Server
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close everything."""
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError, TimeoutError, asyncio.CancelledError):
            # Cancelled by the end of the loop: the stream's own callback cannot stand that.
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head[:-4].split(b"\r\n")
        path = line.split(b" ")[1]
        names = {
            name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)
        }
        kind, _, size = path[1:].partition(b"/")
        if kind == b"stall":
            # The request is never read.
            await asyncio.sleep(2)
            return False
        if kind == b"abort-early":
            await reader.read(1)
            writer.transport.abort()
            return False
        if kind == b"hold":
            await self.release.wait()
        await _drain_body(reader, names)
        if kind == b"bulk":
            await self._bulk(writer, int(size), chunked=False)
        elif kind == b"chunked":
            await self._bulk(writer, int(size), chunked=True)
        elif kind == b"slow":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
            for _ in range(10):
                await asyncio.sleep(0.02)
                if writer.is_closing():
                    return False
                writer.write(b"x")
        elif kind == b"cut":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + BLOCK[:100_000])
            await writer.drain()
            return False
        elif kind == b"reset":
            writer.transport.abort()
            return False
        elif kind == b"garbage":
            self._garbage += 1
            writer.write(GARBAGE[self._garbage % len(GARBAGE)])
            await writer.drain()
            return False
        elif kind == b"tunnel":
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            return False
        else:
            writer.write(OK)
        await writer.drain()
        return True

    async def _bulk(self, writer: asyncio.StreamWriter, size: int, *, chunked: bool) -> None:
        framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % size
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        left = size
        while left:
            block = BLOCK[: min(left, len(BLOCK))]
            writer.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            left -= len(block)
            self.sent += len(block)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")


async def _drain_body(reader: asyncio.StreamReader, names: dict[bytes, bytes]) -> None:
    """Read a request's body."""
    if b"transfer-encoding" in names:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await _skip(reader, size + 2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return
    size = int(names.get(b"content-length", b"0"))
    await _skip(reader, size)


async def _skip(reader: asyncio.StreamReader, size: int) -> None:
    while size:
        data = await reader.read(min(size, 1 << 18))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(data)
