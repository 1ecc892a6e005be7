"""The plot of ``docs/performance.md``: every metric as a ratio to Envoy, a mark for each kind, on a logarithmic scale.

SVG from a run's rows, in a form that is the same for the same rows. Left is always better: where more is better the
ratio is turned over. It carries its own colours, and its own ground, for light and dark viewers.
"""

from __future__ import annotations

import math
from html import escape

from bench.results import REFERENCE, Row

_LOW, _HIGH = 0.125, 8.0
_LEFT, _WIDTH, _ROW, _TOP = 330, 470, 26, 74
_MARKS = {
    "tulle": '<circle class="tulle" cx="{x}" cy="{y}" r="6"/>',
    "haproxy": '<path class="haproxy" d="M{x} {up} l5 8.5 h-10 z"/>',
    "nginx": '<rect class="nginx" x="{left}" y="{top}" width="8" height="8"/>',
}
_STYLE = """
  .page { fill: #ffffff }
  text { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .faint { fill: #59636e }
  .grid { stroke: #d1d9e0 }
  .reference { stroke: #59636e; stroke-width: 1.5 }
  .target { stroke: #1a7f37; stroke-width: 3 }
  .tulle { fill: #0969da }
  .missed { fill: #cf222e }
  .haproxy, .nginx { fill: none; stroke: #59636e; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 }
    text { fill: #f0f6fc }
    .faint { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .reference { stroke: #9198a1 }
    .target { stroke: #3fb950 }
    .tulle { fill: #4493f8 }
    .missed { fill: #f85149 }
    .haproxy, .nginx { stroke: #9198a1 }
  }
"""


def x_of(ratio: float) -> float:
    """Where a ratio is; what is off the scale is at its edge."""
    share = math.log(min(max(ratio, _LOW), _HIGH) / _LOW) / math.log(_HIGH / _LOW)
    return round(_LEFT + share * _WIDTH, 1)


def ratios(item: Row) -> dict[str, float]:
    """Cost relative to Envoy's, by kind: below 1 is better."""
    reference = item.values.get(REFERENCE)
    if reference is None or not reference.median:
        return {}
    found = {}
    for kind, value in item.values.items():
        if kind in _MARKS and value.median:
            ratio = value.median / reference.median
            found[kind] = ratio if item.metric.better == "lower" else 1 / ratio
    return found


def target(item: Row) -> float | None:
    """The target on the same scale."""
    metric = item.metric
    if metric.ratio is not None:
        return metric.ratio if metric.better == "lower" else 1 / metric.ratio
    reference = item.values.get(REFERENCE)
    if metric.limit is None or reference is None or not reference.median:
        return None
    return metric.limit / reference.median


def svg(rows: list[Row], date: str) -> str:
    """The whole picture."""
    shown = [item for item in rows if ratios(item)]
    bottom = _TOP + _ROW * len(shown)
    width = _LEFT + _WIDTH + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 40}" role="img" '
        f'aria-label="Cost of each kind of proxy as a ratio to Envoy">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{bottom + 40}" rx="6"/>',
        f'<text class="title" x="12" y="24">Cost as a ratio to Envoy, {escape(date)} (left is better)</text>',
        *_legend(),
    ]
    tick = _LOW
    while tick <= _HIGH:
        x = x_of(tick)
        grid = "reference" if tick == 1 else "grid"
        lines.append(f'<line class="{grid}" x1="{x}" y1="{_TOP - 12}" x2="{x}" y2="{bottom}"/>')
        label = "Envoy" if tick == 1 else f"{tick:g}×" if tick > 1 else f"1/{1 / tick:g}×"
        lines.append(f'<text class="faint" x="{x}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
        tick *= 2
    for index, item in enumerate(shown):
        lines += _row(item, _TOP + _ROW * index + _ROW // 2 - 6)
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> list[str]:
    entries = (
        ("tulle", "Tulle"),
        ("missed", "Tulle, target missed"),
        ("haproxy", "HAProxy"),
        ("nginx", "nginx"),
    )
    lines = []
    x = 20
    for name, label in entries:
        mark = _mark("tulle" if name == "missed" else name, x, 44)
        lines.append(mark.replace('class="tulle"', 'class="missed"') if name == "missed" else mark)
        lines.append(f'<text x="{x + 12}" y="48">{label}</text>')
        x += 45 + 7 * len(label)
    lines.append(f'<line class="target" x1="{x}" y1="37" x2="{x}" y2="51"/>')
    lines.append(f'<text x="{x + 12}" y="48">Tulle\'s target: at or left of it</text>')
    return lines


def _mark(kind: str, x: float, y: float) -> str:
    return _MARKS[kind].format(x=x, y=y, up=y - 5, left=round(x - 4, 1), top=y - 4)


def _row(item: Row, y: int) -> list[str]:
    title = item.metric.title
    lines = [
        f'<text x="{_LEFT - 14}" y="{y + 4}" text-anchor="end">{escape(title)}</text>',
        f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}"/>',
    ]
    bound = target(item)
    if bound is not None:
        x = x_of(bound)
        lines.append(f'<line class="target" x1="{x}" y1="{y - 8}" x2="{x}" y2="{y + 8}"/>')
    found = ratios(item)
    for kind in sorted(found, reverse=True, key=lambda kind: kind == "nginx"):
        mark = _mark(kind, x_of(found[kind]), y)
        if kind == "tulle" and item.met is False:
            mark = mark.replace('class="tulle"', 'class="missed"')
        lines.append(mark)
    return lines
