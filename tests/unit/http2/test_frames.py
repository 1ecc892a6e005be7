"""The judge of inbound frames: each limit reached and not passed, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http2.frames import FrameInspector
from proxy.http2.limits import FloodLimits
from tests.unit.http2.pairs import PREFACE, frame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
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
            assert inspector.inspect(b"more") == inspector.verdict == flood
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
    data = PREFACE + b"".join(frame(HEADERS, 4, stream, b"\x82") for stream in (1, 1, 3, 7, 3))
    step = cut or len(data)
    for at in range(0, len(data), step):
        assert inspector.inspect(data[at : at + step]) is None
    assert inspector.opened_streams == 3


def head(stream: int, *, end: bool = False) -> bytes:
    return frame(HEADERS, END_HEADERS | end, stream, b"\x82")


def data(stream: int, *, end: bool = False, padded: bool = False) -> bytes:
    return frame(DATA, end | PADDED * padded, stream, b"\2xx\0\0" if padded else b"x")


RESET = frame(RST_STREAM, 0, 1, bytes(4))
RESERVED = 1 << 31


@CUTS
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (head(1, end=True) + data(1), "stream_closed"),
        (head(1) + data(1) + data(1, end=True) + data(1), "stream_closed"),
        (head(1) + data(1, end=True, padded=True) + data(1), "stream_closed"),
        (head(1) + head(1, end=True) + head(1, end=True), "stream_closed"),
        (head(1, end=True) + head(3, end=True) + head(1, end=True), "stream_closed"),
        (head(1) + RESET + data(1), "stream_closed"),
        (head(1) + RESET + head(1, end=True), "stream_closed"),
        (head(1 | RESERVED) + data(1) + data(1 | RESERVED, end=True) + data(1), "stream_closed"),
        # Skipped.
        (head(5, end=True) + head(3, end=True), "protocol_error"),
        (head(5) + data(3), "stream_closed"),
        # What may still come.
        (head(1) + head(3, end=True) + data(1, padded=True) + head(1, end=True), None),
        (head(1, end=True) + RESET + RESET + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), None),
        (head(1, end=True) + frame(PRIORITY, 0, 1, b"\0\0\0\3\0"), None),
        # The codec's.
        (data(1), None),
        (head(2, end=True) + data(2), None),
        (head(1, end=True) + data(0), None),
    ],
)
def test_frames_of_streams_that_are_over(sent: bytes, expected: str | None, cut: int) -> None:
    assert judge(PREFACE + sent, cut=cut, server=True) == expected
    # A server owes its client nothing after it has reset a stream, and the codec knows more.
    assert judge(sent, cut=cut) is None


def test_as_many_open_streams_as_are_remembered() -> None:
    inspector = FrameInspector(FloodLimits(), server=True)
    assert inspector.inspect(PREFACE + b"".join(head(2 * n + 1) for n in range(1024))) is None
    assert inspector.inspect(data(1, end=True) + head(2049)) is None
    # From here on late frames of all these are let pass, and those of new streams are not.
    assert inspector.inspect(head(2051) + data(1) + data(2047, end=True) + data(2047)) is None
    assert inspector.inspect(head(2053, end=True) + data(2053)) == "stream_closed"


@CUTS
@pytest.mark.parametrize(
    ("stream", "on", "expected"),
    [
        (1, 0, None),
        (1, 3, None),
        (1, 1, "protocol_error"),
        (1, 1 | RESERVED, "protocol_error"),
        (0, 3, "protocol_error"),
    ],
)
def test_priority_that_cannot_be(stream: int, on: int, expected: str | None, cut: int) -> None:
    sent = frame(PRIORITY, 0, stream, on.to_bytes(4, "big") + b"\0")
    assert judge(PREFACE + sent, cut=cut, server=True) == expected
    assert judge(sent, cut=cut) is None


@pytest.mark.parametrize("cut", range(1, 14))
def test_large_grants_are_named(cut: int) -> None:
    def update(stream: int, increment: int) -> bytes:
        return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))

    inspector = FrameInspector(FloodLimits(), server=True)
    assert inspector.inspect(PREFACE + head(1)) is None
    assert inspector.inspect(update(1, (1 << 24) - 1) + update(0, 1 << 24)) is None
    assert not inspector.grants
    first, second = update(1, 1 << 24), update(1, (1 << 31) - 1)
    assert inspector.inspect(first[:cut] or b"") == ("grant" if cut == 13 else None)
    assert inspector.inspect(first[cut:] + second) == "grant"
    begins = [(13 - cut, 1, (1 << 31) - 1)]
    assert inspector.grants == [(-cut if cut < 13 else 0, 1, 1 << 24), *begins]


def test_a_frame_is_one_subtraction_however_long() -> None:
    inspector = FrameInspector(FloodLimits(), server=False)
    assert inspector.inspect((1 << 20).to_bytes(3, "big") + bytes(6)) is None
    # What would be floods is payload.
    for _ in range((1 << 20) // len(EMPTY * 100)):
        assert inspector.inspect(EMPTY * 100) is None


FRAMES = st.builds(
    frame,
    st.sampled_from([DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, CONTINUATION, 77]),
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
    if expected == "grant":
        assert expected in seen
    else:
        assert seen[-1] == expected
    if whole.verdict is None:
        assert pieces.opened_streams == whole.opened_streams
        assert [grant[1:] for grant in pieces.grants] == [grant[1:] for grant in whole.grants]
