"""The only map from what went wrong to what the client is told: status, body, response flag, details (all Envoy's).

Replies that configuration decides (direct responses, redirects, RBAC, no route, no cluster) come ready-made from the
runtime; everything that happens on the way of a request is named here.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from proxy.grpc.status import DEADLINE_EXCEEDED
from proxy.http1.errors import ProtocolError
from proxy.model.reply import Reply

NO_HEALTHY_UPSTREAM: Final = Reply(503, b"no healthy upstream", flag="UH", details="no_healthy_upstream")
RESPONSE_TIMEOUT: Final = Reply(504, b"upstream request timeout", flag="UT", details="response_timeout")
PER_TRY_TIMEOUT: Final = Reply(
    504, b"upstream request timeout", flag="UT", details="upstream_per_try_timeout"
)
IDLE_BEFORE_REQUEST_END: Final = Reply(408, b"stream timeout", flag="SI", details="stream_idle_timeout")
IDLE_AFTER_REQUEST_END: Final = Reply(504, b"stream timeout", flag="SI", details="stream_idle_timeout")
MAX_DURATION_BEFORE_REQUEST_END: Final = Reply(
    408, b"downstream duration timeout", details="max_duration_timeout", grpc_status=DEADLINE_EXCEEDED
)
MAX_DURATION_AFTER_REQUEST_END: Final = Reply(
    504, b"downstream duration timeout", details="max_duration_timeout", grpc_status=DEADLINE_EXCEEDED
)
REQUEST_TIMEOUT: Final = Reply(408, b"request timeout", details="request_overall_timeout")
REQUEST_HEADER_TIMEOUT: Final = Reply(408, b"request header timeout", details="request_header_timeout")
OVERLOADED: Final = Reply(503, b"envoy overloaded", details="overload")
LOW_VERSION: Final = Reply(426, b"Upgrade Required", flag="DPE", details="low_version")
MISSING_HOST: Final = Reply(400, details="missing_host_header")
QUERY_WITHOUT_TYPE: Final = Reply(400, details="query_missing_content_type")
NOT_A_PATH: Final = Reply(404, details="absolute_path_rejected")
UPGRADE_REFUSED: Final = Reply(403, details="upgrade_failed")

_RESET_FLAGS: Final = {
    "remote_connection_failure": "UF",
    "local_connection_failure": "UF",
    "connection_timeout": "UF",
    "connection_termination": "UC",
    "protocol_error": "UPE",
    "overflow": "UO",
}


def reset_flag(reason: str) -> str:
    """The response flag of an upstream reset. ``reason`` is Envoy's, with underscores."""
    return _RESET_FLAGS.get(reason, "UR")


def reset_before_response(reason: str, message: str = "", *, retried: bool = False) -> Reply:
    """The upstream was lost before its response. ``message``: what the transport said, if it was the transport."""
    details = f"{reason}|{_one_word(message)}" if message else reason
    return Reply(
        502 if reason == "protocol_error" else 503,
        b"upstream connect error or disconnect/reset before headers. "
        + (b"retried and the latest reset reason: " if retried else b"reset reason: ")
        + reason.replace("_", " ").encode(),
        headers=b"x-envoy-overloaded: true\r\n" if reason == "overflow" else b"",
        flag=reset_flag(reason),
        details=f"upstream_reset_before_response_started{{{details}}}",
    )


def reset_after_response(reason: str, message: str = "") -> str:
    """The details for an upstream that was lost in the middle of its response, which can only be cut off."""
    details = f"{reason}|{_one_word(message)}" if message else reason
    return f"upstream_reset_after_response_started{{{details}}}"


def malformed(error: ProtocolError) -> Reply:
    """The client's bytes are no request."""
    return Reply(error.status, phrase(error.status), flag="DPE", details=error.details)


def phrase(status: int) -> bytes:
    """The reason phrase of a status, "" for one that has none."""
    return _PHRASES.get(status, b"")


def _one_word(message: str) -> str:
    """Details hold no blanks, so that a log line splits well."""
    return message.replace(" ", "_")


_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Payload Too Large",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Entity",
}
