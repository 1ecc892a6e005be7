"""Steady traffic for the demo: keep-alive HTTP/1.1 requests at a fixed rate, counted by who answered.

Run as ``python -m control_plane.cli.demo.load --url http://web.shop.mesh.local/ --rate 100``. Every tick it prints
one JSON line of what happened since the last: ``{"ok": 25, "failed": 0, "by": {"web-v1": 22, "web-v2": 3},
"errors": {}}``. An answer of 500 or more, a broken connection or a timeout counts as failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections import Counter
from urllib.parse import urlsplit

TICK = 0.25
TIMEOUT = 10.0


class Tally:
    """Outcomes since the last line."""

    def __init__(self) -> None:
        self.by: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def line(self) -> str:
        failed = self.errors.total()
        text = json.dumps(
            {"ok": self.by.total(), "failed": failed, "by": dict(self.by), "errors": dict(self.errors)}
        )
        self.by.clear()
        self.errors.clear()
        return text


async def one_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, str]:
    """Send ``request`` and read its whole answer: the status and its ``x-served-by``."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if headers.get("transfer-encoding") == "chunked":
        while True:
            size = int(await reader.readline(), 16)
            await reader.readexactly(size + 2)
            if size == 0:
                break
    else:
        await reader.readexactly(int(headers.get("content-length", "0")))
    if headers.get("connection") == "close":
        writer.close()
    return int(head[0].split(" ")[1]), headers.get("x-served-by", "?")


async def worker(host: str, port: int, request: bytes, pause: float, tally: Tally) -> None:
    """Requests one after another on one connection, which is reopened when it breaks."""
    writer: asyncio.StreamWriter | None = None
    reader: asyncio.StreamReader | None = None
    while True:
        try:
            async with asyncio.timeout(TIMEOUT):
                if reader is None or writer is None or writer.is_closing():
                    reader, writer = await asyncio.open_connection(host, port)
                status, served_by = await one_request(reader, writer, request)
            if status < 500:
                tally.by[served_by if status < 400 else str(status)] += 1
            else:
                tally.errors[str(status)] += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            tally.errors[type(error).__name__] += 1
            if writer is not None:
                writer.close()
            reader = writer = None
        await asyncio.sleep(pause)


async def run(url: str, connect: str | None, rate: float, connections: int) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    if connect is not None:
        host, _, text = connect.rpartition(":")
        port = int(text)
    path = parts.path or "/"
    request = f"GET {path} HTTP/1.1\r\nhost: {parts.netloc}\r\nuser-agent: demo-load\r\n\r\n".encode()
    tally = Tally()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(worker(host, port, request, connections / rate, tally))
        while True:
            await asyncio.sleep(TICK)
            print(tally.line(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--connect", help="HOST:PORT to connect to instead of the URL's")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second in all")
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options.url, options.connect, options.rate, options.connections))


if __name__ == "__main__":
    main()
