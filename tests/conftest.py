"""Hooks for all tests. They are written where they belong, in ``tests/support``."""

import signal

from hypothesis import settings

from tests.support.netns import pytest_runtest_protocol

__all__ = ["pytest_runtest_protocol"]

# No test asserts on speed, and a machine may be busy.
settings.register_profile("tulle", deadline=None)
settings.load_profile("tulle")

# A shell starts background jobs with these ignored, and every process under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
