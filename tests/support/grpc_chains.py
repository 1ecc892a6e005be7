"""Chains of proxies between gRPC clients and servers: none, one, or two with mutual TLS between them."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.fakes import pki
from tests.support import built_tools
from tests.support.h2_arena import SIDES, START
from tests.support.h2_document import V3, address

Json = dict[str, Any]
CHAINS = ("direct", *SIDES, *(f"{side} pair" for side in SIDES))
"""A pair is the caller's sidecar and the server's, with mutual TLS and HTTP/2 between them."""
PEERS = ("python", "node")
WAIT = 60.0
_HERE = Path(__file__).parent / "grpc_peers"
_TLS = f"{V3}.transport_sockets.tls.v3"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_RETRY = {"retry_on": "connect-failure,refused-stream,reset,unavailable,cancelled", "num_retries": 3}
"""A call that reaches grpcio's server just when it begins to end is answered with CANCELLED."""


@contextmanager
def chain(kind: str, directory: Path, servers: Sequence[int]) -> Iterator[int]:
    """The port through which a client reaches the servers."""
    side, _, pair = kind.partition(" ")
    with ExitStack() as stack:
        if side == "direct":
            (port,) = servers
        elif not pair:
            port = stack.enter_context(_proxy(side, directory / "alone", servers))
        else:
            down, up = _identities()
            inner = stack.enter_context(_proxy(side, directory / "inbound", servers, down=down))
            port = stack.enter_context(_proxy(side, directory / "outbound", [inner], up=up))
        yield port


@contextmanager
def _proxy(
    side: str, directory: Path, ports: Sequence[int], *, down: Json | None = None, up: Json | None = None
) -> Iterator[int]:
    directory.mkdir()
    log = directory / "access"
    with START[side](directory, _document(ports, down, up), log) as proxy:
        yield proxy.ports["grpc"]


def _document(ports: Sequence[int], down: Json | None, up: Json | None) -> Json:
    route = {"cluster": "servers", "timeout": "0s", "retry_policy": _RETRY}
    manager = {
        "@type": f"{V3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "grpc",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{V3}.filters.http.router.v3.Router"}}
        ],
    }
    served: Json = {"filters": [{"name": "http", "typed_config": manager}]}
    if down is not None:
        served["transport_socket"] = down
    endpoints = [{"endpoint": {"address": address(port)}} for port in ports]
    cluster: Json = {
        "name": "servers",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "servers", "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {
            _OPTIONS: {
                "@type": f"type.googleapis.com/{_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        # Beyond the thousand streams of one scenario.
        "circuit_breakers": {"thresholds": [{"max_requests": 10_000, "max_retries": 1000}]},
    }
    if up is not None:
        cluster["transport_socket"] = up
    listener = {"name": "grpc", "address": address(0), "filter_chains": [served]}
    return {
        "admin": {"address": address(0)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _identities() -> tuple[Json, Json]:
    """The transport sockets of the server's sidecar and of the caller's: each asks for the other's SPIFFE ID."""
    now = datetime.datetime.now(datetime.UTC)
    since, until = now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=1)
    root = pki.make_ca(not_before=since, not_after=until)

    def common(own: str, other: str) -> Json:
        leaf = pki.make(signer=root, uris=(_id(own),), not_before=since, not_after=until)
        certificate = {
            "certificate_chain": {"inline_string": leaf.pem},
            "private_key": {"inline_string": leaf.key_pem.decode()},
        }
        validation = {
            "trusted_ca": {"inline_string": root.pem},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": _id(other)}}],
        }
        return {
            "alpn_protocols": ["h2"],
            "tls_certificates": [certificate],
            "validation_context": validation,
        }

    down = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "common_tls_context": common("server", "client"),
        "require_client_certificate": True,
    }
    up = {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": common("client", "server")}
    return {"name": "tls", "typed_config": down}, {"name": "tls", "typed_config": up}


def _id(name: str) -> str:
    return f"spiffe://mesh.local/ns/default/sa/{name}"


def command(peer: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """How a peer is started: its command and its environment."""
    if peer == "python":
        return [sys.executable, str(_HERE / "peer.py"), *arguments], dict(os.environ)
    modules = str(built_tools.grpc_js() / "node_modules")
    return [built_tools.program("node"), str(_HERE / "peer.js"), *arguments], os.environ | {
        "NODE_PATH": modules
    }


class Server:
    """A server as a process."""

    def __init__(self, peer: str, port: int = 0) -> None:
        argv, environment = command(peer, "server", str(port))
        self._process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server did not start"
        self.port = int(line)

    def end(self) -> int:
        """End gracefully."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()
