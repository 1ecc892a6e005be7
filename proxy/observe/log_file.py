"""Log files: lines are buffered and written together; a sink that does not keep up loses lines, not requests."""

from __future__ import annotations

import errno
import logging
import os
import select
import stat

from proxy.model.stats import AccessLogStats

_log = logging.getLogger(__name__)

MAX_BUFFER_BYTES = 4 * 1024 * 1024
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


class LogFile:
    """One file. ``append(line)`` buffers; ``flush()`` writes what is there.

    Lines beyond ``max_buffer_bytes`` are dropped and counted. Failures to open or write are counted and logged once.
    """

    __slots__ = (
        "_buffered",
        "_failing",
        "_fd",
        "_left",
        "_lines",
        "_pieces",
        "max_buffer_bytes",
        "path",
        "shared",
        "stats",
    )

    def __init__(
        self,
        path: str,
        stats: AccessLogStats,
        *,
        max_buffer_bytes: int = MAX_BUFFER_BYTES,
        shared: bool = False,
    ) -> None:
        """``shared``: others write to it, too; lines are not mixed with theirs (in a pipe: lines of up to 4 KiB)."""
        self.shared = shared
        # Appending to a file is atomic whatever its size; writing to a pipe is up to PIPE_BUF (POSIX, write).
        self._pieces = False
        self.path = path
        self.stats = stats
        self.max_buffer_bytes = max_buffer_bytes
        self._fd = -1
        self._lines: list[str] = []
        self._buffered = 0
        self._left = b""
        self._failing = False

    def append(self, line: str) -> None:
        """Buffer one line (its newline included)."""
        size = self._buffered + len(line)
        if size > self.max_buffer_bytes:
            self.stats.write_dropped += 1
            return
        self._buffered = size
        self._lines.append(line)
        self.stats.write_total_buffered += 1

    def flush(self) -> None:
        """Write the buffer. What a full pipe does not take stays buffered, up to the limit."""
        if not self._lines and not self._left:
            return
        if self._fd < 0 and not self._open():
            return
        data = self._left + "".join(self._lines).encode("utf-8", "backslashreplace")
        self._lines.clear()
        written = 0
        try:
            while written < len(data):
                end = _whole_lines(data, written) if self._pieces else len(data)
                written += os.write(self._fd, data[written:end] if written or end < len(data) else data)
        except BlockingIOError:
            pass
        except OSError as error:
            self.stats.write_failed += 1
            self._failed(error)
            self._left = b""
            self._buffered = 0
            return
        self._left = data[written:]
        self._buffered = len(self._left)
        self._failing = False
        self.stats.write_completed += 1

    def reopen(self) -> None:
        """Open the path again (after rotation)."""
        self.flush()
        self._close()
        if self.path not in _STANDARD:
            self._open()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._close()

    def _open(self) -> bool:
        try:
            self._fd = os.open(self.path, _FLAGS, 0o644)
        except OSError as error:
            # A socket as standard output cannot be opened by name, but it can be shared.
            if error.errno == errno.ENXIO and self.path in _STANDARD:
                self._fd = os.dup(_STANDARD[self.path])
                return True
            self.stats.reopen_failed += 1
            self._failed(error)
            return False
        self._pieces = self.shared and stat.S_ISFIFO(os.fstat(self._fd).st_mode)
        return True

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _failed(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            _log.warning("access log %s: %s", self.path, error)


def _whole_lines(data: bytes, start: int) -> int:
    """Where to end a write that begins at ``start``, so that it is whole lines and, if it can be, atomic."""
    end = start + select.PIPE_BUF
    if end >= len(data):
        return len(data)
    return data.rfind(b"\n", start, end) + 1 or data.find(b"\n", end) + 1 or len(data)


class LogFiles:
    """All log files of a process by path. The worker calls ``flush()`` every 100 ms and ``close()`` at exit."""

    __slots__ = ("files", "shared", "stats")

    def __init__(self, stats: AccessLogStats | None = None, *, shared: bool = False) -> None:
        self.files: dict[str, LogFile] = {}
        self.shared = shared
        self.stats = AccessLogStats() if stats is None else stats

    def open(self, path: str) -> LogFile:
        """The file at ``path``; it is opened when first written to."""
        file = self.files.get(path)
        if file is None:
            file = self.files[path] = LogFile(path, self.stats, shared=self.shared)
        return file

    def flush(self) -> None:
        """Write all buffers."""
        self.stats.flushed_by_timer += 1
        for file in self.files.values():
            file.flush()

    def reopen(self) -> None:
        """Open every path again (after rotation)."""
        for file in self.files.values():
            file.reopen()

    def close(self) -> None:
        """Flush and close all."""
        for file in self.files.values():
            file.close()
