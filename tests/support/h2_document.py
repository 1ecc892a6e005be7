"""The bootstrap that HTTP/2 cases are played against, for Envoy and for Tulle alike."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.fakes import pki

V3 = "type.googleapis.com/envoy.extensions"
LOGGED = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "protocol": "%PROTOCOL%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """``upstream``: what the backend speaks; ``downstream``: what the client does. ``http2`` and ``upstream_http2`` are
    the ``http2_protocol_options`` of the listener and of the cluster; ``manager`` goes into the connection manager,
    ``route`` into the route's action, ``match`` replaces its match, ``host`` goes into the virtual host, ``cluster``
    into the cluster, ``upstream_common`` into its ``common_http_protocol_options``. ``transport``: the listener's
    transport socket."""

    upstream: Literal["h1", "h2"] = "h1"
    http2: Mapping[str, Any] = field(default_factory=dict)
    upstream_http2: Mapping[str, Any] = field(default_factory=dict)
    manager: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    match: Mapping[str, Any] = field(default_factory=lambda: {"prefix": "/"})
    host: Mapping[str, Any] = field(default_factory=dict)
    cluster: Mapping[str, Any] = field(default_factory=dict)
    upstream_common: Mapping[str, Any] = field(default_factory=dict)
    transport: Mapping[str, Any] = field(default_factory=dict)
    downstream: Literal["h1", "h2"] = "h2"


H1 = Setup()
H2 = Setup("h2")


def document(setups: Iterable[tuple[str, Setup, int]], log: Path) -> dict[str, Any]:
    """A listener and a cluster for each name; and the listener ``last``, which answers by itself."""
    named = list(setups)
    listeners = [_listener(name, setup, log) for name, setup, _ in named]
    listeners.append(_listener("last", Setup(), log))
    return {
        "admin": {"address": address(0)},
        "static_resources": {
            "listeners": listeners,
            "clusters": [cluster(name, port, setup) for name, setup, port in named],
        },
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(name: str, setup: Setup, log: Path) -> dict[str, Any]:
    direct = {"status": 200, "body": {"inline_string": "direct"}}
    routes: list[dict[str, Any]] = [{"match": {"path": "/direct"}, "direct_response": direct}]
    if name == "last":
        routes = [{"match": {"prefix": "/"}, "direct_response": direct}]
    else:
        routes.append({"match": setup.match, "route": {"cluster": name, **setup.route}})
    access_log = {
        "@type": f"{V3}.access_loggers.file.v3.FileAccessLog",
        "path": str(log),
        "log_format": {"json_format": {"case": name, **LOGGED}},
    }
    manager = {
        "@type": f"{V3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP1" if setup.downstream == "h1" else "HTTP2",
        # Envoy ends a connection only after this.
        "delayed_close_timeout": "0.1s",
        "route_config": {
            "name": name,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes, **setup.host}],
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{V3}.filters.http.router.v3.Router"}}
        ],
        "access_log": [{"name": "file", "typed_config": access_log}],
        **({"http2_protocol_options": setup.http2} if setup.http2 else {}),
        **setup.manager,
    }
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if setup.transport:
        chain["transport_socket"] = setup.transport
    return {"name": name, "address": address(0), "filter_chains": [chain]}


def cluster(name: str, port: int, setup: Setup) -> dict[str, Any]:
    explicit = (
        {"http2_protocol_options": setup.upstream_http2}
        if setup.upstream == "h2"
        else {"http_protocol_options": {}}
    )
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options: dict[str, Any] = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": explicit}
    if setup.upstream_common:
        options["common_http_protocol_options"] = setup.upstream_common
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
        "typed_extension_protocol_options": {kind: options},
        **setup.cluster,
    }


def tls(*alpn: str) -> dict[str, Any]:
    """A listener's transport socket, with a certificate of its own; it speaks ``alpn``, HTTP/2 if that is empty."""
    now = datetime.datetime.now(datetime.UTC)
    leaf = pki.make(not_before=now - datetime.timedelta(hours=1), not_after=now + datetime.timedelta(hours=1))
    certificate = {
        "certificate_chain": {"inline_string": leaf.pem},
        "private_key": {"inline_string": leaf.key_pem.decode()},
    }
    common = {"alpn_protocols": list(alpn or ("h2",)), "tls_certificates": [certificate]}
    kind = f"{V3}.transport_sockets.tls.v3.DownstreamTlsContext"
    return {"name": "tls", "typed_config": {"@type": kind, "common_tls_context": common}}
