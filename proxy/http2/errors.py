"""What a codec raises, as ``ngh2`` names it.

Both engines raise one family: ngh2's own classes where it is installed, classes of the same names where it is not.
"""

from __future__ import annotations

try:
    from ngh2 import (
        ConnectionClosingError,
        ConnectionProtocolError,
        ConnectionStateError,
        DenialOfServiceError,
        InternalError,
        NoAvailableStreamIDError,
        ProtocolError,
        StreamProtocolError,
        StreamUnavailableError,
    )
    from ngh2 import NGH2Error as CodecError
except ImportError:

    class CodecError(Exception):  # type: ignore[no-redef]
        """Base of everything that a codec raises for what the peer or the protocol did."""

    class ConnectionStateError(CodecError):  # type: ignore[no-redef]
        """The connection is over."""

    class ConnectionClosingError(CodecError):  # type: ignore[no-redef]
        """The connection takes no new stream."""

    class NoAvailableStreamIDError(CodecError):  # type: ignore[no-redef]
        """The stream identifiers are used up."""

    class InternalError(CodecError):  # type: ignore[no-redef]
        """The engine failed."""

    class ProtocolError(CodecError):  # type: ignore[no-redef]
        """Base of breaches of the protocol."""

    class ConnectionProtocolError(ProtocolError):  # type: ignore[no-redef]
        """A breach that ends the connection."""

    class DenialOfServiceError(ConnectionProtocolError):  # type: ignore[no-redef]
        """The peer's input is above a limit."""

    class StreamProtocolError(ProtocolError):  # type: ignore[no-redef]
        """An operation that the stream's state forbids."""

    class StreamUnavailableError(StreamProtocolError):  # type: ignore[no-redef]
        """There is no such stream, or no more."""


__all__ = [
    "CodecError",
    "ConnectionClosingError",
    "ConnectionProtocolError",
    "ConnectionStateError",
    "DenialOfServiceError",
    "InternalError",
    "NoAvailableStreamIDError",
    "ProtocolError",
    "StreamProtocolError",
    "StreamUnavailableError",
]
