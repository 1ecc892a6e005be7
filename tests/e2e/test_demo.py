"""The demo, as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TULLE = [sys.executable, "-m", "control_plane.cli.main"]


def children_of(marker: str) -> list[str]:
    """Command lines of the processes that mention ``marker``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if marker in line:
                found.append(line)
    return found


@pytest.mark.parametrize("arguments", [(), ("--no-capture",)], ids=["pods", "explicit-listeners"])
def test_the_demo_tells_its_whole_story_and_leaves_nothing(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*TULLE, "demo", *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "160"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert len(re.findall(r"^\d\. ", done.stdout, re.MULTILINE)) == 8
    assert list(tmp_path.iterdir()) == []
    assert children_of(str(tmp_path)) == []


def test_ctrl_c_cleans_up(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*TULLE, "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "160", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "tulle apply -f services.yaml" in line:
            break
    demo.send_signal(signal.SIGINT)
    rest = demo.stdout.read()
    assert demo.wait(30) == 1
    assert "stopped and removed" in rest
    assert list(tmp_path.iterdir()) == []
    assert children_of(str(tmp_path)) == []
