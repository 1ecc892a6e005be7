"""Floods: what many peers have been brought down with. Which bound ends the connection, and what is counted."""

from __future__ import annotations

from tests.support.h2_arena import Case
from tests.support.h2_document import H1, H2, Setup
from tests.support.h2_exchanges.build import fields, get, head, ok, post
from tests.support.h2_frames import (
    block,
    continuation,
    data,
    frame,
    headers,
    integer,
    ping,
    priority,
    rst,
    settings,
    window,
)
from tests.support.h2_script import Deaf, Script, Until

_MANY = 12_000
"""More than any of Envoy's limits (10,000)."""
_INSERT = b"\x40\x01x" + integer(4000, 7) + b"y" * 4000
"""A field of 4,000 bytes that enters the table, to be referred to by one byte afterwards."""
_BOMB = headers(1, block(fields()) + _INSERT + b"\xbe" * 15_000, split=16_000)


_SILENT: tuple[Script, ...] = ((),)
"""A backend that answers nothing."""


def _streams(count: int, *after: bytes) -> bytes:
    return b"".join(get(stream=2 * n + 1) + b"".join(after).replace(b"STRM", (2 * n + 1).to_bytes(4, "big"))
                    for n in range(count))  # fmt: skip


def _reset(code: int) -> bytes:
    return b"\0\0\x04\x03\0STRM" + code.to_bytes(4, "big")


def _flood(
    name: str, *client: bytes, setup: Setup = H1, backend: tuple[Script, ...] = (), first: Script = ()
) -> Case:
    ends: Script = (Until("end", 1),) if backend and backend != _SILENT else ()
    # Whether the answers to PING fill the queue or meet a connection that is being closed is chance.
    without = frozenset({"counted"} if "PING" in name and backend else ())
    return Case(
        f"flood: {name}", (*first, *client, *ends), setup=setup, backend=backend, flood=True, without=without
    )


CASES = [
    _flood("rapid reset", _streams(3000, _reset(8))),
    _flood("rapid reset of bodies", b"".join(post(stream=2 * n + 1) + rst(2 * n + 1) for n in range(3000)), setup=H2),
    _flood("MadeYouReset by WINDOW_UPDATE of 0", _streams(3000, b"\0\0\x04\x08\0STRM\0\0\0\0"), setup=H2),
    _flood("MadeYouReset by an overflowing window", _streams(3000, b"\0\0\x04\x08\0STRM\x7f\xff\xff\xff"), setup=H2),
    _flood("MadeYouReset by PRIORITY of four bytes", _streams(3000, b"\0\0\x04\x02\0STRM\0\0\0\0"), setup=H2),
    _flood("MadeYouReset by DATA after the end", _streams(3000, b"\0\0\0\0\0STRM"), setup=H2),
    _flood("MadeYouReset by a stream on itself", _streams(3000, b"\0\0\x05\x02\0STRMSTRM\0"), setup=H2,
           backend=_SILENT),
    _flood("MadeYouReset by a wrong length", b"".join(
        post((b"content-length", b"1"), stream=2 * n + 1) + data(2 * n + 1, b"abc") for n in range(3000)), setup=H2),
    _flood("CONTINUATION without end", headers(1, fields(), more=True),
           continuation(1, block([(b"x", b"y")])) * 40_000),
    _flood("empty CONTINUATION without end", headers(1, fields(), more=True), continuation(1) * _MANY),
    _flood("CONTINUATION of one byte each", headers(1, fields((b"x", b"y" * 3000)), split=1)),
    _flood("HPACK bomb", _BOMB),
    _flood("PING", ping() * _MANY, first=(Deaf(),)),
    _flood("SETTINGS", settings({3: 1}) * _MANY),
    _flood("empty SETTINGS", settings() * _MANY),
    _flood("empty DATA", post() + data(1) * _MANY, setup=H2),
    _flood("padded empty DATA", post() + frame(0, 0x8, 1, b"\x01\0") * _MANY, setup=H2),
    _flood("PRIORITY", priority(1) * _MANY),
    _flood("PRIORITY of many streams", b"".join(priority(2 * n + 1) for n in range(_MANY))),
    _flood("WINDOW_UPDATE of the connection", window(0, 1) * _MANY),
    _flood("WINDOW_UPDATE of a stream", post() + window(1, 1) * _MANY, setup=H2),
    _flood("empty HEADERS", b"".join(headers(2 * n + 1, ()) for n in range(500))),
    _flood("unknown frames", frame(0xEE, 0, 0, b"") * _MANY),
    _flood("answers to no SETTINGS", settings(ack=True) * _MANY),
    _flood("answers to no PING", ping(ack=True) * _MANY),
    _flood("requests that are refused", b"".join(get((b"X", b"y"), stream=2 * n + 1) for n in range(1500)),
           setup=Setup(http2={"override_stream_error_on_invalid_http_message": True})),
    _flood("streams beyond the limit", b"".join(post(stream=2 * n + 1) for n in range(900)),
           setup=Setup("h2", http2={"max_concurrent_streams": 10})),
    _flood("the backend: empty DATA", get(), setup=H2, backend=(
        (Until("end", 1), head(1, b"200") + data(1) * _MANY + data(1, b"x", end=True)),)),
    _flood("the backend: PING", get(), setup=H2, backend=((Until("end", 1), ping() * _MANY + ok()),)),
    _flood("the backend: SETTINGS", get(), setup=H2, backend=((Until("end", 1), settings() * _MANY + ok()),)),
    _flood("the backend: PRIORITY", get(), setup=H2, backend=((Until("end", 1), priority(1) * _MANY + ok()),)),
    _flood("the backend: WINDOW_UPDATE", get(), setup=H2, backend=((Until("end", 1), window(1, 1) * _MANY + ok()),)),
    _flood("the backend: CONTINUATION without end", get(), setup=H2, backend=(
        (Until("end", 1), headers(1, ((b":status", b"200"),), more=True)
         + continuation(1, block([(b"x", b"y")])) * 40_000),)),
    _flood("the backend: HPACK bomb", get(), setup=H2, backend=(
        (Until("end", 1), headers(1, block([(b":status", b"200")]) + _INSERT + b"\xbe" * 15_000, split=16_000)),)),
    _flood("the backend: interim responses", get(), setup=H2, backend=(
        (Until("end", 1), head(1, b"103") * 2000 + ok()),)),
]  # fmt: skip
