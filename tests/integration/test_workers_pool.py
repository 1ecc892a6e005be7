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
