"""The proxy's own answers to callers of gRPC, who look for the status behind HTTP's: "trailers-only" responses.

Which answer it is has been decided, and rewritten as configured, before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from proxy.grpc.message import CONTENT_TYPE, percent_encode
from proxy.grpc.status import from_http
from proxy.http1.splice import Strip
from proxy.model.reply import Reply

_OWN: Final = Strip((b"content-type", b"content-length"))
_MESSAGE: Final = Strip((b"grpc-message",))
_JSON: Final = b"\r\ncontent-type: application/json\r\n"


def as_grpc(reply: Reply, *, is_head: bool) -> Reply:
    """The same answer in gRPC's terms (Envoy's ``Http::Utility::prepareLocalReply``): its body is the message.

    HEAD has no message. The blank line that ends a JSON format is none of it.
    """
    text = b"" if is_head else reply.body
    if text.endswith(b"\n") and _JSON in b"\r\n" + reply.headers:
        text = text[:-1]
    status = from_http(reply.status) if reply.grpc_status is None else reply.grpc_status
    return replace(reply, status=200, body=b"", grpc_status=status, grpc_message=percent_encode(text))


def end_head(head: bytes, reply: Reply) -> bytes:
    """A head (without its empty line) with the fields of ``as_grpc``, which nothing that was configured replaces but
    a ``grpc-status``."""
    head = _OWN.cut(head) + b"content-type: " + CONTENT_TYPE + b"\r\n"
    if b"\r\ngrpc-status:" not in head.lower():
        head += b"grpc-status: %d\r\n" % (reply.grpc_status or 0)
    if reply.grpc_message:
        head = _MESSAGE.cut(head) + b"grpc-message: " + reply.grpc_message + b"\r\n"
    return head
