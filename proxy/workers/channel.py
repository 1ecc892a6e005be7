"""Messages between the processes of one sidecar: pickled, with a length, over a Unix socket; descriptors go along.

Both ends are this program and the socket is a pair without a name, so nobody else can put in a pickle. It knows
nothing of what the messages mean.
"""

from __future__ import annotations

import array
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

_LENGTH: Final = 8
_READ: Final = 256 * 1024
#: Descriptors that can come with one read (the kernel's SCM_MAX_FD).
_MAX_DESCRIPTORS: Final = 253


class Channel:
    """One end. ``on_message`` gets each message, ``on_end`` is called once when the other end is gone.

    Nothing is read by itself: whoever watches the socket calls :meth:`read` when it is readable, and :meth:`flush` when
    it is writable. ``want_write(bool)`` says when that is to be watched.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[object], None],
        on_end: Callable[[], None],
        want_write: Callable[[bool], None] = lambda wanted: None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.ended = False
        self._on_message = on_message
        self._on_end = on_end
        self._want_write = want_write
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether something has not been written yet."""
        return bool(self._out)

    def send(self, message: object, descriptors: Iterable[int] = ()) -> None:
        """Send ``message``; ``descriptors`` must stay open until it is written, so at most a few go at a time."""
        if self.ended:
            return
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        waiting = bool(self._out)
        self._out.append((memoryview(len(data).to_bytes(_LENGTH) + data), tuple(descriptors)))
        self.flush()
        if self._out and not waiting:
            self._want_write(True)

    def flush(self) -> None:
        """Write what the socket takes."""
        wrote = bool(self._out)
        while self._out and not self.ended:
            data, descriptors = self._out[0]
            try:
                sent = self.sock.sendmsg([data], _rights(descriptors))
            except BlockingIOError:
                return
            except OSError:
                self._end()
                return
            if sent == len(data):
                self._out.popleft()
            else:
                # The descriptors went with the first byte.
                self._out[0] = (data[sent:], ())
        if wrote:
            self._want_write(False)

    def take_descriptor(self) -> int:
        """The next descriptor that came; a message says how many belong to it."""
        return self._descriptors.popleft()

    def read(self) -> None:
        """Take what is there and hand over the messages that are whole."""
        while not self.ended:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(
                    _READ, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
                )
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    came = array.array("i")
                    came.frombytes(content[: len(content) - len(content) % came.itemsize])
                    self._descriptors.extend(came)
            if not data:
                self._end()
                return
            self._received += data
            self._deliver()

    def close(self) -> None:
        """Be done; ``on_end`` is not called."""
        self.ended = True
        self._out.clear()
        self.sock.close()

    def _deliver(self) -> None:
        while len(self._received) >= _LENGTH and not self.ended:
            end = _LENGTH + int.from_bytes(self._received[:_LENGTH])
            if len(self._received) < end:
                return
            message = pickle.loads(self._received[_LENGTH:end])
            del self._received[:end]
            self._on_message(message)

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._out.clear()
            self._on_end()


def _rights(descriptors: tuple[int, ...]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
