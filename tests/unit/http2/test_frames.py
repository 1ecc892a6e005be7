"""The judge of inbound frames: each limit reached and not passed, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http2.frames import FrameInspector
from proxy.http2.limits import FloodLimits
from tests.unit.http2.pairs import PREFACE, frame

DATA, HEADERS, PRIORITY, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 4, 6, 8, 9
PADDED = 8
EMPTY = frame(DATA, 0, 1)
FULL = frame(DATA, 0, 1, b"x")
REQUEST = frame(HEADERS, 4, 1, b"\x82")


def judge(
    data: bytes,
    *,
    limits: FloodLimits | None = None,
    cut: int = 0,
    server: bool = False,
    data_frames_sent: int = 0,
) -> str | None:
    """The flood that is seen in ``data``, read whole or in pieces of ``cut`` bytes."""
    inspector = FrameInspector(limits or FloodLimits(), server=server)
    inspector.data_frames_sent = data_frames_sent
    step = cut or len(data) or 1
    for at in range(0, len(data), step):
        flood = inspector.inspect(data[at : at + step])
        if flood:
            assert inspector.inspect(b"more") == inspector.flood == flood
            return flood
    return None


CUTS = pytest.mark.parametrize("cut", [0, 1, 2, 9, 10, 13])


@CUTS
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (EMPTY, None),
        (EMPTY + EMPTY, "inbound_empty_frames_flood"),
        (EMPTY + FULL + EMPTY, None),
        (EMPTY + frame(PING, 0, 0, bytes(8)) + EMPTY, "inbound_empty_frames_flood"),
        (EMPTY + frame(DATA, 1, 1), None),
        (EMPTY + frame(DATA, 1, 1) + EMPTY, None),
        (EMPTY + frame(DATA, PADDED, 1, b"\2\0\0"), "inbound_empty_frames_flood"),
        (EMPTY + frame(DATA, PADDED, 1, b"\0"), "inbound_empty_frames_flood"),
        (EMPTY + frame(DATA, PADDED, 1, b"\1x\0"), None),
        (EMPTY + frame(HEADERS, 0, 1) + FULL, "inbound_empty_frames_flood"),
        (frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1), "inbound_empty_frames_flood"),
        (EMPTY + frame(HEADERS, PADDED, 1, b"\3\0\0\0"), "inbound_empty_frames_flood"),
        (EMPTY + frame(CONTINUATION, 1, 1), "inbound_empty_frames_flood"),
        (EMPTY + frame(HEADERS, 1, 1) + EMPTY, None),
    ],
)
def test_empty_frames(data: bytes, expected: str | None, cut: int) -> None:
    assert judge(data, cut=cut) == expected


def test_empty_frames_by_the_option() -> None:
    limits = FloodLimits(max_consecutive_inbound_frames_with_empty_payload=3)
    assert judge(EMPTY * 3, limits=limits) is None
    assert judge(EMPTY * 4, limits=limits) == "inbound_empty_frames_flood"


@CUTS
def test_priority_frames(cut: int) -> None:
    priority = frame(PRIORITY, 0, 1, bytes(5))
    assert judge(priority * 100, cut=cut) is None
    assert judge(priority * 101, cut=cut) == "inbound_priority_frames_flood"
    limits = FloodLimits(max_inbound_priority_frames_per_stream=2)
    assert judge(PREFACE + REQUEST + priority * 4, limits=limits, cut=cut, server=True) is None
    data = PREFACE + REQUEST + priority * 5
    assert judge(data, limits=limits, cut=cut, server=True) == "inbound_priority_frames_flood"


@CUTS
def test_window_update_frames(cut: int) -> None:
    update = frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")
    assert judge(update * 5, cut=cut) is None
    assert judge(update * 6, cut=cut) == "inbound_window_update_frames_flood"
    # Envoy's 5 + 2 * (streams opened + 2 * DATA frames sent).
    limits = FloodLimits(max_inbound_window_update_frames_per_data_frame_sent=2)
    data = PREFACE + REQUEST + update * 15
    assert judge(data, limits=limits, cut=cut, server=True, data_frames_sent=2) is None
    flood = judge(data + update, limits=limits, cut=cut, server=True, data_frames_sent=2)
    assert flood == "inbound_window_update_frames_flood"


@CUTS
def test_header_blocks(cut: int) -> None:
    limits = FloodLimits(max_header_block_size=4096)
    head = frame(HEADERS, 0, 1, b"x" * 4000)
    more = frame(CONTINUATION, 0, 1, b"x" * 96)
    assert judge(head + more, limits=limits, cut=cut) is None
    assert judge(head + more + frame(CONTINUATION, 4, 1, b"x"), limits=limits, cut=cut) == "header_overflow"
    # A block of its own begins with each HEADERS.
    assert judge((head + more) * 3, limits=limits, cut=cut) is None
    assert judge(frame(HEADERS, 0, 1, b"x" * 4097), limits=limits, cut=cut) == "header_overflow"


@CUTS
def test_continuation_flood(cut: int) -> None:
    limits = FloodLimits(max_header_block_size=4096)
    tiny = frame(CONTINUATION, 0, 1, b"x")
    head = frame(HEADERS, 0, 1, b"x")
    assert judge(head + tiny * 12, limits=limits, cut=cut) is None
    assert judge(head + tiny * 13, limits=limits, cut=cut) == "header_overflow"


@CUTS
def test_streams_opened_are_counted_by_a_server(cut: int) -> None:
    inspector = FrameInspector(FloodLimits(), server=True)
    data = PREFACE + b"".join(frame(HEADERS, 5, stream, b"\x82") for stream in (1, 1, 3, 7, 5))
    step = cut or len(data)
    for at in range(0, len(data), step):
        assert inspector.inspect(data[at : at + step]) is None
    assert inspector.opened_streams == 3


def test_a_frame_is_one_subtraction_however_long() -> None:
    inspector = FrameInspector(FloodLimits(), server=False)
    assert inspector.inspect((1 << 20).to_bytes(3, "big") + bytes(6)) is None
    # What would be floods is payload.
    for _ in range((1 << 20) // len(EMPTY * 100)):
        assert inspector.inspect(EMPTY * 100) is None


FRAMES = st.builds(
    frame,
    st.sampled_from([DATA, HEADERS, PRIORITY, SETTINGS, WINDOW_UPDATE, CONTINUATION, 77]),
    st.sampled_from([0, 1, 4, 5, 8, 9]),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([b"", b"\0", b"\1\0", b"\0x", b"x" * 40]),
)


@given(
    parts=st.lists(FRAMES, max_size=30),
    cut=st.integers(1, 40),
    buffer=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_cutting_changes_nothing(parts: list[bytes], cut: int, buffer: type) -> None:
    limits = FloodLimits(
        max_consecutive_inbound_frames_with_empty_payload=2,
        max_inbound_priority_frames_per_stream=1,
        max_header_block_size=100,
    )
    data = PREFACE + b"".join(parts)
    whole = FrameInspector(limits, server=True)
    pieces = FrameInspector(limits, server=True)
    expected = whole.inspect(buffer(data))
    seen = [pieces.inspect(buffer(data[at : at + cut])) for at in range(0, len(data), cut)]
    assert seen[-1] == expected
    if expected is None:
        assert pieces.opened_streams == whole.opened_streams
