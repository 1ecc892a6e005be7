"""Counters and gauges of the control plane in Prometheus' text format 0.0.4.

Small on purpose: labels are few and their values come from closed sets, never from users' input, so that
the number of series is bounded. It serves nothing; :mod:`control_plane.app` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Counter:
    """A number that only grows, one per combination of label values."""

    __slots__ = ("_labels", "_values")

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def inc(self, *values: str, by: float = 1) -> None:
        """``values`` are the label values in the order in which the labels were declared."""
        if len(values) != len(self._labels):
            raise ValueError(f"labels {self._labels} need {len(self._labels)} values, got {values}")
        self._values[values] = self._values.get(values, 0.0) + by

    def value(self, *values: str) -> float:
        return self._values.get(values, 0.0)

    def samples(self) -> Sequence[tuple[str, float]]:
        return [(_labels(self._labels, values), number) for values, number in sorted(self._values.items())]


class Metrics:
    """A registry. Names are unique; a second registration of one raises ``ValueError``."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, Callable[[], Sequence[tuple[str, float]]]]] = {}

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        counter = Counter(labels)
        self._register(name, text, "counter", counter.samples)
        return counter

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """``read`` is called at each scrape."""
        self._register(name, text, "gauge", lambda: [("", read())])

    def reading(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A counter that somebody else keeps; ``read`` is called at each scrape."""
        self._register(name, text, "counter", lambda: [("", read())])

    def _register(
        self, name: str, text: str, sort: str, samples: Callable[[], Sequence[tuple[str, float]]]
    ) -> None:
        if name in self._families:
            raise ValueError(f"metric {name} is registered twice")
        self._families[name] = (text, sort, samples)

    def render(self) -> str:
        lines: list[str] = []
        for name, (text, sort, samples) in sorted(self._families.items()):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {sort}"]
            lines += [f"{name}{labels} {_number(value)}" for labels, value in samples()]
        return "\n".join(lines) + "\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
