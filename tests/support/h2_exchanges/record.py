"""``python -m tests.support.h2_exchanges.record``: plays all cases against a real Envoy and writes ``expected.json``.

Read the difference before it is committed: what is written there is what the tests hold Envoy to.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.support.h2_arena import Case, play
from tests.support.h2_exchanges import floods, http1_clients, request_heads, responses, streams

TABLES = (request_heads, responses, streams, http1_clients, floods)
CASES: list[Case] = [case for table in TABLES for case in table.CASES]
EXPECTED = Path(__file__).with_name("expected.json")


def expected() -> dict[str, list[str]]:
    """By the case's name: ``Outcome.lines``."""
    found: dict[str, list[str]] = json.loads(EXPECTED.read_text())
    return found


def _record() -> None:
    with tempfile.TemporaryDirectory() as directory:
        played = play(CASES, Path(directory), ("envoy",))["envoy"]
    for case in CASES:
        assert not played[case.name].missed, (case.name, played[case.name].missed)
    lines = [f"{json.dumps(case.name)}: {json.dumps(list(played[case.name].lines(case)))}" for case in CASES]
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    _record()
