"""What is wrong with bytes that claim to be HTTP/1.1."""

from __future__ import annotations


class ProtocolError(ValueError):
    """A message breaks RFC 9112 or a limit; its connection cannot be used any more.

    ``status`` is the answer when the message was a request, ``details`` Envoy's ``response_code_details`` for it, and
    the text says in words what is wrong.
    """

    def __init__(self, message: str, *, details: str = "http1.codec_error", status: int = 400) -> None:
        super().__init__(message)
        self.details = details
        self.status = status
