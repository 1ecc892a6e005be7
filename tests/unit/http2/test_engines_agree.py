"""Both engines, driven alike, show the same: each as the client and as the server of either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.http2.codec import ENGINES, Codec, CodecError, Options
from tests.unit.http2.pairs import OK, REQUEST, Pair

COMBINATIONS = [(client, server) for client in ENGINES for server in ENGINES]

Operation = tuple[str, ...]

STREAMS = st.integers(0, 3)
SIZES = st.sampled_from([0, 1, 100, 16384, 16385, 70000])
LAST = st.booleans()
SETTING_VALUES = st.sampled_from([1, 20000, 65535, 200000])
CODES = st.sampled_from([0, 2, 7, 8])

OPERATIONS = st.one_of(
    st.tuples(st.just("request"), LAST),
    st.tuples(st.just("respond"), STREAMS, LAST),
    st.tuples(st.just("inform"), STREAMS),
    st.tuples(st.sampled_from(["client_data", "server_data"]), STREAMS, SIZES, LAST),
    st.tuples(st.sampled_from(["client_trailers", "server_trailers"]), STREAMS),
    st.tuples(st.sampled_from(["client_reset", "server_reset"]), STREAMS, CODES),
    st.tuples(st.sampled_from(["client_use", "server_use"]), STREAMS, SIZES),
    st.tuples(
        st.sampled_from(["client_window", "server_window"]),
        st.integers(-1, 3),
        st.sampled_from([1000, 70000, 200000]),
    ),
    st.tuples(
        st.sampled_from(["client_settings", "server_settings"]), st.sampled_from([3, 4, 5]), SETTING_VALUES
    ),
    st.tuples(st.sampled_from(["client_ping", "server_ping", "pump"])),
    st.tuples(st.sampled_from(["pump"])),
    st.tuples(st.sampled_from(["client_goaway", "server_goaway", "notice"])),
    st.tuples(st.sampled_from(["client_terminate", "server_terminate"]), CODES),
)


def run(client: str, server: str, operations: list[Any], limit: int) -> tuple[Any, ...]:
    options = Options(
        initial_stream_window_size=65535, initial_connection_window_size=65535, max_concurrent_streams=limit
    )
    pair = Pair(client, server, options, options)
    pair.pump()
    outcomes: list[Any] = []
    for operation in operations:
        outcomes.append(_perform(pair, *operation))
    _pump(pair)
    # nghttp2 lets the last acknowledgement go that waits when a connection is over.
    over = any("goaway" in name or name == "notice" or "terminate" in name for name, *_ in operations)
    for codec in (pair.client, pair.server):
        outcomes.append(_state(codec, settings=not over))
    seen = [_by_stream(saw) for saw in (pair.client_saw, pair.server_saw)]
    if over:
        for streams in seen:
            streams[0] = [event for event in streams[0] if event != ("SettingsAcknowledged",)]
    return *seen, outcomes


def _pump(pair: Pair) -> None:
    codecs = (pair.client, pair.server)
    shared = [sum(codec.queued_body_size(number) > 0 for number in range(1, 100, 2)) > 1 for codec in codecs]
    pair.pump()
    for codec, several in zip(codecs, shared, strict=True):
        # Which of the bodies gets the last of the connection's window is the engine's.
        assume(not (several and codec.queued_body_size() and not codec.remote_window_size))


def _perform(pair: Pair, name: str, *arguments: Any) -> Any:
    if name == "pump":
        return _pump(pair)
    who, _, what = name.rpartition("_")
    codec = pair.server if who == "server" or what in ("respond", "inform", "notice") else pair.client
    stream_id = 2 * arguments[0] + 1 if arguments else 0
    calls: dict[str, Callable[[], Any]] = {
        "request": lambda: codec.send_request(REQUEST, end_stream=arguments[0]),
        "respond": lambda: codec.send_response(stream_id, OK, end_stream=arguments[1]),
        "inform": lambda: codec.send_informational_response(stream_id, [(b":status", b"103")]),
        "data": lambda: codec.send_data(stream_id, b"x" * arguments[1], end_stream=arguments[2]),
        "trailers": lambda: codec.send_trailers(stream_id, [(b"grpc-status", b"0")]),
        "reset": lambda: codec.reset_stream(stream_id, arguments[1]),
        "use": lambda: codec.acknowledge_received_data(arguments[1], stream_id),
        "window": lambda: codec.set_local_window_size(arguments[1], stream_id=max(0, stream_id)),
        "settings": lambda: codec.update_settings({arguments[0]: arguments[1]}),
        "ping": codec.ping,
        "goaway": codec.send_goaway,
        "notice": codec.send_shutdown_notice,
        "terminate": lambda: codec.terminate_connection(arguments[0]),
    }
    try:
        result = calls[what]()
    except (CodecError, ValueError) as error:
        return type(error).__name__
    return result, codec.queued_body_size()


def _state(codec: Codec, *, settings: bool) -> Any:
    state: list[Any] = [codec.queued_body_size(), codec.can_send_request, codec.want_read]
    try:
        state += [codec.remote_window_size, codec.remote_settings]
        if settings:
            state.append(codec.local_settings)
    except CodecError as error:
        state.append(type(error).__name__)
    return state


def _by_stream(seen: list[tuple[Any, ...]]) -> dict[int, list[Any]]:
    """Events in order, stream by stream, with the bodies whole: how they are cut and interleaved is the engine's."""
    result: dict[int, list[Any]] = {}
    for name, *values in seen:
        stream_id = (
            values[0] if values and isinstance(values[0], int) and name not in CONNECTION_EVENTS else 0
        )
        events = result.setdefault(stream_id, [])
        if name == "WindowUpdated":
            continue
        if name == "DataReceived":
            body, last = values[1], values[2]
            if events and events[-1][0] == "body" and not events[-1][2]:
                events[-1] = ("body", events[-1][1] + len(body), last)
            else:
                events.append(("body", len(body), last))
            continue
        events.append((name, *values))
    return {stream_id: events for stream_id, events in result.items() if events}


CONNECTION_EVENTS = ("GoAwayReceived", "ConnectionClosed")


@pytest.mark.skipif(len(ENGINES) < 2, reason="ngh2 is not installed")
@settings(max_examples=500)
@given(operations=st.lists(OPERATIONS, max_size=25), limit=st.sampled_from([1, 2, 100]))
def test_the_same_operations_have_the_same_outcome(operations: list[Any], limit: int) -> None:
    expected = run("ngh2", "ngh2", operations, limit)
    for client, server in COMBINATIONS:
        assert run(client, server, operations, limit) == expected, (client, server)
