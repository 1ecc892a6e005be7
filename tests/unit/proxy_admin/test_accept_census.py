"""Counting what is there must not depend on what is there."""

from __future__ import annotations

from typing import Any

from proxy.accept import census


def test_classes_whose_module_is_no_name_are_passed_over() -> None:
    class Odd(list[int]):
        pass

    odd: Any = Odd
    odd.__module__ = property(lambda self: "proxy.x")
    held = Odd()
    assert "Odd" not in str(census.objects()["objects"])
    assert held == []
