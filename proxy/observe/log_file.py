"""Log files: lines are buffered and written together; a sink that does not keep up loses lines, not requests."""

from __future__ import annotations

from proxy.model.stats import AccessLogStats


class LogFile:
    """One file. ``append(line)`` buffers; ``flush()`` writes what is there."""

    __slots__ = ("path", "stats")

    def __init__(self, path: str, stats: AccessLogStats, *, max_buffer_bytes: int = 4 * 1024 * 1024) -> None:
        self.path = path
        self.stats = stats

    def append(self, line: str) -> None:
        """Buffer one line (its newline included)."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write the buffer. What a full pipe does not take stays buffered, up to the limit."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Open the path again (after rotation)."""
        raise NotImplementedError

    def close(self) -> None:
        """Flush and close."""
        raise NotImplementedError


class LogFiles:
    """All log files of a process by path. The worker calls ``flush()`` every 100 ms and ``close()`` at exit."""

    __slots__ = ("files", "stats")

    def __init__(self, stats: AccessLogStats | None = None) -> None:
        self.files: dict[str, LogFile] = {}
        self.stats = AccessLogStats() if stats is None else stats

    def open(self, path: str) -> LogFile:
        """The file at ``path``, opened when first written to."""
        raise NotImplementedError

    def flush(self) -> None: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...
