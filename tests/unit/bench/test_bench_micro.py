"""The micro-benchmark plays whole exchanges through the sidecar's code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import micro


@pytest.mark.parametrize("case", micro.CASES)
def test_plays_exchanges_with_everything_on(case: str, tmp_path: Path) -> None:
    stage = micro.Stage(case, tmp_path)
    try:
        first, second = (
            {
                # What is done once a second may come in between.
                name: count // micro.BATCH
                for name, count in stage.batch(micro.called).items()
                if count >= micro.BATCH
            }
            for _ in range(2)
        )
    finally:
        stage.close()
    assert first == second, "an exchange makes the same calls every time, or figures could not be compared"
    lines = [json.loads(line) for line in (tmp_path / f"{case}.log").read_text().splitlines()]
    assert len(lines) == 2 * micro.BATCH + 1
    assert {line["response_code"] for line in lines} == {200}
    assert ("conn.TlsConn.write" in first) == (case != "plain")
    assert any(name.startswith("rbac.") for name in first) == (case == "inbound")


def test_measures_cpu_time() -> None:
    cost = micro.measure("plain", 3)
    assert 0 < cost.least <= cost.median and cost.calls > 0
