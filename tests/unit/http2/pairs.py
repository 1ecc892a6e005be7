"""Two codecs joined end to end, each of an engine that the test names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack import Encoder

from proxy.http2.codec import ENGINES, Codec, CodecError, Options, Role

REQUEST = ((b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"))
OK = ((b":status", b"200"),)


def plain(event: Any) -> tuple[Any, ...]:
    """An event of either engine, comparable with the other's."""
    values = [getattr(event, name) for name in event.__match_args__]
    return (
        type(event).__name__,
        *(type(value).__name__ if isinstance(value, Exception) else value for value in values),
    )


class Pair:
    """A client and a server, and what each has seen."""

    def __init__(
        self,
        client: str,
        server: str,
        client_options: Options | None = None,
        server_options: Options | None = None,
    ) -> None:
        self.client: Codec = ENGINES[client].make(Role.CLIENT, client_options or Options())
        self.server: Codec = ENGINES[server].make(Role.SERVER, server_options or Options())
        self.client_saw: list[tuple[Any, ...]] = []
        self.server_saw: list[tuple[Any, ...]] = []

    def pump(self) -> None:
        """Until neither has anything to say."""
        while True:
            to_server = _take(self.client)
            to_client = _take(self.server)
            self.note()
            if not to_server and not to_client:
                return
            _give(self.server, to_server)
            _give(self.client, to_client)
            self.note()

    def note(self) -> None:
        self.client_saw += map(plain, self.client.events())
        self.server_saw += map(plain, self.server.events())

    def forget(self) -> None:
        self.client_saw.clear()
        self.server_saw.clear()


def connected(client: str, server: str, **options: Options) -> Pair:
    """A pair whose settings are exchanged and forgotten."""
    pair = Pair(client, server, **options)
    pair.pump()
    pair.forget()
    return pair


class Raw:
    """The peer of one codec, by hand: it may send whatever no engine would."""

    def __init__(self, engine: str, role: Role, options: Options | None = None) -> None:
        self.codec: Codec = ENGINES[engine].make(role, options or Options())
        self.encoder = Encoder()
        self.sent = b""
        """What the codec has sent since it was last looked at."""
        self.saw: list[tuple[Any, ...]] = []
        self.receive((PREFACE if role is Role.SERVER else b"") + frame(4, 0, 0) + frame(4, 1, 0))
        self.saw.clear()
        self.sent = b""

    def receive(self, data: bytes) -> None:
        """Let the codec have ``data``; a ``CodecError`` is for the test."""
        self.codec.receive_data(data)
        self.flush()

    def flush(self) -> None:
        self.saw += map(plain, self.codec.events())
        self.sent += self.codec.data_to_send()
        self.saw += map(plain, self.codec.events())

    def headers(
        self, stream_id: int, headers: Iterable[tuple[bytes, bytes]], *, end_stream: bool = False
    ) -> None:
        self.receive(frame(1, 4 | end_stream, stream_id, self.encoder.encode(headers)))


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each."""
    result = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        result.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return result


def _take(codec: Codec) -> bytes:
    try:
        return codec.data_to_send()
    except CodecError:
        return b""


def _give(codec: Codec, data: bytes) -> None:
    if data:
        try:
            codec.receive_data(data)
        except CodecError:
            # Over, or overwhelmed: it has nothing more to send.
            return
