"""``python -m tests.support.h2_exchanges.record`` plays all cases, writes ``expected.json`` and ``differences.json``.

Read what has changed before it is committed: it is what the tests hold Envoy and Tulle to. A difference that is new
has no reason, and no test passes before somebody has given one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.support.h2_arena import Case, Outcome, play
from tests.support.h2_differences import KNOWN, differences, known
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
        played = play(CASES, Path(directory))
    for side, outcomes in played.items():
        for case in CASES:
            assert not outcomes[case.name].missed, (side, case.name, outcomes[case.name].missed)
    envoy = played["envoy"]
    _write(EXPECTED, {case.name: list(envoy[case.name].lines(case)) for case in CASES})
    _write(KNOWN, _differences(envoy, played["tulle"]))


def _differences(envoy: dict[str, Outcome], tulle: dict[str, Outcome]) -> dict[str, list[object]]:
    """Those that were known keep their reasons, and what else chance has shown of them."""
    before = known()
    found: dict[str, list[object]] = {}
    for case in CASES:
        why, alternatives = before.get(case.name, ("", []))
        shown = differences(envoy[case.name].shown(case), tulle[case.name].shown(case))
        if shown in alternatives:
            found[case.name] = [why, *alternatives]
        elif shown:
            found[case.name] = [why, shown]
    return found


def _write(path: Path, values: dict[str, list[object]] | dict[str, list[str]]) -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    _record()
