"""Hooks for all tests. They are written where they belong, in ``tests/support``."""

from tests.support.netns import pytest_runtest_protocol

__all__ = ["pytest_runtest_protocol"]
