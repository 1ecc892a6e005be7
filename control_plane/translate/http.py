"""The HTTP connection manager, the TCP proxy and the access log, as all listeners of a sidecar have them.

Paths are normalised and their slashes merged on both sides, so that policy, routes and the app see the same path;
escaped slashes stay as they are (Istio's default), as clients use ``%2F`` inside object names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import struct_pb2

from control_plane.translate.http_version import HTTP2_OPTIONS
from control_plane.translate.pack import ADS, boolean, duration, packed

LOG_FIELDS = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "upstream_peer_uri_san": "%UPSTREAM_PEER_URI_SAN%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "downstream_peer_uri_san": "%DOWNSTREAM_PEER_URI_SAN%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
}
"""Istio's default JSON fields, the peers' SPIFFE IDs and the trace context; the same for HTTP and TCP."""


def access_log(path: str) -> Any:
    """JSON lines to a file."""
    config = file_pb2.FileAccessLog(
        path=path,
        log_format=substitution_format_string_pb2.SubstitutionFormatString(
            json_format=struct_pb2.Struct(
                fields={name: struct_pb2.Value(string_value=text) for name, text in LOG_FIELDS.items()}
            )
        ),
    )
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=packed(config))


def outbound_http(stat_prefix: str, route_name: str, log: Any) -> Any:
    """A client's side: routes come by RDS; what apps say in ``x-forwarded-client-cert`` is dropped."""
    return _http_filter(
        hcm_pb2.HttpConnectionManager(
            stat_prefix=stat_prefix,
            rds=hcm_pb2.Rds(route_config_name=route_name, config_source=ADS),
            forward_client_cert_details="SANITIZE",
        ),
        (),
        log,
    )


def inbound_http(stat_prefix: str, routes: Any, policy_filters: Sequence[Any], log: Any) -> Any:
    """A server's side: fixed routes, policy before the router, the verified caller in ``x-forwarded-client-cert``."""
    return _http_filter(
        hcm_pb2.HttpConnectionManager(
            stat_prefix=stat_prefix,
            route_config=routes,
            forward_client_cert_details="SANITIZE_SET",
            set_current_client_cert_details=hcm_pb2.HttpConnectionManager.SetCurrentClientCertDetails(
                uri=True
            ),
        ),
        policy_filters,
        log,
    )


def _http_filter(manager: Any, policy_filters: Sequence[Any], log: Any) -> Any:
    manager.use_remote_address.CopyFrom(boolean(False))
    manager.normalize_path.CopyFrom(boolean(True))
    manager.merge_slashes = True
    manager.path_with_escaped_slashes_action = "KEEP_UNCHANGED"
    manager.access_log.append(log)
    manager.upgrade_configs.add(upgrade_type="websocket")
    manager.http2_protocol_options.CopyFrom(HTTP2_OPTIONS)
    manager.http_filters.extend(policy_filters)
    manager.http_filters.append(
        hcm_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router()))
    )
    return listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)
    )


def tcp_filter(stat_prefix: str, cluster: str, log: Any) -> Any:
    """Relay the connection's bytes to ``cluster``."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=stat_prefix, cluster=cluster, access_log=[log])
    return listener_components_pb2.Filter(name="envoy.filters.network.tcp_proxy", typed_config=packed(proxy))


def inbound_routes(cluster: str, port: int) -> Any:
    """Everything to the app; how long it may take is the app's and the caller's matter."""
    route = route_components_pb2.Route(
        name="default",
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(cluster=cluster, timeout=duration(0)),
    )
    host = route_components_pb2.VirtualHost(name=f"inbound|http|{port}", domains=["*"], routes=[route])
    return route_pb2.RouteConfiguration(name=cluster, virtual_hosts=[host], validate_clusters=boolean(False))
