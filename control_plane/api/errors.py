"""What the API answers when it refuses: Kubernetes' ``Status``, with every problem as a cause.

Source: Kubernetes API conventions, "Response Status Kind". It must not know HTTP servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.api.kinds import Problem

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    408: "Timeout",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """A refusal. ``code`` is the HTTP status, ``causes`` all that is wrong, in the order of the document."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        causes: Sequence[Problem] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or REASONS.get(code, "Unknown")
        self.causes = tuple(causes)
        self.details = dict(details or {})

    def body(self) -> dict[str, Any]:
        return status_body(self.code, str(self), reason=self.reason, causes=self.causes, details=self.details)


def status_body(
    code: int,
    message: str,
    *,
    reason: str | None = None,
    causes: Sequence[Problem] = (),
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A ``Status`` document. Codes below 400 make a ``Success``."""
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure" if code >= 400 else "Success",
        "message": message,
        "code": code,
    }
    if code >= 400:
        body["reason"] = reason or REASONS.get(code, "Unknown")
    found = dict(details or {})
    if causes:
        found["causes"] = [
            {"reason": str(cause.reason), "message": cause.message, "field": cause.field} for cause in causes
        ]
    if found:
        body["details"] = found
    return body


def invalid(what: str, causes: Sequence[Problem], **details: str) -> ApiError:
    """422: ``what`` breaks rules. The message holds all causes too, for clients that show only that."""
    text = "; ".join(str(cause) for cause in causes)
    return ApiError(422, f"{what} is invalid: {text}", causes=causes, details=details)
