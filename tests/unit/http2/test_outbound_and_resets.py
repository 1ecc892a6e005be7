"""What waits for the socket, and rapid resets: Envoy's limits, reached and not passed."""

from __future__ import annotations

import pytest

from proxy.http2.codec import ENGINES
from proxy.http2.limits import FloodLimits
from proxy.http2.outbound import OutboundFrames
from proxy.http2.resets import PrematureResets
from tests.unit.http2.pairs import OK, PREFACE, REQUEST, connected, frame

PONG = frame(6, 1, 0, bytes(8))


def test_control_frames() -> None:
    outbound = OutboundFrames(FloodLimits(max_outbound_control_frames=3))
    assert outbound.wrote(PONG * 2 + frame(4, 1, 0) + frame(6, 0, 0, bytes(8)) + frame(4, 0, 0), 1) is None
    assert (outbound.frames, outbound.control_frames) == (5, 3)
    assert outbound.wrote(frame(3, 0, 1, bytes(4)), 2) == "outbound_control_flood"


def test_the_defaults_are_envoys() -> None:
    outbound = OutboundFrames(FloodLimits())
    assert outbound.wrote(PONG * 1000, 1) is None
    assert outbound.wrote(PONG, 2) == "outbound_control_flood"
    outbound = OutboundFrames(FloodLimits())
    assert outbound.wrote(frame(0, 0, 1, b"x") * 10_000, 1) is None
    assert outbound.wrote(frame(0, 0, 1, b"x"), 2) == "outbound_flood"


def test_what_the_socket_took_no_longer_counts() -> None:
    outbound = OutboundFrames(FloodLimits(max_outbound_frames=3))
    assert outbound.wrote(PREFACE + frame(4, 0, 0) + frame(0, 0, 1, b"abc"), 100) is None
    assert outbound.wrote(PONG, 200) is None
    outbound.taken(99)
    assert (outbound.frames, outbound.control_frames) == (3, 1)
    assert outbound.wrote(PONG, 300) == "outbound_flood"
    outbound.taken(100)
    assert (outbound.frames, outbound.control_frames, outbound.check()) == (2, 2, None)
    outbound.taken(300)
    assert (outbound.frames, outbound.control_frames, outbound.data_frames_sent) == (0, 0, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_it_counts_what_a_codec_gives(engine: str) -> None:
    pair = connected(engine, engine)
    pair.client.send_request(REQUEST)
    pair.pump()
    pair.server.send_response(1, OK)
    pair.server.send_data(1, b"x" * 40_000)
    pair.server.send_trailers(1, [(b"grpc-status", b"0")])
    outbound = OutboundFrames(FloodLimits())
    assert outbound.wrote(pair.server.data_to_send(), 1) is None
    assert (outbound.frames, outbound.data_frames_sent, outbound.control_frames) == (5, 3, 0)


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
