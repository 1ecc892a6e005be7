"""The process that forks workers: it has imported what they need, and runs nothing itself.

A worker must not be forked from the leading process, which has an event loop, threads that may hold a lock of OpenSSL
at that moment, and connections to the control plane. This one has none of them: one thread, blocking calls, a heap that
was frozen, so that what it has loaded is shared by all workers. It lives as long as the leading process holds the other
end of its socket, and takes the workers with it.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

log = logging.getLogger(__name__)

_MESSAGE = 256
#: Signals that the leading process sees to, for all.
_LEADERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class SpawnerDiedError(Exception):
    """The spawner has ended: dead workers can no longer be replaced."""


class Spawner:
    """The leading process's side.

    It must be made while this process has one thread and no event loop. ``work(socket)`` is what a worker runs.
    """

    def __init__(self, work: Callable[[socket.socket], None]) -> None:
        self.sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # No collection first: it would leave holes, which each worker would fill in pages of its own.
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            _run(other, work)
        other.close()
        self.sock.setblocking(False)

    def spawn(self, worker: int) -> socket.socket:
        """Ask for a worker; gives this side's end of the socket to it. ``events`` says its process id."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self.sock, [b"spawn %d" % worker], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise SpawnerDiedError(f"the process that forks workers is gone: {error.strerror}") from error
        return ours

    def kill(self, pid: int) -> None:
        """End a worker that does not answer. Only the spawner knows whether the number is still that worker's."""
        try:
            self.sock.send(b"kill %d" % pid)
        except OSError as error:
            log.warning("worker process %d could not be ended: %s", pid, error.strerror)

    def events(self) -> list[tuple[str, int, int, int]]:
        """What has happened: ``("spawned", worker, pid, 0)`` and ``("exited", worker, pid, wait status)``.

        Raises :class:`SpawnerDiedError`.
        """
        found: list[tuple[str, int, int, int]] = []
        while True:
            try:
                data = self.sock.recv(_MESSAGE)
            except BlockingIOError:
                return found
            except OSError:
                data = b""
            if not data:
                if found:
                    return found
                raise SpawnerDiedError("the process that forks workers has ended")
            kind, worker, pid, status = data.decode().split()
            found.append((kind, int(worker), int(pid), int(status)))

    def close(self) -> None:
        """End it, and with it every worker that is still there."""
        self.sock.close()
        os.waitpid(self.pid, 0)


def _run(sock: socket.socket, work: Callable[[socket.socket], None]) -> NoReturn:
    """The spawner's process; it never returns into its copy of the caller."""
    status = 1
    try:
        for number in _LEADERS:
            signal.signal(number, signal.SIG_IGN)
        _close_all_but(sock.fileno())
        _serve(sock, work)
        status = 0
    except BaseException:
        log.exception("the process that forks workers failed")
    finally:
        os._exit(status)


def _serve(sock: socket.socket, work: Callable[[socket.socket], None]) -> None:
    children: dict[int, tuple[int, int]] = {}  # pidfd -> (worker, pid)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != sock.fileno():
                worker, pid = children.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                _tell(sock, b"exited %d %d %d" % (worker, pid, os.waitpid(pid, 0)[1]))
                continue
            try:
                data, descriptors, _, _ = socket.recv_fds(sock, _MESSAGE, 1)
            except ConnectionResetError:
                # The end as well: the leading process died before it had read all that it was told.
                data = b""
            if not data:
                for _, pid in children.values():
                    os.kill(pid, signal.SIGKILL)
                for _, pid in children.values():
                    os.waitpid(pid, 0)
                return
            command, number = data.split()
            if command == b"kill":
                if any(pid == int(number) for _, pid in children.values()):
                    os.kill(int(number), signal.SIGKILL)
                continue
            pid = os.fork()
            if pid == 0:
                sock.close()
                for other in children:
                    os.close(other)
                _worker(socket.socket(fileno=descriptors[0]), work)
            os.close(descriptors[0])
            pidfd = os.pidfd_open(pid)
            children[pidfd] = (int(number), pid)
            poll.register(pidfd, select.POLLIN)
            _tell(sock, b"spawned %d %d 0" % (int(number), pid))


def _tell(sock: socket.socket, event: bytes) -> None:
    try:
        sock.send(event)
    except OSError as error:
        # The leading process is gone; the end of its socket is read next.
        log.debug("nobody to tell of %r: %s", event, error)


def _worker(sock: socket.socket, work: Callable[[socket.socket], None]) -> NoReturn:
    status = 1
    try:
        work(sock)
        status = 0
    except BaseException:
        log.exception("a worker failed")
    finally:
        os._exit(status)


def _close_all_but(keep: int) -> None:
    """What the leading process has open is none of the workers' business; standard streams are."""
    for name in list(Path("/proc/self/fd").iterdir()):
        descriptor = int(name.name)
        if descriptor > 2 and descriptor != keep:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the one that listed them
