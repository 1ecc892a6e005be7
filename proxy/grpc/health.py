"""``grpc.health.v1.Health/Check``: the one call of a health check, from its request to a verdict.

It connects to nobody.

The two messages have one field each, and are written and read here as the protobuf encoding has them
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.grpc import status
from proxy.grpc.message import PREFIX_LENGTH, frame, is_grpc_response
from proxy.model.exchange import Head

PATH: Final = b"/grpc.health.v1.Health/Check"
SERVING: Final = 1
MAX_RESPONSE: Final = 64 * 1024
"""Bytes that are kept of an answer, which has two in practice."""

_SERVICE_TAG: Final = b"\x0a"
_STATUS_FIELD: Final = 1
_FIXED: Final = {1: 8, 5: 4}


class Verdict(NamedTuple):
    """``ended``: the stream is over; otherwise it is to be reset."""

    healthy: bool
    why: str
    ended: bool


def request(service: str) -> bytes:
    """The body of the call that asks for ``service``, "" = the server as a whole."""
    name = service.encode()
    return frame(_SERVICE_TAG + _varint(len(name)) + name if name else b"")


def serving_status(message: bytes) -> int:
    """The ``status`` of a ``HealthCheckResponse``, 0 without one. Raises ``ValueError`` for what is no message."""
    found = at = 0
    while at < len(message):
        tag, at = _read(message, at)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field without a number")
        if wire == 0:
            value, at = _read(message, at)
            if number == _STATUS_FIELD:
                # An enumeration has 32 bits, whatever was written.
                found = value & 0xFFFFFFFF
        elif wire == 2:
            length, at = _read(message, at)
            at += length
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            raise ValueError(f"wire type {wire}")
    if at > len(message):
        raise ValueError("cut off")
    return found


class HealthCall:
    """The answer to one call, piece by piece, as Envoy's ``GrpcActiveHealthCheckSession`` judges it.

    Each method gives the verdict as soon as there is one; nothing may be told to it after that.
    """

    __slots__ = ("_buffer", "_status")

    def __init__(self) -> None:
        self._buffer = b""
        self._status: int | None = None

    def head(self, head: Head, *, done: bool) -> Verdict | None:
        found = status.of_head(head) if done else None
        if head.status != 200:
            if found is not None:
                return self._complete(found, ended=True)
            return Verdict(False, f"HTTP status {head.status}", done)
        if not is_grpc_response(head, done=done):
            return Verdict(False, "not a gRPC response", done)
        return None if found is None else self._complete(found, ended=True)

    def body(self, data: bytes, *, done: bool) -> Verdict | None:
        if done:
            return Verdict(False, "the stream ended without a status", True)
        self._buffer += data
        while len(self._buffer) >= PREFIX_LENGTH:
            flags, length = self._buffer[0], int.from_bytes(self._buffer[1:PREFIX_LENGTH], "big")
            if flags > 1:
                return Verdict(False, "not a gRPC message", False)
            if length > MAX_RESPONSE:
                return Verdict(False, f"a message of {length} bytes", False)
            end = PREFIX_LENGTH + length
            if len(self._buffer) < end:
                return None
            message, self._buffer = self._buffer[PREFIX_LENGTH:end], self._buffer[end:]
            if not length:
                continue
            if self._status is not None:
                return Verdict(False, "a second message", False)
            if flags:
                return Verdict(False, "a compressed message", False)
            try:
                self._status = serving_status(message)
            except ValueError as error:
                return Verdict(False, f"not a HealthCheckResponse: {error}", False)
        return None

    def trailers(self, fields: Sequence[tuple[bytes, bytes]]) -> Verdict:
        found = status.of_trailers(fields)
        return self._complete(status.INTERNAL if found is None else found, ended=True)

    def _complete(self, grpc_status: int, *, ended: bool) -> Verdict:
        if grpc_status != status.OK:
            return Verdict(False, f"gRPC status {grpc_status}", ended)
        if self._status != SERVING:
            said = "nothing" if self._status is None else str(self._status)
            return Verdict(False, f"serving status: {said}", ended)
        return Verdict(True, "serving", ended)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read(message: bytes, at: int) -> tuple[int, int]:
    """A varint, of at most 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number of more than 64 bits")
