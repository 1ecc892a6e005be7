"""Answers that the proxy itself gives: a complete response, decided without an upstream."""

from __future__ import annotations

from proxy.model.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """A local reply.

    ``headers`` are ready lines (each ends in CRLF) beside the ones every response has (``content-length``,
    ``content-type: text/plain`` when there is a body, ``date``, ``server``). ``flag`` is Envoy's short response flag
    ("" = none), ``details`` its ``response_code_details`` string. ``grpc_status`` is the status of the same reply to a
    gRPC request; ``None`` derives it from ``status``. With ``grpc_message`` (ready for a field, "" = no message) it is
    that reply, as ``proxy.stream.grpc_reply`` makes it.
    """

    status: int
    body: bytes = b""
    headers: bytes = b""
    flag: str = ""
    details: str = ""
    grpc_status: int | None = None
    grpc_message: bytes | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """A network filter's verdict: close the connection. ``details`` is the connection termination detail."""

    details: str
    flag: str = ""
