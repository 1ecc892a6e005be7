"""gRPC status codes: their names, how they map to HTTP's and back, and how a response's is found.

The mapping from HTTP is gRPC's own (``doc/http-grpc-status-mapping.md``), the one to HTTP that of Google's API design
guide; Envoy has them as ``Grpc::Utility::httpToGrpcStatus`` and ``grpcToHttpStatus``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.grpc.numbers import unsigned
from proxy.model.exchange import Head

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16
MAXIMUM_KNOWN: Final = 16
INVALID: Final = -1
"""What a ``grpc-status`` stands for that is no number."""

SNAKE: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""The codes' names, as gRPC writes them."""
CAMEL: Final = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
    "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
    "Internal", "Unavailable", "DataLoss", "Unauthenticated",
)  # fmt: skip
"""The codes' names, as Envoy's logs write them."""

_FROM_HTTP: Final = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
_TO_HTTP: Final = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)
_STATUS: Final = b"grpc-status"


def from_http(status: int) -> int:
    """The gRPC status of an answer that has only an HTTP status."""
    return _FROM_HTTP.get(status, UNKNOWN)


def to_http(status: int) -> int:
    """The HTTP status that says about the same as a gRPC status; 500 for one that gRPC does not define."""
    return _TO_HTTP[status] if 0 <= status <= MAXIMUM_KNOWN else 500


def parse(value: bytes | None, *, user_defined: bool = False) -> int | None:
    """A ``grpc-status`` (Envoy's ``Grpc::Common::getGrpcStatus``): ``None`` without one, ``INVALID`` for no number.

    One above ``MAXIMUM_KNOWN`` is ``INVALID`` as well, unless ``user_defined``.
    """
    if value == b"0":
        return OK
    if not value:
        return None
    number = unsigned(value)
    if number is None or (number > MAXIMUM_KNOWN and not user_defined):
        return INVALID
    return number


def of_head(head: Head, *, user_defined: bool = False) -> int | None:
    """The ``grpc-status`` of a head, which a response has that consists of nothing else ("trailers-only")."""
    return parse(head.get(_STATUS), user_defined=user_defined)


def of_trailers(trailers: Sequence[tuple[bytes, bytes]] | None, *, user_defined: bool = False) -> int | None:
    """The ``grpc-status`` of trailers."""
    for name, value in trailers or ():
        if name == _STATUS:
            return parse(value, user_defined=user_defined)
    return None


def of_response(
    trailers: Sequence[tuple[bytes, bytes]] | None,
    head: Head | None,
    http_status: int,
    *,
    user_defined: bool = False,
) -> int | None:
    """The status of a whole response: that of its trailers, else its head, else what its HTTP status stands for.

    ``http_status`` 0: there was no response, and so there is no status either.
    """
    found = of_trailers(trailers, user_defined=user_defined)
    if found is None and head is not None:
        found = of_head(head, user_defined=user_defined)
    if found is None and http_status:
        found = from_http(http_status)
    return found
