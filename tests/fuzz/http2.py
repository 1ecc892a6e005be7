"""What must hold for any bytes, for the judge of HTTP/2 frames and for both codec engines.

- Nothing is raised but ``CodecError``, by either engine in either role.
- However the bytes are cut, the judge's verdict and the events are the same.
- What comes out is bounded by what went in: bodies, answers, and what is kept of unfinished frames.
- The engines take the same requests for well formed: what one has seen when it gives up the other has seen too.

The first byte says how the rest is cut and which role takes it. A server is given the preface and SETTINGS.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

# Imported where the fuzzer's instrumentation sees it: the codec itself waits until it is needed.
import proxy.http2.hyper  # noqa: F401
from proxy.http2.codec import ENGINES, Codec, CodecError, Options, Role
from proxy.http2.frames import FrameInspector
from proxy.http2.limits import FloodLimits

_SETTINGS: Final = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS
_LIMITS: Final = FloodLimits(max_header_block_size=2000)
_OPTIONS: Final = Options(
    max_concurrent_streams=5,
    initial_stream_window_size=65535,
    initial_connection_window_size=65535,
    max_header_list_size=4000,
    max_header_count=50,
    allow_connect=True,
)
_REQUEST: Final = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))
_MESSAGES: Final = ("RequestReceived", "ResponseReceived", "InformationalResponseReceived")


def http2(data: bytes) -> None:
    """Frames."""
    first = data[0] if data else 0
    role = Role.SERVER if first & 1 else Role.CLIENT
    cut = (first >> 1) % 40 + 1
    stream = (_PREFACE if role is Role.SERVER else _SETTINGS) + data[1:]
    assert _judge(stream, role, len(stream)) == _judge(stream, role, cut)
    messages = []
    for engine in ENGINES:
        whole, dead = _drive(engine, role, stream, len(stream))
        pieces, also_dead = _drive(engine, role, stream, cut)
        if any(event[0] == "GoAwayReceived" for event in pieces):
            # It may be over between two reads. The rest of one read is still looked at.
            pieces = [event for event in pieces if event[0] != "ConnectionClosed"]
            whole = [event for event in whole if event[0] != "ConnectionClosed"][: len(pieces)]
        else:
            assert dead == also_dead, engine
        assert _sorted(pieces) == _sorted(whole), engine
        messages.append([event for event in whole if event[0] in _MESSAGES])
    shortest = min(map(len, messages))
    assert all(each[:shortest] == messages[0][:shortest] for each in messages), messages


def _sorted(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """``events``, with streams that closed together in order: nghttp2 keeps them in a randomised table."""
    return [
        event
        for closed, group in groupby(events, lambda event: bool(event[0] == "StreamClosed"))
        for event in (sorted(group, key=lambda event: int(event[1])) if closed else group)
    ]


def _judge(stream: bytes, role: Role, cut: int) -> tuple[str | None, int]:
    inspector = FrameInspector(_LIMITS, server=role is Role.SERVER)
    for at in range(0, len(stream), cut):
        inspector.inspect(stream[at : at + cut])
        if inspector.verdict is not None:
            return inspector.verdict, 0
    return None, inspector.opened_streams


def _drive(engine: str, role: Role, stream: bytes, cut: int) -> tuple[list[tuple[Any, ...]], bool]:
    codec = ENGINES[engine].make(role, _OPTIONS)
    if role is Role.CLIENT:
        for _ in range(3):
            codec.send_request(_REQUEST)
    codec.data_to_send()
    dead = False
    for at in range(0, len(stream), cut):
        try:
            codec.receive_data(stream[at : at + cut])
        except CodecError:
            dead = True
            break
    events = [
        (type(event).__name__, *(getattr(event, name) for name in event.__match_args__))
        for event in codec.events()
    ]
    assert sum(len(event[2]) for event in events if event[0] == "DataReceived") <= len(stream)
    assert all(
        sum(len(name) + len(value) + 32 for name, value in event[2]) <= _OPTIONS.max_header_list_size
        for event in events
        if event[0] in _MESSAGES
    )
    return events, _finish(codec, len(stream)) or dead


def _finish(codec: Codec, size: int) -> bool:
    """Take what it has to say. An answer is never longer than what asked for it, but for the last GOAWAY."""
    try:
        answer = codec.data_to_send()
    except CodecError:
        return True
    assert len(answer) <= 2 * size + 200, (len(answer), size)
    assert codec.queued_body_size() == 0
    return any(type(event).__name__ == "ConnectionClosed" for event in codec.events())
