"""Ending a connection with RST, where the other end is to know that it did not end well."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final, Protocol

_LINGER_0: Final = struct.pack("ii", 1, 0)


class _Abortable(Protocol):
    def abort(self) -> None: ...
    def get_extra_info(self, name: str, default: Any = None, /) -> Any: ...


def reset(transport: _Abortable) -> None:
    """Close at once; what is unsent is lost, and the peer gets RST instead of FIN."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        except OSError:
            # Reset by the peer meanwhile: it knows.
            pass
    transport.abort()
