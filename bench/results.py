"""The one table of results: which metrics there are, what was measured, and what follows from it.

Pure: a run's JSON in, medians, spreads, ratios and verdicts out. Only what was measured is stored; everything else is
computed from it again, so that the documentation can be checked against it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Final, Literal

REFERENCE: Final = "envoy"
SUBJECT: Final = "tulle"

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table. ``ratio``: the target as a ratio to Envoy; ``limit``: as a value.

    Either is an upper bound where lower is better, a lower bound where higher is.
    """

    key: str
    title: str
    unit: str
    better: Better = "lower"
    ratio: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """One kind's figure: the median of its rounds, and the distance between their quartiles as a share of it."""

    median: float
    spread: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Row:
    """A metric with every kind's figure. ``met`` is ``None`` without target or without what it compares."""

    metric: Metric
    values: dict[str, Value]
    ratio: float | None
    met: bool | None


def summarise(values: list[float]) -> Value:
    """Median and spread of at least one round."""
    median = statistics.median(values)
    if len(values) < 2 or not median:
        return Value(median, 0.0, len(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Value(median, (high - low) / abs(median), len(values))


def row(metric: Metric, rounds: dict[str, list[float]]) -> Row:
    """The line of one metric."""
    values = {kind: summarise(measured) for kind, measured in rounds.items() if measured}
    subject, reference = values.get(SUBJECT), values.get(REFERENCE)
    ratio = None
    if subject is not None and reference is not None and reference.median:
        ratio = subject.median / reference.median
    met: bool | None = None
    if metric.ratio is not None and ratio is not None:
        met = _within(ratio, metric.ratio, metric.better)
    elif metric.limit is not None and subject is not None:
        met = _within(subject.median, metric.limit, metric.better)
    return Row(metric, values, ratio, met)


def _within(value: float, bound: float, better: Better) -> bool:
    return value <= bound if better == "lower" else value >= bound


def to_json(metrics: dict[Metric, dict[str, list[float]]], **facts: Any) -> dict[str, Any]:
    """What is written to a file: the facts of the run, then each metric with its rounds, rounded to six digits."""
    return {
        **facts,
        "metrics": [
            {
                "key": metric.key,
                "title": metric.title,
                "unit": metric.unit,
                "better": metric.better,
                "target": {"ratio": metric.ratio, "limit": metric.limit},
                "rounds": {
                    kind: [float(f"{value:.6g}") for value in values] for kind, values in rounds.items()
                },
            }
            for metric, rounds in metrics.items()
        ],
    }


def rows(document: dict[str, Any]) -> list[Row]:
    """The table of a file that ``to_json`` made."""
    return [
        row(
            Metric(
                item["key"],
                item["title"],
                item["unit"],
                item["better"],
                item["target"]["ratio"],
                item["target"]["limit"],
            ),
            item["rounds"],
        )
        for item in document["metrics"]
    ]
