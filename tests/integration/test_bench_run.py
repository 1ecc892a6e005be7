"""The benchmark runs: two kinds, one short measurement, a file with the table's figures; and the profiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import grpc
from bench.results import rows
from tests.support import built_tools
from tests.support.h2_arena import SIDES

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", module, *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.envoy
def test_measures_and_writes_what_it_measured(tmp_path: Path) -> None:
    done = run(
        "bench",
        *("--quick", "--rounds", "1", "--only", "coldstart,bulk", "--kinds", "tulle,envoy"),
        *("--results", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    table = {item.metric.key: item for item in rows(document)}
    assert set(table) == {"coldstart.first_200", "bulk.down", "bulk.up"}
    for item in table.values():
        assert set(item.values) == {"tulle", "envoy"}
        assert all(value.median > 0 for value in item.values.values())
        assert item.metric.title in done.stdout
    assert document["machine"]["cpus"] == len(os.sched_getaffinity(0))
    assert path.name.endswith("-partial.json"), "only a full run goes into the documentation"


@pytest.mark.envoy
def test_measures_grpc(tmp_path: Path) -> None:
    built_tools.program("h2load")
    kinds = SIDES
    done = run("bench", "--quick", "--only", "grpc", "--kinds", ",".join(kinds), "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    table = {item.metric.key: item for item in rows(json.loads(path.read_text()))}
    assert set(table) == {metric.key for metric in grpc.METRICS}
    for item in table.values():
        assert set(item.values) == set(kinds)
        assert all(value.median > 0 for value in item.values.values())


def test_refuses_what_it_does_not_know() -> None:
    done = run("bench", "--only", "http1,speed")
    assert done.returncode == 1 and "speed: no such measurement" in done.stderr


@pytest.mark.envoy
def test_profiles_a_loaded_sidecar() -> None:
    done = run("bench.profile", "--work", "bulk-down", "--seconds", "0.3")
    assert done.returncode == 0, done.stderr
    assert "conn.TlsConn" in done.stdout and "loop: poll, read, accept" in done.stdout
