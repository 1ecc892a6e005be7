"""An event loop without a network: what it accepts and connects are transports that a measurement plays.

Everything from the socket inwards is the real thing (``proxy.accept.worker`` and all behind it), so that its CPU time
can be measured without the kernel's, and without another process.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class PlayedTransport(asyncio.Transport):
    """Keeps what is written, and gives its protocol what the peer says."""

    def __init__(self, protocol: asyncio.BaseProtocol, peer: tuple[str, int], own: tuple[str, int]) -> None:
        self._sock = socket.socket()
        super().__init__({"peername": peer, "sockname": own, "socket": self._sock})
        self.written: list[bytes] = []
        self.closed = False
        self.paused = False
        self._unread: list[bytes] = []
        self.write = self.written.append  # type: ignore[method-assign,assignment]
        self.set_protocol(protocol)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        found: asyncio.BaseProtocol = self._protocol
        return found

    def feed(self, data: bytes) -> None:
        """The peer sent ``data``; it comes in one read, as soon as the protocol reads."""
        if self.paused:
            self._unread.append(data)
            return
        protocol = self._protocol
        if self._buffered:
            size = len(data)
            protocol.get_buffer(-1)[:size] = data
            protocol.buffer_updated(size)
        else:
            protocol.data_received(data)

    def take(self) -> list[bytes]:
        """What was written since the last time, write by write."""
        taken = self.written[:]
        self.written.clear()
        return taken

    def writelines(self, list_of_data: Any) -> None:
        self.written.append(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
        self._sock.close()

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        while self._unread and not self.paused:
            self.feed(self._unread.pop(0))

    def is_reading(self) -> bool:
        return not self.paused

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 16 * 1024, 64 * 1024

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return None


class PlayedLoop(asyncio.SelectorEventLoop):
    """``accept`` plays a client; ``connected`` has the connections that the proxy opened."""

    def __init__(self) -> None:
        super().__init__()
        self._accepting: ProtocolFactory | None = None
        self.connected: list[PlayedTransport] = []

    async def create_server(self, protocol_factory: ProtocolFactory, *_: Any, **more: Any) -> Any:
        self._accepting = protocol_factory
        return _Server(more["sock"])

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        return None

    async def create_connection(self, protocol_factory: Any, *_: Any, **more: Any) -> Any:
        more["sock"].close()
        protocol = protocol_factory()
        transport = PlayedTransport(protocol, ("127.0.0.1", 40001), ("127.0.0.1", 40002))
        self.connected.append(transport)
        protocol.connection_made(transport)
        return transport, protocol

    def accept(self) -> PlayedTransport:
        """A client connects."""
        assert self._accepting is not None, "the proxy listens by another way than the loop's create_server"
        protocol = self._accepting()
        transport = PlayedTransport(protocol, ("127.0.0.1", 40003), ("127.0.0.1", 40004))
        protocol.connection_made(transport)
        return transport


class _Server:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def close(self) -> None:
        self._sock.close()


class Peer:
    """The other end of a transport, in plain text: ``seal`` what it says, ``open`` what it hears."""

    def __init__(self, transport: PlayedTransport) -> None:
        self.transport = transport
        self.heard = b""

    def hears(self, start: bytes) -> bool:
        """Whether the sidecar has said something by now. Raises ``RuntimeError`` if it does not begin with that."""
        self.heard += self.open(b"".join(self.transport.take()))
        if not start.startswith(self.heard[: len(start)]):
            raise RuntimeError(f"the peer heard {self.heard!r}")
        return bool(self.heard)

    def shake_hands(self, turn: Callable[[], None]) -> None:
        """Nothing to do. ``turn`` lets the loop run."""

    def seal(self, data: bytes) -> bytes:
        return data

    def open(self, data: bytes) -> bytes:
        return data


class TlsPeer(Peer):
    """The other end of a transport under mutual TLS."""

    def __init__(self, transport: PlayedTransport, directory: Path, who: str, *, server_side: bool) -> None:
        super().__init__(transport)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(directory / "ca.crt")
        context.load_cert_chain(directory / f"{who}.crt", directory / f"{who}.key")
        context.set_alpn_protocols(["tulle"])
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side)

    def shake_hands(self, turn: Callable[[], None]) -> None:
        """Play the handshake to its end. Raises ``ssl.SSLError``, ``TimeoutError``."""
        done = False
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for data in self.transport.take():
                self._in.write(data)
            if not done:
                try:
                    self.tls.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    pass
            said = self._out.read()
            if said:
                self.transport.feed(said)
            elif done and not self.transport.paused:
                return
            else:
                # The sidecar does its part of a handshake when its budget allows.
                turn()
        raise TimeoutError("the sidecar did not go on with its handshake")

    def seal(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self._out.read()

    def open(self, data: bytes) -> bytes:
        self._in.write(data)
        heard = b""
        while self._in.pending or self.tls.pending():
            try:
                heard += self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                break
        return heard
