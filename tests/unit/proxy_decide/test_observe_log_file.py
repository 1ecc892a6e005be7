"""``proxy.observe.log_file``: limits, rotation, and sinks that do not keep up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.model.stats import AccessLogStats
from proxy.observe.log_file import LogFile, LogFiles


def test_lines_beyond_the_buffer_are_dropped_and_counted(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "log"), AccessLogStats(), max_buffer_bytes=10)
    for line in ("1234\n", "5678\n", "9\n"):
        file.append(line)
    assert (file.stats.write_dropped, file.stats.write_total_buffered) == (1, 2)
    file.flush()
    file.append("9\n")
    file.close()
    assert (tmp_path / "log").read_text() == "1234\n5678\n9\n"


def test_rotation(tmp_path: Path) -> None:
    files = LogFiles()
    path = tmp_path / "log"
    file = files.open(str(path))
    assert files.open(str(path)) is file
    file.append("old\n")
    files.flush()
    path.rename(tmp_path / "log.1")
    file.append("late\n")
    files.reopen()
    file.append("new\n")
    files.close()
    assert (tmp_path / "log.1").read_text() == "old\nlate\n"
    assert path.read_text() == "new\n"


def test_a_full_pipe_keeps_what_it_did_not_take(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        file = LogFile(str(fifo), AccessLogStats(), max_buffer_bytes=1 << 20)
        sent = "".join(f"{n:06d}\n" for n in range(20_000))
        for start in range(0, len(sent), 7):
            file.append(sent[start : start + 7])
        received = b""
        for _ in range(1000):
            file.flush()
            try:
                received += os.read(reader, 1 << 16)
            except BlockingIOError:
                break
        assert received.decode() == sent
        file.close()
    finally:
        os.close(reader)


def test_a_sink_that_cannot_be_opened_or_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = LogFile(str(tmp_path / "no" / "log"), AccessLogStats())
    file.append("a\n")
    file.flush()
    file.flush()
    assert file.stats.reopen_failed == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (tmp_path / "no").mkdir()
    file.close()
    assert (tmp_path / "no" / "log").read_text() == "a\n"


def test_a_full_disk_loses_lines_and_counts() -> None:
    file = LogFile("/dev/full", AccessLogStats())
    file.append("a\n")
    file.flush()
    file.append("b\n")
    file.close()
    assert file.stats.write_failed == 2


def test_in_a_pipe_that_others_write_to_lines_stay_whole(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    files = [LogFile(str(fifo), AccessLogStats(), shared=True) for _ in range(2)]
    wanted = []
    for number in range(400):
        for writer, file in enumerate(files):
            line = f"{writer}:{number}:" + "x" * (number % 700) + "\n"
            wanted.append(line)
            file.append(line)
    got = b""
    # Each time the pipe is full after a part of what one has, and the other is the next to write.
    while any(file._lines or file._left for file in files):
        for file in files:
            file.flush()
        got += os.read(reader, 1 << 20)
        files.reverse()
    for file in files:
        file.close()
    os.close(reader)
    lines = got.decode().splitlines(keepends=True)
    assert sorted(lines) == sorted(wanted)
