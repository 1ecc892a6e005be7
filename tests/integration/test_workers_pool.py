"""The pool of workers against real processes: what is told to one is told to all, and a refusal is everybody's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pool_scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.pool_scenarios", name, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-5000:]


def test_workers_end_with_a_leader_that_left_its_news_unread() -> None:
    """The spawner's socket then ends in a reset instead of an end."""
    said = subprocess.run(
        [sys.executable, "-c", LEFT_UNREAD], capture_output=True, text=True, check=True, timeout=60
    )
    assert (said.stdout, said.stderr) == ("True\n", "")


LEFT_UNREAD = """
import os, select, signal, socket
from proxy.workers.spawner import Spawner

spawner = Spawner(lambda sock: signal.pause())
held = spawner.spawn(0)
select.select([spawner.sock], [], [])
worker = os.pidfd_open(int(spawner.sock.recv(256, socket.MSG_PEEK).split()[2]))
spawner.sock.close()
os.waitpid(spawner.pid, 0)
print(bool(select.select([worker], [], [], 0)[0]))
"""
