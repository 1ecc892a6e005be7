"""How a sample of the profiler is named."""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable
from types import FrameType

from bench import profile


def run(callback: Callable[[], list[str]]) -> list[str]:
    """Named as what runs the loop is."""
    return callback()


def test_a_stack_ends_at_the_loops_callback() -> None:
    def callback() -> list[str]:
        frame = sys._getframe()
        return profile.stack(frame)

    names = run(callback)
    assert len(names) == 1 and names[0].endswith("callback")


def test_a_sample_at_the_first_instruction_of_a_callback_is_the_loops() -> None:
    seen = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "callback":
            seen.append(profile.stack(frame))

    def callback() -> list[str]:
        return []

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        run(callback)
    finally:
        sys.setprofile(before)
    assert seen == [["loop: poll, read, accept"]]


def test_table_gives_shares() -> None:
    counts = collections.Counter({"a.f": 3, "b.g": 1})
    assert profile.table("title", counts, counts.total(), 1).splitlines() == ["title", "  75.0 %  a.f"]
