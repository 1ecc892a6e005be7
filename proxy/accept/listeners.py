"""Keep the open sockets equal to the listeners of the snapshot in force.

A socket whose address stays is never closed, whatever else of its listener changes: no connection attempt is lost in
a swap. What is accepted is somebody else's business (``make``).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from proxy.accept.original_dst import plain
from proxy.accept.sockets import listen
from proxy.model.address import SocketAddress
from proxy.model.connection import Address
from proxy.runtime.runtime import ListenerRuntime, Runtime, bound_addresses


@dataclass(frozen=True, slots=True)
class SocketKey:
    """What makes two sockets different."""

    listener: str
    address: SocketAddress
    ipv4_compat: bool
    backlog: int


Open = Callable[[SocketKey], socket.socket]
"""Gives a listening socket, which is then the caller's. Raises ``OSError``."""


def bind(key: SocketKey) -> socket.socket:
    """A socket of this process alone."""
    return listen(key.address, ipv4_compat=key.ipv4_compat, backlog=key.backlog, reuse_port=False)


def wanted_sockets(runtime: Runtime) -> dict[SocketKey, ListenerRuntime]:
    """The sockets that the listeners of ``runtime`` need."""
    return {
        SocketKey(
            listener.name, address, listener.config.ipv4_compat, listener.config.tcp_backlog_size
        ): listener
        for listener in runtime.listeners.values()
        for address in bound_addresses(listener.config)
    }


@dataclass(slots=True, eq=False)
class _Open:
    """``sock`` stays while accepting is paused, and the kernel's queue with it; ``server`` has a duplicate."""

    sock: socket.socket
    bound: Address
    server: asyncio.Server | None = None


class Listeners:
    """The listening sockets of one loop. ``make(name, ports)`` gives the protocol of a new connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[str, frozenset[int]], asyncio.BaseProtocol],
        open_socket: Open = bind,
    ) -> None:
        self._loop = loop
        self._make = make
        self._open_socket = open_socket
        self._open: dict[SocketKey, _Open] = {}
        self._paused = False
        self.errors: dict[str, str] = {}

    def addresses(self) -> dict[str, tuple[Address, ...]]:
        """Where each listener is bound."""
        found: dict[str, tuple[Address, ...]] = {}
        for key, opened in self._open.items():
            found[key.listener] = (*found.get(key.listener, ()), opened.bound)
        return found

    async def reconcile(self, runtime: Runtime) -> None:
        """Open what is new, close what is gone.

        Raises ``OSError`` for the first address that cannot be bound, after all others were seen to; ``errors`` then
        has them all, by listener.
        """
        wanted = wanted_sockets(runtime)
        for key in [key for key in self._open if key not in wanted]:
            self._close(self._open.pop(key))
        self.errors = {}
        failure: OSError | None = None
        for key in wanted:
            if key in self._open:
                continue
            try:
                sock = self._open_socket(key)
            except OSError as error:
                self.errors[key.listener] = str(error.strerror)
                failure = failure or OSError(error.errno, f"listener {key.listener!r}: {error.strerror}")
                continue
            self._open[key] = _Open(sock, plain(sock.getsockname()))
        await self._serve()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Accept nothing more."""
        for opened in self._open.values():
            self._close(opened)
        self._open.clear()

    def pause(self) -> None:
        """Accept nothing for now; who connects waits in the kernel's queue."""
        self._paused = True
        for opened in self._open.values():
            if opened.server is not None:
                opened.server.close()
                opened.server = None

    def resume(self) -> None:
        """Accept again, from the next ``reconcile`` on."""
        self._paused = False

    async def _serve(self) -> None:
        for key, opened in list(self._open.items()):
            if opened.server is not None or self._paused:
                continue
            name = key.listener
            ports = frozenset(
                other.bound[1] for other_key, other in self._open.items() if other_key.listener == name
            )
            server = await self._loop.create_server(
                lambda name=name, ports=ports: self._make(name, ports),  # type: ignore[misc]
                sock=opened.sock.dup(),
                backlog=key.backlog,
            )
            if self._open.get(key) is opened and not self._paused:
                opened.server = server
            else:
                # Closed by a swap, or paused, while this one was being carried out.
                server.close()

    @staticmethod
    def _close(opened: _Open) -> None:
        if opened.server is not None:
            opened.server.close()
        opened.sock.close()
