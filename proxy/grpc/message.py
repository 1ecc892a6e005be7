"""The parts of a gRPC message: its content type, its length prefix, the text of an error.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from typing import Final

from proxy.model.exchange import Head

CONTENT_TYPE: Final = b"application/grpc"
PREFIX_LENGTH: Final = 5
_CONTENT_TYPE_FIELD: Final = b"content-type"
_ESCAPED: Final = tuple(
    b"%c" % byte if 0x20 <= byte < 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in range(256)
)


def is_grpc_request(head: Head) -> bool:
    """Whether a request is gRPC (Envoy's ``Grpc::Common::isGrpcRequestHeaders``).

    Its content type is ``application/grpc`` or begins with ``application/grpc+``, in these letters; ``grpc-web`` is
    something else. A CONNECT without a path is none.
    """
    value = head.get(_CONTENT_TYPE_FIELD)
    return value is not None and has_grpc_type(value) and bool(head.target) and head.method != b"CONNECT"


def has_grpc_type(content_type: bytes) -> bool:
    """Envoy's ``Grpc::Common::hasGrpcContentType``."""
    return content_type.startswith(CONTENT_TYPE) and content_type[16:17] in (b"", b"+")


def is_grpc_response(head: Head, *, done: bool) -> bool:
    """Whether a response is gRPC (Envoy's ``isGrpcResponseHeaders``). ``done``: it ends with its head."""
    if done:
        return head.get(b"grpc-status") is not None
    return head.status == 200 and has_grpc_type(head.get(_CONTENT_TYPE_FIELD) or b"")


def percent_encode(text: bytes) -> bytes:
    """The value of ``grpc-message`` for a text (Envoy's ``PercentEncoding::encode``), which escapes ``~`` as well."""
    return b"".join([_ESCAPED[byte] for byte in text])


def frame(message: bytes) -> bytes:
    """A message that is not compressed, with its length prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message
