"""``proxy.grpc.health``: the messages against protobuf's own codec, the verdict as Envoy's health checker has it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from proxy.grpc.health import MAX_RESPONSE, HealthCall, Verdict, request, serving_status
from proxy.grpc.message import frame
from proxy.http1.head import Head, scan_response

Fields = list[tuple[bytes, bytes]]


def _messages() -> tuple[Any, Any]:
    """``grpc.health.v1`` as its file says it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/health.proto", package="tests.health", syntax="proto3"
    )
    asked = file.message_type.add(name="HealthCheckRequest")
    asked.field.add(name="service", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    answered = file.message_type.add(name="HealthCheckResponse")
    kinds = answered.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        kinds.value.add(name=name, number=number)
    answered.field.add(
        name="status",
        number=1,
        type="TYPE_ENUM",
        label="LABEL_OPTIONAL",
        type_name=".tests.health.HealthCheckResponse.ServingStatus",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return tuple(
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tests.health.{name}"))  # type: ignore[no-untyped-call]
        for name in ("HealthCheckRequest", "HealthCheckResponse")
    )  # type: ignore[return-value]


REQUEST, RESPONSE = _messages()


@given(st.text(max_size=300))
def test_the_request_is_protobuf(service: str) -> None:
    assert request(service) == frame(REQUEST(service=service).SerializeToString())


@pytest.mark.parametrize("status", [0, 1, 2, 3, 7, 300, -1])
def test_the_status_is_read(status: int) -> None:
    assert serving_status(RESPONSE(status=status).SerializeToString()) == status & 0xFFFFFFFF


@given(st.binary(max_size=24))
def test_what_is_read_is_what_protobuf_reads(message: bytes) -> None:
    try:
        found = serving_status(message)
    except ValueError:
        return
    try:
        expected = RESPONSE.FromString(message).status & 0xFFFFFFFF
    except DecodeError:
        # It looks closer, at the text of no field of ours.
        return
    assert found == expected


@pytest.mark.parametrize(
    "message",
    [
        b"\x08",
        b"\x08\x80",
        b"\x00\x01",
        b"\x0a\x05ab",
        b"\x0b",
        b"\x0d\x01",
        b"\x08" + b"\xff" * 10 + b"\x01",
    ],
)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        serving_status(message)
    with pytest.raises(DecodeError):
        RESPONSE.FromString(message)


@pytest.mark.parametrize(
    "more",
    [
        RESPONSE(status=2).SerializeToString(),
        b"\x12\x03abc",
        b"\x1d\x01\x02\x03\x04",
        b"\x21" + b"x" * 8,
        b"\x10\x05",
    ],
)
def test_other_fields_are_skipped_and_the_last_status_counts(more: bytes) -> None:
    message = more + RESPONSE(status=1).SerializeToString()
    assert serving_status(message) == RESPONSE.FromString(message).status == 1


def head(status: int = 200, *fields: bytes) -> Head:
    lines = b"".join(field + b"\r\n" for field in fields)
    found = scan_response(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, lines))
    assert found is not None
    return found


TYPE = b"content-type: application/grpc"
OK = [(b"grpc-status", b"0")]
SERVING = frame(RESPONSE(status=1).SerializeToString())


def answer(*pieces: bytes, trailers: Fields | None = OK) -> Verdict | None:
    """A response with a head that is as it should be."""
    call = HealthCall()
    assert call.head(head(200, TYPE), done=False) is None
    for piece in pieces:
        verdict = call.body(piece, done=False)
        if verdict is not None:
            return verdict
    return call.body(b"", done=True) if trailers is None else call.trailers(trailers)


def test_serving_is_healthy_in_however_many_pieces_it_comes() -> None:
    assert answer(SERVING) == Verdict(True, "serving", True)
    assert answer(*(SERVING[n : n + 1] for n in range(len(SERVING)))) == Verdict(True, "serving", True)
    # Messages without content are passed over.
    assert answer(frame(b"") + SERVING + frame(b"")) == Verdict(True, "serving", True)


@pytest.mark.parametrize(
    ("pieces", "trailers", "ended"),
    [
        ((frame(RESPONSE(status=2).SerializeToString()),), OK, True),
        ((frame(RESPONSE(status=3).SerializeToString()),), OK, True),
        ((frame(b""),), OK, True),
        ((), OK, True),
        ((SERVING,), [(b"grpc-status", b"14")], True),
        ((SERVING,), [(b"grpc-status", b"junk")], True),
        ((SERVING,), [], True),
        ((SERVING,), None, True),
        ((SERVING + SERVING,), OK, False),
        ((b"\x01" + SERVING[1:],), OK, False),
        ((b"\x02" + SERVING[1:],), OK, False),
        ((frame(b"\x08"),), OK, False),
        ((b"\0" + (MAX_RESPONSE + 1).to_bytes(4, "big"),), OK, False),
        ((SERVING[:-1],), OK, True),
    ],
    ids=[
        "not serving", "unknown service", "empty message", "no message", "error", "no number", "no status",
        "no trailers", "two messages", "compressed", "flags", "not protobuf", "too long", "cut off",
    ],
)  # fmt: skip
def test_everything_else_is_not(pieces: tuple[bytes, ...], trailers: Fields | None, ended: bool) -> None:
    verdict = answer(*pieces, trailers=trailers)
    assert verdict is not None and not verdict.healthy and verdict.ended is ended and verdict.why


@pytest.mark.parametrize(
    ("response", "done", "verdict"),
    [
        (head(503), False, Verdict(False, "HTTP status 503", False)),
        (head(404), True, Verdict(False, "HTTP status 404", True)),
        (head(503, b"grpc-status: 12"), True, Verdict(False, "gRPC status 12", True)),
        (head(503, b"grpc-status: 12"), False, Verdict(False, "HTTP status 503", False)),
        (head(200, b"grpc-status: 12"), True, Verdict(False, "gRPC status 12", True)),
        # Even a good status is none without a message.
        (head(200, b"grpc-status: 0"), True, Verdict(False, "serving status: nothing", True)),
        (head(200, TYPE), True, Verdict(False, "not a gRPC response", True)),
        (head(200, b"content-type: text/html"), False, Verdict(False, "not a gRPC response", False)),
        (
            head(200, b"content-type: application/grpc-web"),
            False,
            Verdict(False, "not a gRPC response", False),
        ),
        (head(200, TYPE + b"+proto"), False, None),
    ],
)
def test_heads(response: Head, done: bool, verdict: Verdict | None) -> None:
    assert HealthCall().head(response, done=done) == verdict
