"""The codec contract, kept by each engine: limits, flow control, ends, and the choice of the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from proxy.http2 import events
from proxy.http2.codec import (
    ENGINES,
    Codec,
    CodecError,
    ConnectionProtocolError,
    DenialOfServiceError,
    ErrorCode,
    Options,
    Role,
    Setting,
)
from tests.unit.http2.pairs import OK, PREFACE, REQUEST, Raw, connected, frame, frames

pytestmark = pytest.mark.parametrize("engine", ENGINES)
SETTINGS = frame(4, 0, 0)


def settings_frame(data: bytes) -> dict[int, int]:
    kind, flags, _, payload = frames(data)[0]
    assert (kind, flags) == (4, 0)
    return {
        int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
        for at in range(0, len(payload), 6)
    }


def test_a_server_says_what_envoy_says(engine: str) -> None:
    codec = ENGINES[engine].make(Role.SERVER, Options(allow_connect=True))
    data = codec.data_to_send()
    assert settings_frame(data) == {
        Setting.HEADER_TABLE_SIZE: 4096,
        Setting.ENABLE_CONNECT_PROTOCOL: 1,
        Setting.MAX_CONCURRENT_STREAMS: 1024,
        Setting.INITIAL_WINDOW_SIZE: 16 << 20,
    }
    assert frames(data)[1:] == [(8, 0, 0, ((24 << 20) - 65535).to_bytes(4, "big"))]


def test_a_client_wants_no_push(engine: str) -> None:
    codec = ENGINES[engine].make(Role.CLIENT, Options(hpack_table_size=0, advertised_header_list_size=9))
    data = codec.data_to_send()
    assert data.startswith(PREFACE)
    said = settings_frame(data[len(PREFACE) :])
    assert (
        said[Setting.ENABLE_PUSH],
        said[Setting.HEADER_TABLE_SIZE],
        said[Setting.MAX_HEADER_LIST_SIZE],
    ) == (0, 0, 9)


def test_an_exchange(engine: str) -> None:
    pair = connected(engine, engine)
    assert pair.client.send_request(REQUEST) == 1
    pair.client.send_data(1, b"ab")
    pair.client.send_data(1, b"c")
    pair.client.send_trailers(1, [(b"x", b"y")])
    assert pair.client.queued_body_size() == pair.client.queued_body_size(1) == 3
    pair.pump()
    assert pair.client.queued_body_size() == 0
    body = b"".join(data for name, *rest in pair.server_saw if name == "DataReceived" for data in rest[1:2])
    assert body == b"abc"
    assert pair.server_saw[0] == ("RequestReceived", 1, REQUEST, False)
    assert pair.server_saw[-1] == ("TrailersReceived", 1, ((b"x", b"y"),))
    pair.server.send_informational_response(1, [(b":status", b"103")])
    pair.server.send_response(1, OK, end_stream=True)
    pair.pump()
    assert pair.client_saw == [
        ("InformationalResponseReceived", 1, ((b":status", b"103"),)),
        ("ResponseReceived", 1, OK, True),
        ("StreamClosed", 1, 0, None),
    ]
    assert pair.server_saw[-1] == ("StreamClosed", 1, 0, None)


def test_a_table_that_shrinks_and_grows_in_one_frame(engine: str) -> None:
    raw = Raw(engine, Role.SERVER)
    raw.receive(frame(4, 0, 0, b"\0\1\0\0\0\0" + b"\0\1\0\0\x10\0"))
    raw.headers(1, REQUEST, end_stream=True)
    raw.codec.send_response(1, OK, end_stream=True)
    raw.flush()
    block = next(payload for kind, _, _, payload in frames(raw.sent) if kind == 1)
    # RFC 7541 section 4.2: the smallest size, then the last one.
    assert block.startswith(b"\x20\x3f\xe1\x1f")


def test_windows_hold_a_body_until_it_is_acknowledged(engine: str) -> None:
    options = Options(initial_stream_window_size=65535, initial_connection_window_size=65535)
    pair = connected(engine, engine, client_options=options, server_options=options)
    pair.client.send_request(REQUEST)
    pair.client.send_data(1, b"x" * 100_000, end_stream=True)
    pair.pump()
    assert pair.client.queued_body_size(1) == 100_000 - 65535
    assert pair.client.stream_remote_window_size(1) == pair.client.remote_window_size == 0
    # Less than half is not worth a frame.
    pair.server.acknowledge_received_data(30_000, 1)
    pair.pump()
    assert pair.client.queued_body_size(1) == 100_000 - 65535
    pair.server.acknowledge_received_data(5_000, 1)
    pair.pump()
    assert pair.client.queued_body_size(1) == 0
    with pytest.raises(ValueError):
        pair.server.acknowledge_received_data(100_001, 1)


def test_what_came_for_a_stream_that_is_gone_can_be_given_back(engine: str) -> None:
    options = Options(initial_stream_window_size=65535, initial_connection_window_size=65535)
    pair = connected(engine, engine, client_options=options, server_options=options)
    pair.client.send_request(REQUEST)
    pair.client.send_data(1, b"x" * 60_000)
    pair.pump()
    pair.client.reset_stream(1)
    pair.pump()
    assert pair.server_saw[-2:] == [("StreamReset", 1, 8), ("StreamClosed", 1, 8, None)]
    assert pair.client.remote_window_size == 5535
    pair.server.acknowledge_received_data(60_000, 1)
    pair.pump()
    assert pair.client.remote_window_size == 65535


def test_padding_is_given_back_by_the_codec(engine: str) -> None:
    options = Options(initial_stream_window_size=65535, initial_connection_window_size=65535)
    raw = Raw(engine, Role.SERVER, options)
    raw.headers(1, REQUEST)
    for _ in range(200):
        raw.receive(frame(0, 8, 1, b"\xff" + b"x" + bytes(255)))
        raw.codec.acknowledge_received_data(1, 1)
        raw.flush()
    given = [payload for kind, _, stream, payload in frames(raw.sent) if kind == 8 and not stream]
    assert given and sum(int.from_bytes(increment, "big") for increment in given) > 200 * 257 - 65535 // 2


def test_requests_wait_for_the_peers_limit(engine: str) -> None:
    pair = connected(engine, engine, server_options=Options(max_concurrent_streams=1))
    assert [pair.client.send_request(REQUEST, end_stream=True) for _ in range(2)] == [1, 3]
    pair.pump()
    assert [event[1] for event in pair.server_saw] == [1]
    pair.server.send_response(1, OK, end_stream=True)
    pair.pump()
    assert pair.server_saw[-1] == ("RequestReceived", 3, REQUEST, True)


def test_streams_above_the_limit(engine: str) -> None:
    raw = Raw(engine, Role.SERVER, Options(max_concurrent_streams=1))
    raw.headers(1, REQUEST)
    raw.headers(3, REQUEST)
    assert [event[0] for event in raw.saw] == ["RequestReceived", "ConnectionClosed"]
    assert frames(raw.sent)[-1][:3] == (7, 0, 0)


def test_streams_above_a_limit_that_the_peer_has_not_seen_yet(engine: str) -> None:
    codec = ENGINES[engine].make(Role.SERVER, Options(max_concurrent_streams=1))
    raw = Raw(engine, Role.SERVER)
    block = [raw.encoder.encode(REQUEST) for _ in range(2)]
    codec.data_to_send()
    trailers = raw.encoder.encode([(b"a", b"b")])
    late = frame(1, 4, 3, block[1]) + frame(0, 0, 3, b"x") + frame(1, 5, 3, trailers)
    codec.receive_data(PREFACE + SETTINGS + frame(1, 5, 1, block[0]) + late)
    assert [sent for sent in frames(codec.data_to_send()) if sent[0] == 3] == [(3, 0, 3, b"\0\0\0\7")]
    assert [type(event).__name__ for event in codec.events()] == ["SettingsReceived", "RequestReceived"]


@pytest.mark.parametrize("options", [Options(max_header_list_size=1000), Options(max_header_count=10)])
def test_a_header_list_above_the_hard_limit_is_the_end(engine: str, options: Options) -> None:
    raw = Raw(engine, Role.SERVER, options)
    raw.headers(1, [*REQUEST, *[(b"x", b"y")] * 6])
    assert raw.saw[0][0] == "RequestReceived"
    with pytest.raises(DenialOfServiceError):
        raw.headers(3, [*REQUEST, *[(b"x", b"y")] * 30])
    with pytest.raises(CodecError):
        raw.codec.data_to_send()
    with pytest.raises(CodecError):
        raw.codec.receive_data(b"")


def test_what_came_before_a_fatal_breach_is_seen(engine: str) -> None:
    raw = Raw(engine, Role.SERVER, Options(max_header_count=10))
    good, bad = (raw.encoder.encode(headers) for headers in (REQUEST, [*REQUEST, *[(b"x", b"y")] * 30]))
    with pytest.raises(DenialOfServiceError):
        raw.codec.receive_data(frame(1, 5, 1, good) + frame(1, 5, 3, bad))
    assert [type(event).__name__ for event in raw.codec.events()] == ["RequestReceived"]


def test_a_preface_that_is_none(engine: str) -> None:
    codec = ENGINES[engine].make(Role.SERVER, Options())
    codec.receive_data(PREFACE[:10])
    with pytest.raises(ConnectionProtocolError):
        codec.receive_data(b"GET / HTTP/1.1")


BREACHES: dict[str, tuple[bytes, int]] = {
    "too long a frame": ((16385).to_bytes(3, "big") + bytes(6), ErrorCode.FRAME_SIZE_ERROR),
    "DATA on stream 0": (frame(0, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(0, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(3, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE on an idle stream": (frame(8, 0, 1, b"\0\0\0\1"), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 0": (frame(8, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE too large": (frame(8, 0, 0, b"\x7f\xff\xff\xff"), ErrorCode.FLOW_CONTROL_ERROR),
    "PUSH_PROMISE": (frame(5, 4, 1, b"\0\0\0\2\x82"), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION alone": (frame(9, 4, 1, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    "PING in a header block": (frame(1, 0, 1, b"\x82") + frame(6, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "HPACK": (frame(1, 4, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "an even stream": (frame(1, 4, 2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    "PING too short": (frame(6, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "PING on a stream": (frame(6, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS on a stream": (frame(4, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS cut short": (frame(4, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS out of range": (frame(4, 0, 0, b"\0\4\xff\xff\xff\xff"), ErrorCode.FLOW_CONTROL_ERROR),
    "33 SETTINGS": (frame(4, 0, 0, b"\0\4\0\0\x10\0" * 33), ErrorCode.ENHANCE_YOUR_CALM),
    "GOAWAY on a stream": (frame(7, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY too short": (frame(7, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY with a stream of the peer's": (frame(7, 0, 0, b"\0\0\0\1" + bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "padding longer than the frame": (frame(1, 4 | 8, 1, b"\xff\x82"), ErrorCode.PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_ends_the_connection_with_goaway(engine: str, name: str) -> None:
    data, code = BREACHES[name]
    raw = Raw(engine, Role.SERVER)
    raw.receive(data + frame(6, 0, 0, bytes(8)))
    kind, _, stream_id, payload = frames(raw.sent)[-1]
    assert (kind, stream_id) == (7, 0)
    assert raw.saw[-1][0] == "ConnectionClosed"
    assert int.from_bytes(payload[4:8], "big") == raw.saw[-1][1]
    assert raw.saw[-1][1] == code
    with pytest.raises(CodecError):
        raw.codec.receive_data(b"")
    assert raw.codec.data_to_send() == b""


ON_A_STREAM: dict[str, tuple[bytes, int]] = {
    "beyond the window": (frame(0, 0, 1, b"x" * 16384) * 4 + frame(0, 0, 1, b"x"), ErrorCode.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE too large": (frame(8, 0, 1, b"\x7f\xff\xff\xff"), ErrorCode.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE of 0": (frame(8, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "DATA after the end": (frame(0, 1, 1) + frame(0, 0, 1, b"x"), ErrorCode.STREAM_CLOSED),
    "HEADERS after the end": (frame(0, 1, 1) + frame(1, 5, 1, b"\x82"), ErrorCode.STREAM_CLOSED),
    "RST_STREAM too short": (frame(3, 0, 1, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "padding longer than the frame": (frame(0, 8, 1, b"\2x"), ErrorCode.PROTOCOL_ERROR),
    "one SETTINGS ACK too many": (frame(4, 1, 0), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS ACK with payload": (frame(4, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_A_STREAM)
def test_a_breach_on_an_open_stream(engine: str, name: str) -> None:
    data, code = ON_A_STREAM[name]
    options = Options(initial_stream_window_size=65535, initial_connection_window_size=1 << 20)
    raw = Raw(engine, Role.SERVER, options)
    raw.headers(1, REQUEST)
    raw.receive(data)
    assert raw.saw[-1][:2] == ("ConnectionClosed", code)
    assert frames(raw.sent)[-1][3][:8] == b"\0\0\0\1" + code.to_bytes(4, "big")


def test_responses_that_nobody_asked_for(engine: str) -> None:
    for stream_id in (1, 2):
        raw = Raw(engine, Role.CLIENT)
        raw.headers(stream_id, OK)
        assert raw.saw[-1][:2] == ("ConnectionClosed", ErrorCode.PROTOCOL_ERROR)


@pytest.mark.parametrize("late", [OK, ((b":status", b"103"),), ((b"a", b"b"),)])
def test_what_follows_a_final_response_and_is_no_trailer(engine: str, late: Any) -> None:
    raw = Raw(engine, Role.CLIENT)
    raw.codec.send_request(REQUEST)
    raw.flush()
    raw.sent = b""
    raw.headers(1, OK)
    raw.codec.receive_data(frame(1, 4, 1, raw.encoder.encode(late)) + frame(0, 1, 1, b"x"))
    raw.flush()
    assert raw.saw == [("ResponseReceived", 1, OK, False), ("StreamClosed", 1, 1, None)]
    assert frames(raw.sent) == [(3, 0, 1, b"\0\0\0\1")]
    raw.receive(frame(0, 0, 1, b"x"))
    assert raw.saw[2:] == []


def test_what_comes_for_a_refused_stream_is_given_back(engine: str) -> None:
    options = Options(initial_stream_window_size=65535, initial_connection_window_size=65535)
    raw = Raw(engine, Role.SERVER, options)
    for stream_id in range(1, 41, 2):
        bad = raw.encoder.encode([*REQUEST, (b"connection", b"x")])
        raw.receive(frame(1, 4, stream_id, bad) + frame(0, 0, stream_id, b"x" * 16384))
    given = [payload for kind, _, stream, payload in frames(raw.sent) if kind == 8 and not stream]
    assert sum(int.from_bytes(increment, "big") for increment in given) > 20 * 16384 - 65535
    assert [event[0] for event in raw.saw] == ["StreamClosed"] * 20


def test_the_first_frame_is_settings(engine: str) -> None:
    codec = ENGINES[engine].make(Role.SERVER, Options())
    codec.data_to_send()
    codec.receive_data(PREFACE + frame(6, 0, 0, bytes(8)))
    assert frames(codec.data_to_send())[-1][0] == 7


def test_late_frames_for_a_stream_that_we_reset_are_dropped(engine: str) -> None:
    raw = Raw(engine, Role.SERVER)
    raw.headers(1, REQUEST)
    raw.codec.reset_stream(1, ErrorCode.REFUSED_STREAM)
    raw.flush()
    raw.saw.clear()
    raw.sent = b""
    raw.receive(frame(0, 0, 1, b"x" * 100) + frame(8, 0, 1, b"\0\0\0\1"))
    raw.headers(1, [(b"a", b"b")], end_stream=True)
    assert (raw.saw, raw.sent) == ([], b"")
    # HPACK's tables went on.
    raw.headers(3, [*REQUEST, (b"a", b"b")])
    assert raw.saw == [("RequestReceived", 3, (*REQUEST, (b"a", b"b")), False)]


def test_goaway_lets_streams_finish(engine: str) -> None:
    pair = connected(engine, engine)
    pair.client.send_request(REQUEST, end_stream=True)
    pair.pump()
    pair.server.send_shutdown_notice()
    pair.pump()
    assert pair.client_saw == [("GoAwayReceived", (1 << 31) - 1, 0, b"")]
    assert not pair.client.can_send_request
    pair.server.send_goaway(debug_data=b"drain")
    pair.pump()
    assert pair.client_saw[1:] == [("GoAwayReceived", 1, 0, b"drain")]
    assert pair.server.want_read and pair.client.want_read
    pair.server.send_response(1, OK, end_stream=True)
    pair.pump()
    assert pair.client_saw[-1] == pair.server_saw[-1] == ("ConnectionClosed", 0, b"drain")


def test_requests_after_goaway_are_not_taken(engine: str) -> None:
    raw = Raw(engine, Role.SERVER)
    raw.headers(1, REQUEST)
    raw.codec.send_goaway()
    raw.flush()
    raw.headers(3, REQUEST, end_stream=True)
    raw.receive(frame(6, 0, 0, bytes(8)))
    assert [event[0] for event in raw.saw] == ["RequestReceived", "PingReceived"]
    assert [kind for kind, *_ in frames(raw.sent)] == [7, 6]


def test_streams_that_goaway_did_not_take_are_refused(engine: str) -> None:
    raw = Raw(engine, Role.CLIENT)
    for _ in range(2):
        raw.codec.send_request(REQUEST)
    raw.flush()
    raw.receive(frame(7, 0, 0, b"\0\0\0\1\0\0\0\0"))
    assert raw.saw == [("GoAwayReceived", 1, 0, b""), ("StreamClosed", 3, 7, None)]


def test_operations_on_streams_that_are_not_there(engine: str) -> None:
    pair = connected(engine, engine)
    operations: list[Any] = [
        lambda codec: codec.send_response(1, OK),
        lambda codec: codec.send_data(1, b""),
        lambda codec: codec.send_trailers(1, []),
        lambda codec: codec.set_local_window_size(70000, stream_id=1),
        lambda codec: codec.stream_remote_window_size(1),
    ]
    for operation in operations:
        with pytest.raises(CodecError):
            operation(pair.server)
    pair.server.reset_stream(1)
    assert pair.server.data_to_send() == b""


def test_never_indexed_fields_stay_so(engine: str) -> None:
    secret = ENGINES[engine].never_indexed(b"authorization", b"secret-of-some-length")
    pair = connected(engine, engine)
    for _ in range(2):
        pair.client.send_request([*REQUEST, secret], end_stream=True)
        data = pair.client.data_to_send()
        pair.server.receive_data(data)
        # Indexed, it would be one byte the second time.
        assert len(data) > 20
        received = [event for event in pair.server.events() if type(event).__name__ == "RequestReceived"]
        assert type(received[0].headers[-1]).__name__ == type(secret).__name__
        assert received[0].headers[-1] == secret


def test_the_dispatch_table_is_by_the_engines_own_classes(engine: str) -> None:
    handlers = {
        getattr(events, name): name
        for name in dir(events)
        if isinstance(getattr(events, name), type) and issubclass(getattr(events, name), events.Event)
    }
    del handlers[events.Event]
    table = ENGINES[engine].dispatch_table(handlers)
    pair = connected(engine, engine)
    pair.client.send_request(REQUEST)
    pair.server.receive_data(pair.client.data_to_send())
    assert [table[type(event)] for event in pair.server.events()] == ["RequestReceived"]
    del handlers[events.PingReceived]
    with pytest.raises(ValueError, match="PingReceived"):
        ENGINES[engine].dispatch_table(handlers)


def test_the_environment_chooses_the_engine(engine: str) -> None:
    program = "from proxy.http2 import codec; print(codec.ENGINE.name, codec.events.__name__)"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TULLE_HTTP2": engine},
        capture_output=True,
        text=True,
        check=True,
    )
    name, module = run.stdout.split()
    assert name == engine
    assert module == {"ngh2": "ngh2", "h2": "proxy.http2.events"}[engine]


def test_without_ngh2_there_is_h2(engine: str) -> None:
    program = (
        "import sys; sys.modules['ngh2'] = None\n"
        "from proxy.http2 import codec, errors\n"
        "assert list(codec.ENGINES) == ['h2'] and codec.ENGINE.name == 'h2'\n"
        "server = codec.make(codec.Role.SERVER, codec.Options())\n"
        "try:\n    server.receive_data(b'nonsense' * 4)\n"
        "except errors.ConnectionProtocolError as error:\n    print(type(error).__module__)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TULLE_HTTP2"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "proxy.http2.errors"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "TULLE_HTTP2": "ngh2"},
        capture_output=True,
        text=True,
    )
    assert run.returncode and "TULLE_HTTP2=ngh2" in run.stderr


def test_codecs_keep_the_contract_by_name(engine: str) -> None:
    codec = ENGINES[engine].make(Role.SERVER, Options())
    contract = [name for name in vars(Codec) if not name.startswith("_")]
    assert len(contract) > 20
    assert [name for name in contract if not hasattr(codec, name)] == []
