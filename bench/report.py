"""A run's table: as text for the terminal, as Markdown for ``docs/performance.md``.

``python -m bench.report`` writes the newest committed full run's table and plot into the documentation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench import plot
from bench.kinds import NAMES
from bench.results import Row, rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
BEGIN = "<!-- measured: python -m bench.report writes what is between these lines -->"
END = "<!-- /measured -->"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 3
    text = f"{value:.{max(0, digits)}f}"
    return f"{float(text):,.0f}" if abs(value) >= 10000 else text


def target(item: Row) -> str:
    """The target, as one reads it."""
    metric = item.metric
    sign = "≤" if metric.better == "lower" else "≥"
    if metric.ratio is not None:
        return f"{sign} {metric.ratio:g}×"
    return f"{sign} {metric.limit:g} {metric.unit}" if metric.limit is not None else ""


def verdict(item: Row) -> str:
    """Whether it is met, "" if there is none."""
    return "" if item.met is None else "met" if item.met else "missed"


def cell(item: Row, kind: str) -> str:
    """A kind's figure with its spread."""
    value = item.values.get(kind)
    if value is None:
        return "–"
    return number(value.median) + (f" ±{value.spread * 50:.0f} %" if value.rounds > 1 else "")


def ratio(item: Row) -> str:
    return "" if item.ratio is None else f"{item.ratio:.2f}×"


def kinds_of(table: list[Row]) -> list[str]:
    """The kinds that a table has, in the usual order."""
    return [name for name in NAMES if any(name in item.values for item in table)]


def text(document: dict[str, Any]) -> str:
    """For the terminal."""
    table = rows(document)
    kinds = kinds_of(table)
    width = max((len(f"{item.metric.title}, {item.metric.unit}") for item in table), default=0)
    lines = [" " * width + "".join(f"{kind:>16}" for kind in kinds) + f"{'ratio':>9}{'target':>12}"]
    for item in table:
        title = f"{item.metric.title}, {item.metric.unit}"
        cells = "".join(f"{cell(item, kind):>16}" for kind in kinds)
        lines.append(f"{title:{width}}{cells}{ratio(item):>9}{target(item):>12}  {verdict(item)}".rstrip())
    return "\n".join(lines)


def markdown(document: dict[str, Any]) -> str:
    """For the documentation: the machine, the table, the notes."""
    table = rows(document)
    kinds = kinds_of(table)
    machine = document["machine"]
    lines = [
        f"![Cost as a ratio to Envoy]({PLOT.name})",
        "",
        f"Measured on {document['date']}: {machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}; "
        f"placement: {document['placement']}; {document['rounds']} rounds.",
        "",
        *(f"- {kind}: {document['versions'][kind]}" for kind in kinds),
        "",
        "| | " + " | ".join(kinds) + " | Tulle/Envoy | target | |",
        "|---|" + "---:|" * (len(kinds) + 1) + "---|---|",
    ]
    for item in table:
        cells = " | ".join(cell(item, kind) for kind in kinds)
        lines.append(
            f"| {item.metric.title}, {item.metric.unit} | {cells} | {ratio(item)} | {target(item)} | {verdict(item)} |"
        )
    if document["notes"]:
        lines += ["", *(f"- {note}." for note in document["notes"])]
    return "\n".join(lines)


def newest() -> Path | None:
    """The committed full run's file; there is only one, or none yet."""
    found = sorted(RESULTS.glob("*-full.json"))
    return found[-1] if found else None


def with_table(page: str, document: dict[str, Any]) -> str:
    """The page with the table of ``document`` in it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no line {BEGIN!r} followed by {END!r}")
    return f"{before}{BEGIN}\n{markdown(document)}\n{END}{after}"


def problems() -> list[str]:
    """What in the documentation is not what the committed run gives."""
    path = newest()
    if path is None:
        return []
    document = json.loads(path.read_text())
    found = []
    page = PAGE.read_text()
    if with_table(page, document) != page:
        found.append(f"docs/{PAGE.name}: the table is not that of {path.name} (python -m bench.report)")
    if not PLOT.exists() or PLOT.read_text() != plot.svg(rows(document), document["date"]):
        found.append(f"docs/{PLOT.name}: the plot is not that of {path.name} (python -m bench.report)")
    return found


def main() -> int:
    path = newest()
    if path is None:
        print(f"no full run in {RESULTS.relative_to(ROOT)}", file=sys.stderr)
        return 1
    document = json.loads(path.read_text())
    PAGE.write_text(with_table(PAGE.read_text(), document))
    PLOT.write_text(plot.svg(rows(document), document["date"]))
    print(f"docs/{PAGE.name} and docs/{PLOT.name} are those of {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
