"""Medians, spreads, ratios and verdicts; tables and plot made of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench import plot, report
from bench.http1 import PURE, with_pure
from bench.results import Metric, row, rows, summarise, to_json

COST = Metric("cost", "cost", "µs", ratio=0.65)
RATE = Metric("rate", "rate", "/s", "higher", ratio=0.5)
START = Metric("start", "start", "s", limit=0.3)
PLAIN = Metric("plain", "plain", "requests/s", "higher")


def document() -> dict[str, Any]:
    return to_json(
        {
            COST: {"tulle": [30.0, 31.0, 29.0], "envoy": [60.0, 60.0, 61.0], "nginx": [20.0, 20.0, 20.0]},
            RATE: {"tulle": [400.0], "envoy": [1000.0]},
            START: {"tulle": [0.25, 0.25], "envoy": [0.1, 0.1]},
        },
        date="2026-11-24",
        machine={"cpu": "some CPU", "cpus": 2, "kernel": "6.1", "memory_gb": 8},
        placement="anywhere",
        rounds=3,
        versions={"tulle": "0.1", "envoy": "1.40.0", "nginx": "1.22"},
        notes=["nginx lacks something"],
    )


@pytest.mark.parametrize(
    ("values", "median", "spread"),
    [
        ([4.0], 4.0, 0.0),
        ([1.0, 3.0, 2.0], 2.0, 0.5),
        ([5.0, 1.0, 2.0, 4.0, 3.0], 3.0, 2 / 3),
        ([0.0, 0.0], 0.0, 0.0),
    ],
)
def test_median_and_distance_of_the_quartiles(values: list[float], median: float, spread: float) -> None:
    found = summarise(values)
    assert (found.median, found.rounds) == (median, len(values))
    assert found.spread == pytest.approx(spread)


@pytest.mark.parametrize(
    ("metric", "rounds", "ratio", "met"),
    [
        (COST, {"tulle": [65.0], "envoy": [100.0]}, 0.65, True),
        (COST, {"tulle": [66.0], "envoy": [100.0]}, 0.66, False),
        (RATE, {"tulle": [50.0], "envoy": [100.0]}, 0.5, True),
        (RATE, {"tulle": [49.0], "envoy": [100.0]}, 0.49, False),
        (START, {"tulle": [0.3]}, None, True),
        (START, {"tulle": [0.31], "envoy": [0.1]}, 3.1, False),
        (COST, {"tulle": [65.0]}, None, None),
        (COST, {"envoy": [65.0], "tulle": []}, None, None),
        (PLAIN, {"tulle": [2.0], "envoy": [1.0]}, 2.0, None),
    ],
)
def test_verdicts(
    metric: Metric, rounds: dict[str, list[float]], ratio: float | None, met: bool | None
) -> None:
    found = row(metric, rounds)
    assert found.met is met
    assert found.ratio == (None if ratio is None else pytest.approx(ratio))


def test_a_file_gives_the_same_table_again() -> None:
    made = document()
    again = json.loads(json.dumps(made))
    assert rows(again) == rows(made)
    assert [item.metric for item in rows(again)] == [COST, RATE, START]


def test_markdown_has_every_figure_its_target_and_verdict() -> None:
    lines = report.markdown(document()).splitlines()
    assert "| | tulle | envoy | nginx | Tulle/Envoy | target | |" in lines
    assert "| cost, µs | 30.0 ±2 % | 60.0 ±0 % | 20.0 ±0 % | 0.50× | ≤ 0.65× | met |" in lines
    assert "| rate, /s | 400 | 1000 | – | 0.40× | ≥ 0.5× | missed |" in lines
    assert "| start, s | 0.250 ±0 % | 0.100 ±0 % | – | 2.50× | ≤ 0.3 s | met |" in lines
    assert lines[-1] == "- nginx lacks something."


def test_text_table_has_a_line_for_each_metric() -> None:
    lines = report.text(document()).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("cost, µs ") and lines[1].endswith("0.50×     ≤ 0.65×  met")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0244, "0.024"),
        (0.5, "0.500"),
        (1.234, "1.23"),
        (83.44, "83.4"),
        (999.6, "1000"),
        (23456.7, "23,457"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert report.number(value) == text


def test_the_table_is_put_between_the_marks() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    made = report.with_table(page, document())
    assert made.startswith("before\n") and made.endswith("\nafter\n") and "old" not in made
    assert report.with_table(made, document()) == made
    with pytest.raises(ValueError, match="no line"):
        report.with_table("nothing", document())


def test_documentation_is_checked_against_the_committed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setattr(report, "RESULTS", results)
    monkeypatch.setattr(report, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(report, "PLOT", tmp_path / "performance.svg")
    report.PAGE.write_text(f"{report.BEGIN}\n{report.END}\n")
    assert report.problems() == []
    (results / "2026-11-24-full.json").write_text(json.dumps(document()))
    assert len(report.problems()) == 2
    report.main()
    assert report.problems() == []
    report.PAGE.write_text(report.PAGE.read_text().replace("30.0", "20.0"))
    assert len(report.problems()) == 1


def test_plot_is_xml_with_a_mark_for_each_figure() -> None:
    tree = ElementTree.fromstring(plot.svg(rows(document()), "2026-11-24"))
    space = "{http://www.w3.org/2000/svg}"
    circles = [mark for mark in tree.iter(f"{space}circle") if float(mark.attrib["cy"]) > 60]
    assert [mark.attrib["class"] for mark in circles] == ["tulle", "missed", "tulle"]
    ratios = [0.5, 1000 / 400, 2.5]
    assert [float(mark.attrib["cx"]) for mark in circles] == [plot.x_of(ratio) for ratio in ratios]


def test_what_is_off_the_scale_is_at_its_edge() -> None:
    assert plot.x_of(1000) == plot.x_of(8) > plot.x_of(1) > plot.x_of(0.125) == plot.x_of(0.001)


def test_pure_python_gets_metrics_of_its_own() -> None:
    found = {"http1.outbound": {"tulle": [1.0], "envoy": [2.0], "nginx": [0.5], PURE: [1.5]}}
    assert with_pure(found) == {
        "http1.outbound": {"tulle": [1.0], "envoy": [2.0], "nginx": [0.5]},
        "http1.outbound_pure": {"tulle": [1.5], "envoy": [2.0]},
    }
