"""``proxy.stream.grpc_reply``: the proxy's own answers as gRPC has them."""

from __future__ import annotations

import pytest

from proxy.model.reply import Reply
from proxy.stream.grpc_reply import as_grpc, end_head
from proxy.stream.local_reply import (
    MAX_DURATION_AFTER_REQUEST_END,
    MAX_DURATION_BEFORE_REQUEST_END,
    RESPONSE_TIMEOUT,
    reset_before_response,
)


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (Reply(403, b"RBAC: access denied"), 7, b"RBAC: access denied"),
        (Reply(404), 12, b""),
        (Reply(204), 2, b""),
        (Reply(503, "ü\n%".encode()), 14, b"%C3%BC%0A%25"),
        (Reply(429, b"x", grpc_status=8), 8, b"x"),
        (Reply(429, b"x"), 14, b"x"),
        (RESPONSE_TIMEOUT, 14, b"upstream request timeout"),
        (MAX_DURATION_BEFORE_REQUEST_END, 4, b"downstream duration timeout"),
        (MAX_DURATION_AFTER_REQUEST_END, 4, b"downstream duration timeout"),
        (reset_before_response("protocol_error"), 14, reset_before_response("protocol_error").body),
        (Reply(500, b'{"a":1}\n', headers=b"content-type: application/json\r\n"), 2, b'{"a":1}'),
        (Reply(500, b'{"a":1}\n', headers=b"content-type: application/json; x\r\n"), 2, b'{"a":1}%0A'),
        (Reply(500, b"a\n", headers=b"content-type: text/plain\r\n"), 2, b"a%0A"),
    ],
)
def test_status_and_message(reply: Reply, status: int, message: bytes) -> None:
    made = as_grpc(reply, is_head=False)
    assert (made.status, made.body, made.grpc_status, made.grpc_message) == (200, b"", status, message)
    assert (made.flag, made.details) == (reply.flag, reply.details)
    assert as_grpc(reply, is_head=True).grpc_message == b""


def test_a_configured_status_stays_and_type_length_and_message_do_not() -> None:
    reply = as_grpc(Reply(403, b"no"), is_head=False)
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\ncontent-length: 2\r\nx: y\r\nGRPC-Message: mine\r\n"
    )
    ours = b"HTTP/1.1 200 OK\r\nx: y\r\n"
    kind = b"content-type: application/grpc\r\n"
    assert end_head(head, reply) == ours + kind + b"grpc-status: 7\r\ngrpc-message: no\r\n"
    own = b"Grpc-Status: 9\r\n"
    assert end_head(head + own, reply) == ours + own + kind + b"grpc-message: no\r\n"


def test_a_configured_message_stays_where_there_is_no_text() -> None:
    reply = as_grpc(Reply(403), is_head=False)
    head = b"HTTP/1.1 200 OK\r\ngrpc-message: mine\r\n"
    assert end_head(head, reply) == head + b"content-type: application/grpc\r\ngrpc-status: 7\r\n"


def test_what_is_overloaded_is_unavailable_and_says_so() -> None:
    reply = as_grpc(reset_before_response("overflow"), is_head=False)
    assert reply.grpc_status == 14 and reply.headers == b"x-envoy-overloaded: true\r\n"
