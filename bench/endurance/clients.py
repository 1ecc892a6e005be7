"""The kinds of client of the mixed load. Each is one coroutine that does one piece of work and says how it went.

A kind returns "" when the sidecar did what it must, else what it did instead; what a hostile client gets may differ
(a refusal, a closed connection), but it may not be a success.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from bench.endurance.app import BLOCK

PATIENCE: Final = 60.0
MALFORMED: Final = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
    b"\x16\x03\x01\x00\x05hello",
)


class Client:
    """A connection to the sidecar."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, port: int) -> Client:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 18))

    def get(self, path: str, more: str = "") -> None:
        """Ask for something."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: soak\r\n{more}\r\n".encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read a response's head: status and headers."""
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = raw[:-4].split("\r\n")
        return int(line.split(" ")[1]), {
            name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
        }

    async def body(self, headers: dict[str, str]) -> int:
        """Read a body by its framing; its size."""
        if "chunked" in headers.get("transfer-encoding", ""):
            total = 0
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                await self.skip(size + 2)
                total += size
            await self.reader.readuntil(b"\r\n")
            return total
        size = int(headers.get("content-length", "0"))
        await self.skip(size)
        return size

    async def skip(self, size: int) -> None:
        """Read ``size`` bytes and forget them."""
        while size:
            data = await self.reader.read(min(size, 1 << 18))
            if not data:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(data)

    async def rest(self) -> bytes:
        """Read up to the end, at most 1 MB."""
        got = b""
        try:
            while len(got) < 1 << 20 and (data := await self.reader.read(1 << 16)):
                got += data
        except OSError:
            pass
        return got

    def abort(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


Work = Callable[[Client], Awaitable[str]]


async def small(client: Client) -> str:
    """Some requests on one connection."""
    for _ in range(20):
        client.get("/small")
        status, headers = await client.head()
        if status != 200 or await client.body(headers) != 2:
            return f"status {status}"
    return ""


async def pipelined(client: Client) -> str:
    """Requests sent all at once are answered in order."""
    for size in range(1, 21):
        client.get(f"/bulk/{size}")
    for size in range(1, 21):
        status, headers = await client.head()
        if status != 200 or await client.body(headers) != size:
            return f"answer {size}: status {status}"
    return ""


async def download(client: Client, size: int = 8 << 20) -> str:
    """A large response, with and without chunks."""
    for kind in ("bulk", "chunked"):
        client.get(f"/{kind}/{size}")
        status, headers = await client.head()
        got = await client.body(headers)
        if (status, got) != (200, size):
            return f"status {status}, {got} bytes"
    return ""


async def upload(client: Client, size: int = 8 << 20) -> str:
    """A large request, with and without chunks."""
    writer = client.writer
    for framing in ("transfer-encoding: chunked", f"content-length: {size}"):
        chunked = "chunked" in framing
        writer.write(f"POST /sink HTTP/1.1\r\nHost: soak\r\n{framing}\r\n\r\n".encode())
        left = size
        while left:
            block = BLOCK[: min(left, len(BLOCK))]
            writer.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            left -= len(block)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        status, headers = await client.head()
        await client.body(headers)
        if status != 200:
            return f"status {status}"
    return ""


async def slow(client: Client) -> str:
    """A slow answer, to a request that comes in pieces."""
    for piece in (b"GET /slow HT", b"TP/1.1\r\nHo", b"st: soak\r\n", b"\r\n"):
        client.writer.write(piece)
        await asyncio.sleep(0.02)
    status, headers = await client.head()
    return "" if (status, await client.body(headers)) == (200, 10) else f"status {status}"


async def slow_head(client: Client) -> str:
    """A head that never ends."""
    client.writer.write(b"GET / HTTP/1.1\r\nHost: soak\r\n")
    return _refused(await client.rest(), b"408")


async def slow_body(client: Client) -> str:
    """A body that never comes."""
    client.writer.write(b"POST /sink HTTP/1.1\r\nHost: soak\r\ncontent-length: 100\r\n\r\nabc")
    return _refused(await client.rest(), b"408")


async def slow_reader(client: Client) -> str:
    """Somebody who asks for much and does not read it."""
    client.get(f"/bulk/{64 << 20}")
    await client.head()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(random.uniform(0.1, 1.0))
    client.abort()
    return ""


async def aborted_upload(client: Client) -> str:
    """A client that goes away in the middle of its request, read or not."""
    target = random.choice((b"sink", b"stall", b"abort-early"))
    client.writer.write(b"POST /%b HTTP/1.1\r\nHost: soak\r\ncontent-length: 9000000\r\n\r\n" % target)
    try:
        for _ in range(random.randrange(20)):
            client.writer.write(BLOCK)
            async with asyncio.timeout(0.2):
                await client.writer.drain()
    except (TimeoutError, OSError):
        pass
    client.abort()
    return ""


async def aborted_download(client: Client) -> str:
    """A client that goes away in the middle of the answer, or before it."""
    client.get(random.choice((f"/bulk/{64 << 20}", f"/chunked/{64 << 20}", "/slow", "/stall")))
    try:
        async with asyncio.timeout(random.uniform(0.0, 0.2)):
            await client.skip(1 << 20)
    except (TimeoutError, OSError):
        pass
    client.abort()
    return ""


async def broken_app(client: Client) -> str:
    """An app that dies, lies, or stops in the middle."""
    path = random.choice(("/cut", "/reset", "/garbage"))
    client.get(path)
    try:
        status, headers = await client.head()
        await client.body(headers)
    except (asyncio.IncompleteReadError, OSError):
        return ""
    return "" if status >= 500 else f"{path} was taken for a success"


async def malformed(client: Client) -> str:
    """Bytes that are no request."""
    which = random.choice(MALFORMED)
    client.writer.write(which)
    return _refused(await client.rest(), b"4", b"505")


async def tunnel(client: Client) -> str:
    """An upgraded connection."""
    client.get("/tunnel", "connection: upgrade\r\nupgrade: websocket\r\n")
    status, _ = await client.head()
    if status != 101:
        return f"status {status}"
    for size in (1, 1000, 100_000):
        client.writer.write(BLOCK[:size])
        await client.skip(size)
    return ""


KINDS: Final[dict[str, Work]] = {
    work.__name__: work
    for work in (
        small, pipelined, download, upload, slow, slow_head, slow_body, slow_reader, aborted_upload,
        aborted_download, broken_app, malformed, tunnel,
    )
}  # fmt: skip


def _refused(answer: bytes, *statuses: bytes) -> str:
    """A connection that is closed without an answer is refused, too."""
    if not answer or any(answer.startswith(b"HTTP/1.1 " + status) for status in statuses):
        return ""
    return f"answered {answer[:60]!r}"
