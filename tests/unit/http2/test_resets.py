"""Rapid resets: Envoy's limits, reached and not passed."""

from __future__ import annotations

import pytest

from proxy.http2.limits import FloodLimits
from proxy.http2.resets import PrematureResets


def test_half_of_all_streams_reset_early_is_too_many() -> None:
    resets = PrematureResets(FloodLimits(premature_reset_total_stream_count=10))
    for _ in range(4):
        assert not resets.stream_closed(0.1, responded=False)
        assert not resets.stream_closed(0.1, responded=True)
    assert resets.stream_closed(0.1, responded=False)


def test_no_number_of_good_streams_could_make_up_for_it() -> None:
    resets = PrematureResets(FloodLimits())
    assert not any(resets.stream_closed(0.0, responded=False) for _ in range(249))
    assert resets.stream_closed(0.0, responded=False)


def test_many_good_streams_allow_some_resets() -> None:
    resets = PrematureResets(FloodLimits())
    for _ in range(1000):
        assert not resets.stream_closed(0.0, responded=True)
    assert not any(resets.stream_closed(0.0, responded=False) for _ in range(999))
    assert resets.stream_closed(0.0, responded=False)


@pytest.mark.parametrize(("lifetime", "premature"), [(0.0, 1), (1.99, 1), (2.0, 0), (60.0, 0)])
def test_what_is_premature(lifetime: float, premature: int) -> None:
    resets = PrematureResets(FloodLimits())
    resets.stream_closed(lifetime, responded=False)
    resets.stream_closed(lifetime, responded=True)
    assert (resets.premature, resets.closed) == (premature, 2)
    longer = PrematureResets(FloodLimits(premature_reset_min_stream_lifetime_seconds=60))
    longer.stream_closed(lifetime, responded=False)
    assert longer.premature == 1
