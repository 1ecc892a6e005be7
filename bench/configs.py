"""Bootstrap files in Envoy's format, which Tulle and Envoy both read: sidecars, a TCP relay, and a backend.

Features on: mutual TLS between the sidecars, JSON access log to a file, statistics, request ids, retries,
RBAC on the caller's SPIFFE ID, ``x-forwarded-client-cert``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UPSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
DOWNSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"

CLIENT_ID = "spiffe://mesh.local/ns/default/sa/client"
SERVER_ID = "spiffe://mesh.local/ns/default/sa/server"

LOG_FIELDS: Json = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "route_name": "%ROUTE_NAME%",
}

TCP_LOG_FIELDS: Json = {
    "start_time": "%START_TIME%",
    "duration": "%DURATION%",
    "response_flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
}


def address(port: int) -> Json:
    """A loopback address."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(
    name: str, port: int, transport_socket: Json | None = None, *, pooled: bool = True, http2: bool = False
) -> Json:
    """A static cluster of one endpoint; without ``pooled`` each request gets a connection of its own."""
    made: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
    }
    if transport_socket is not None:
        made["transport_socket"] = transport_socket
    if http2:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP_OPTIONS,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    elif not pooled:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP_OPTIONS,
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"max_requests_per_connection": 1},
            }
        }
    return made


def tls(kind: str, directory: Path, who: str, peer: str, extra: Json, *, alpn: str = "tulle") -> Json:
    """A TLS transport socket with certificates from files that asks for ``peer`` as the URI SAN."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": kind,
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "alpn_protocols": [alpn],
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(directory / f"{who}.crt")},
                        "private_key": {"filename": str(directory / f"{who}.key")},
                    }
                ],
                "validation_context": {
                    "trusted_ca": {"filename": str(directory / "ca.crt")},
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
                },
            },
            **extra,
        },
    }


def file_log(path: Path, fields: Json) -> list[Json]:
    """An access log of JSON lines in a file."""
    config = {"@type": FILE_LOG, "path": str(path), "log_format": {"json_format": fields}}
    return [{"name": "envoy.access_loggers.file", "typed_config": config}]


def http_listener(
    name: str,
    port: int,
    target: str,
    log: Path,
    *,
    rbac: bool,
    transport_socket: Json | None = None,
    **hcm: Any,
) -> Json:
    """A listener with an HTTP connection manager that routes everything to ``target``."""
    filters: list[Json] = []
    if rbac:
        rules = {
            "action": "ALLOW",
            "policies": {
                "client": {
                    "permissions": [{"any": True}],
                    "principals": [{"authenticated": {"principal_name": {"exact": CLIENT_ID}}}],
                }
            },
        }
        filters.append({"name": "envoy.filters.http.rbac", "typed_config": {"@type": RBAC, "rules": rules}})
    filters.append({"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}})
    route: Json = {
        "name": "default",
        "match": {"prefix": "/"},
        "route": {
            "cluster": target,
            "timeout": "15s",
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
    }
    manager = {
        "@type": HCM,
        "stat_prefix": name,
        "route_config": {
            "name": name,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": filters,
        "access_log": file_log(log, LOG_FIELDS),
        "normalize_path": True,
        **hcm,
    }
    chain: Json = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if transport_socket is not None:
        chain["transport_socket"] = transport_socket
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def bootstrap(admin_port: int, listeners: list[Json], clusters: list[Json]) -> Json:
    """A whole bootstrap."""
    return {
        "admin": {"address": address(admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def outbound(
    directory: Path,
    log: Path,
    port: int,
    upstream: int,
    admin: int,
    *,
    pooled: bool = True,
    http2: bool = False,
) -> Json:
    """The caller's sidecar: plain HTTP in, mutual TLS out."""
    transport = tls(UPSTREAM_TLS, directory, "client", SERVER_ID, {}, alpn="h2" if http2 else "tulle")
    return bootstrap(
        admin,
        [http_listener("outbound", port, "server", log, rbac=False)],
        [cluster("server", upstream, transport, pooled=pooled, http2=http2)],
    )


def inbound(directory: Path, log: Path, port: int, upstream: int, admin: int, *, http2: bool = False) -> Json:
    """The server's sidecar: mutual TLS in, plain HTTP out, RBAC on the caller."""
    asks = {"require_client_certificate": True}
    alpn = "h2" if http2 else "tulle"
    transport = tls(DOWNSTREAM_TLS, directory, "server", CLIENT_ID, asks, alpn=alpn)
    listener = http_listener(
        "inbound",
        port,
        "app",
        log,
        rbac=True,
        transport_socket=transport,
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
    )
    return bootstrap(admin, [listener], [cluster("app", upstream, http2=http2)])


def plain(directory: Path, log: Path, port: int, upstream: int, admin: int) -> Json:
    """A sidecar without TLS on either side."""
    return bootstrap(
        admin, [http_listener("plain", port, "app", log, rbac=False)], [cluster("app", upstream)]
    )


def relay(log: Path, port: int, upstream: int, admin: int) -> Json:
    """A plain TCP relay."""
    manager = {
        "@type": TCP_PROXY,
        "stat_prefix": "relay",
        "cluster": "app",
        "access_log": file_log(log, TCP_LOG_FIELDS),
    }
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": manager}]}
    listener = {"name": "relay", "address": address(port), "filter_chains": [chain]}
    return bootstrap(admin, [listener], [cluster("app", upstream)])


def backend(port: int, admin: int, body: int) -> Json:
    """An Envoy that answers everything by itself: the fastest app there is here. Its CPU is not counted."""
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "x" * body}},
    }
    manager = {
        "@type": HCM,
        "stat_prefix": "backend",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return bootstrap(admin, [{"name": "backend", "address": address(port), "filter_chains": [chain]}], [])


def as_json(config: Json) -> str:
    """As Envoy and Tulle read it."""
    return json.dumps(config)
