"""Hooks for all tests. They are written where they belong, in ``tests/support``."""

import signal

from tests.support.netns import pytest_runtest_protocol

__all__ = ["pytest_runtest_protocol"]

# A shell starts background jobs with these ignored, and every process under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
