"""HTTP/2 frames as bytes, right and wrong ones (RFC 9113 section 6). They are stateless: no field enters a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
"""By number (RFC 9113 section 7)."""

Fields = Iterable[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame. ``length``: what its head says, if that is not the payload's."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def block(fields: Fields) -> bytes:
    """A field block of literals that enter no table, so that it means the same anywhere."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def integer(value: int, prefix: int, first: int = 0) -> bytes:
    """RFC 7541 section 5.1."""
    full = (1 << prefix) - 1
    if value < full:
        return bytes((first | value,))
    out = bytearray((first | full,))
    value -= full
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(data: bytes) -> bytes:
    return integer(len(data), 7) + data


def headers(
    stream: int, fields: Fields | bytes, *, end: bool = True, split: int = 0, more: bool = False
) -> bytes:
    """HEADERS, and CONTINUATION where the block is ``split`` into pieces. ``more``: END_HEADERS does not come."""
    data = fields if isinstance(fields, bytes) else block(fields)
    size = split or max(len(data), 1)
    pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    out = b""
    for number, piece in enumerate(pieces):
        last = 0 if more or number < len(pieces) - 1 else 0x4
        out += (
            frame(9, last, stream, piece) if number else frame(1, last | (0x1 if end else 0), stream, piece)
        )
    return out


def continuation(stream: int, data: bytes = b"", *, last: bool = False) -> bytes:
    return frame(9, 0x4 if last else 0, stream, data)


def data(stream: int, payload: bytes = b"", *, end: bool = False, size: int = 16384) -> bytes:
    """DATA, in frames of ``size`` at most."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    return b"".join(
        frame(0, 0x1 if end and number == len(pieces) - 1 else 0, stream, piece)
        for number, piece in enumerate(pieces)
    )


def settings(values: Mapping[int, int] | None = None, *, ack: bool = False) -> bytes:
    payload = b"".join(
        key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in (values or {}).items()
    )
    return frame(4, 0x1 if ack else 0, 0, payload)


def rst(stream: int, code: int = 8) -> bytes:
    return frame(3, 0, stream, code.to_bytes(4, "big"))


def window(stream: int, size: int) -> bytes:
    return frame(8, 0, stream, size.to_bytes(4, "big"))


def ping(payload: bytes = b"\0" * 8, *, ack: bool = False) -> bytes:
    return frame(6, 0x1 if ack else 0, 0, payload)


def goaway(last: int, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(7, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)


def priority(stream: int, on: int = 0, weight: int = 15) -> bytes:
    return frame(2, 0, stream, on.to_bytes(4, "big") + bytes((weight,)))
