"""The listening sockets of all workers: one for each worker and address, held by the leader.

The sockets of one address form a group (``SO_REUSEPORT``), among which the kernel spreads connections evenly. A worker
gets a duplicate of its own one. When it dies, the original is still open: connections that the kernel has already
queued for it wait for the next worker and are not reset.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable

from proxy.accept.listeners import SocketKey, wanted_sockets
from proxy.accept.sockets import listen, probe
from proxy.model.address import SocketAddress
from proxy.runtime.runtime import Runtime

log = logging.getLogger(__name__)


class SharedSockets:
    """A group of ``size`` sockets for each address of the listeners."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._open: dict[SocketKey, list[socket.socket]] = {}
        self._first_error: OSError | None = None

    def keys(self) -> list[SocketKey]:
        """Every group."""
        return list(self._open)

    def descriptor(self, key: SocketKey, worker: int) -> int:
        """The socket of one worker; it stays this object's."""
        return self._open[key][worker].fileno()

    def reconcile(self, runtime: Runtime) -> list[SocketKey]:
        """Open what is new, close what is gone; what was opened. What cannot be bound is logged and left out."""
        wanted = wanted_sockets(runtime)
        ours = {key.address for key in self._open}
        for key in [key for key in self._open if key not in wanted]:
            _close(self._open.pop(key))
        self._first_error = None
        opened = []
        for key in wanted:
            if key in self._open:
                continue
            try:
                self._open[key] = self._group(key, known=key.address in ours)
            except OSError as error:
                log.error("listener %r: %s; other listeners are not affected", key.listener, error.strerror)
                named = OSError(error.errno, f"listener {key.listener!r}: {error.strerror}")
                self._first_error = self._first_error or named
                continue
            opened.append(key)
        return opened

    def raise_first_error(self) -> None:
        """Raise what was the first to go wrong in the last ``reconcile``."""
        if self._first_error is not None:
            raise self._first_error

    def close(self) -> None:
        """Close all."""
        for group in self._open.values():
            _close(group)
        self._open.clear()

    def _group(self, key: SocketKey, *, known: bool) -> list[socket.socket]:
        if not known:
            # Without this look a second sidecar of the same user would join the group and get half of the connections.
            probe(key.address, ipv4_compat=key.ipv4_compat)
        group: list[socket.socket] = []
        address = key.address
        try:
            for _ in range(self._size):
                group.append(
                    listen(address, ipv4_compat=key.ipv4_compat, backlog=key.backlog, reuse_port=True)
                )
                # Port 0 is one port for the whole group.
                address = SocketAddress(address.host, group[0].getsockname()[1])
        except OSError:
            _close(group)
            raise
        return group


def _close(group: Iterable[socket.socket]) -> None:
    for sock in group:
        sock.close()
