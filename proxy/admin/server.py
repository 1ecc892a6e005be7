"""A small HTTP/1.1 server for the admin and readiness ports. One request a connection; it is not on the data path.

It refuses what a browser could be tricked into (a ``Host`` that is no loopback name: DNS rebinding) and peers that
are not on this host, and knows nothing of what the pages say.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

from proxy.http1.errors import ProtocolError
from proxy.http1.head import Head, scan_request
from proxy.model.address import SocketAddress

log = logging.getLogger(__name__)

MAX_HEAD = 16 * 1024
TIMEOUT = 10.0
#: Connections served at once; more are closed unanswered and counted.
MAX_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says."""

    body: str
    status: int = 200
    content_type: str = "text/plain; charset=UTF-8"


Handler = Callable[[Mapping[str, str]], Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Page:
    """One path. ``handler`` takes the query parameters; ``post`` pages change something and want POST."""

    handler: Handler
    help: str
    post: bool = False


class AdminServer:
    """Serves ``pages`` (path -> page) at ``address``. ``local_only``: refuse foreign hosts and peers."""

    def __init__(self, pages: Mapping[str, Page], address: SocketAddress, *, local_only: bool = True) -> None:
        self._pages = pages
        self._address = address
        self._local_only = local_only
        self._server: asyncio.Server | None = None
        self._open = 0
        self.overflows = 0
        self.refused = 0

    async def start(self, sock: socket.socket | None = None) -> None:
        """Serve ``sock``, or bind the address. Raises OSError."""
        if sock is not None:
            self._server = await asyncio.start_server(self._connection, sock=sock, limit=MAX_HEAD)
            return
        self._server = await asyncio.start_server(
            self._connection, self._address.host, self._address.port, limit=MAX_HEAD, reuse_address=True
        )

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, the port resolved."""
        assert self._server is not None
        host, port, *_ = self._server.sockets[0].getsockname()
        return host, port

    async def stop(self) -> None:
        """Stop accepting; what is being answered is cut off."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            self.overflows += 1
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                answer, is_head = await self._answer(reader, writer)
                writer.write(_encode(answer, is_head=is_head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.debug("admin connection ended: %s", error)
        finally:
            self._open -= 1
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Answer, bool]:
        try:
            head = scan_request(await reader.readuntil(b"\r\n\r\n"), max_bytes=MAX_HEAD)
        except asyncio.LimitOverrunError:
            return Answer(f"the head is larger than {MAX_HEAD} bytes\n", 431), False
        except ProtocolError as error:
            return Answer(f"{error}\n", error.status), False
        if head is None:
            return Answer("bad request\n", 400), False
        is_head = head.method == b"HEAD"
        refusal = self._refuse(head, writer) if self._local_only else None
        return (refusal or await self._page(head)), is_head

    def _refuse(self, head: Head, writer: asyncio.StreamWriter) -> Answer | None:
        peer = str(writer.get_extra_info("peername")[0])
        host = (head.host or b"").decode("latin-1")
        if is_loopback(peer) and is_local_host(host):
            return None
        self.refused += 1
        return Answer("the admin endpoint is for this host only: use localhost\n", 403)

    async def _page(self, head: Head) -> Answer:
        url = urlsplit(head.target.decode("latin-1"))
        page = self._pages.get(url.path.rstrip("/") or "/")
        if page is None:
            known = "".join(f"  {path}: {p.help}\n" for path, p in sorted(self._pages.items()))
            return Answer(f"invalid path. admin commands are:\n{known}", 404)
        method = head.method.decode("latin-1")
        if page.post and method != "POST":
            return Answer(f"{url.path} changes something: use POST\n", 405)
        if not page.post and method not in ("GET", "HEAD"):
            return Answer(f"{url.path} only reads: use GET\n", 405)
        try:
            answer = page.handler(dict(parse_qsl(url.query, keep_blank_values=True)))
            return answer if isinstance(answer, Answer) else await answer
        except Exception:
            # A page that fails must not look like a sidecar that is gone.
            log.exception("admin page %s failed", url.path)
            return Answer(f"{url.path} failed; the application log says why\n", 500)


def is_loopback(ip: str) -> bool:
    """Whether an address literal is of this host's loopback."""
    address = ipaddress.ip_address(ip.split("%", 1)[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_local_host(host: str) -> bool:
    """Whether a ``Host`` names this host's loopback: what a page of another site cannot make a browser send."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") and host.count(":") != 0 else host
    name = name.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return is_loopback(name)
    except ValueError:
        return False


def _encode(answer: Answer, *, is_head: bool) -> bytes:
    body = answer.body.encode()
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"content-type: {answer.content_type}\r\ncache-control: no-cache, max-age=0\r\n"
        f"x-content-type-options: nosniff\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    return head if is_head else head + body
