"""Two codecs joined end to end, each of an engine that the test names."""

from __future__ import annotations

from typing import Any

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
