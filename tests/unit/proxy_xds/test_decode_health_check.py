"""``HealthCheck``: as what it is read, and what is refused by its field."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import health_check_pb2
from google.protobuf import json_format

from proxy.model.cluster import EndpointHealthCheck
from proxy.model.config import ConfigError
from proxy.model.health_check import GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from proxy.model.matcher import StringMatcher
from proxy.model.route import HeaderValueOption
from proxy.xds.decode.cluster import cluster
from proxy.xds.decode.health_check import health_check

BASE: dict[str, Any] = {
    "timeout": "1s",
    "interval": "5s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 3,
}
TCP: dict[str, Any] = {"tcp_health_check": {}}


def decoded(*, http2: bool = True, **options: Any) -> HealthCheck:
    body = {key: value for key, value in {**BASE, **options}.items() if value is not None}
    return health_check(json_format.ParseDict(body, health_check_pb2.HealthCheck()), "h", http2=http2)


def test_defaults_follow_from_each_other() -> None:
    made = decoded(**TCP)
    assert made == HealthCheck(TcpCheck(), 1.0, 5.0, 2, 3, 60.0, 60.0, 5.0, 5.0, 5.0)
    made = decoded(**TCP, unhealthy_interval="7s", no_traffic_interval="30s")
    assert (made.unhealthy_interval, made.unhealthy_edge_interval, made.healthy_edge_interval) == (7, 7, 5)
    assert (made.no_traffic_interval, made.no_traffic_healthy_interval) == (30, 30)


def test_everything_that_is_common_is_read() -> None:
    made = decoded(
        **TCP,
        initial_jitter="1s",
        interval_jitter="2s",
        interval_jitter_percent=30,
        reuse_connection=False,
        no_traffic_interval="3s",
        no_traffic_healthy_interval="4s",
        unhealthy_interval="6s",
        unhealthy_edge_interval="7s",
        healthy_edge_interval="8s",
        tls_options={"alpn_protocols": ["h2"]},
        transport_socket_match_criteria={"tls": "plain"},
        always_log_health_check_failures=True,
    )
    assert made == HealthCheck(
        TcpCheck(), 1.0, 5.0, 2, 3, 3.0, 4.0, 6.0, 7.0, 8.0, 1.0, 2.0, 30, False, ("h2",), (("tls", "plain"),)
    )


def test_http() -> None:
    assert decoded(http_health_check={"path": "/h"}).check == HttpCheck("/h")
    made = decoded(
        http_health_check={
            "host": "h.test",
            "path": "/h?x=1",
            "method": "POST",
            "send": {"text": "0aFF"},
            "receive": [{"text": "6f6B"}, {"binary": "AAE="}],
            "response_buffer_size": 0,
            "request_headers_to_add": [{"header": {"key": "x-a", "value": "1"}}],
            "request_headers_to_remove": ["user-agent"],
            "expected_statuses": [{"start": 200, "end": 300}, {"start": 404, "end": 405}],
            "retriable_statuses": [{"start": 500, "end": 600}],
            "codec_client_type": "HTTP2",
            "service_name_matcher": {"prefix": "loc"},
        }
    )
    assert made.check == HttpCheck(
        "/h?x=1",
        "h.test",
        "POST",
        b"\x0a\xff",
        (b"ok", b"\0\x01"),
        0,
        (HeaderValueOption("x-a", "1"),),
        ("user-agent",),
        ((200, 300), (404, 405)),
        ((500, 600),),
        True,
        StringMatcher("prefix", "loc"),
    )


def test_tcp_and_grpc() -> None:
    made = decoded(tcp_health_check={"send": {"text": "01"}, "receive": [{"text": "02"}, {"text": "03"}]})
    assert made.check == TcpCheck(b"\x01", (b"\x02", b"\x03"))
    assert decoded(grpc_health_check={}).check == GrpcCheck()
    made = decoded(
        grpc_health_check={
            "service_name": "s",
            "authority": "a.test",
            "initial_metadata": [{"header": {"key": "x-a", "value": "1"}}],
        }
    )
    assert made.check == GrpcCheck("s", "a.test", (HeaderValueOption("x-a", "1"),))


def http(**more: Any) -> dict[str, Any]:
    return {"http_health_check": {"path": "/", **more}}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, ""),
        ({**TCP, "timeout": None}, ".timeout"),
        ({**TCP, "timeout": "0s"}, ".timeout"),
        ({**TCP, "interval": None}, ".interval"),
        ({**TCP, "interval": "-1s"}, ".interval"),
        ({**TCP, "unhealthy_threshold": None}, ".unhealthy_threshold"),
        ({**TCP, "healthy_threshold": None}, ".healthy_threshold"),
        ({**TCP, "no_traffic_interval": "0s"}, ".no_traffic_interval"),
        ({**TCP, "no_traffic_healthy_interval": "0s"}, ".no_traffic_healthy_interval"),
        ({**TCP, "unhealthy_interval": "0s"}, ".unhealthy_interval"),
        ({**TCP, "unhealthy_edge_interval": "0s"}, ".unhealthy_edge_interval"),
        ({**TCP, "healthy_edge_interval": "0s"}, ".healthy_edge_interval"),
        ({**TCP, "initial_jitter": "-1s"}, ".initial_jitter"),
        ({**TCP, "alt_port": 80}, ".alt_port"),
        ({**TCP, "event_log_path": "/x"}, ".event_log_path"),
        ({**TCP, "tls_options": {"alpn_protocols": [""]}}, ".tls_options.alpn_protocols[0]"),
        ({**TCP, "transport_socket_match_criteria": {"a": 1}}, ".transport_socket_match_criteria.a"),
        ({"custom_health_check": {"name": "redis"}}, ".custom_health_check"),
        ({"http_health_check": {}}, ".http_health_check.path"),
        (http(path="/a b"), ".http_health_check.path"),
        (http(host="a b"), ".http_health_check.host"),
        (http(method="CONNECT"), ".http_health_check.method"),
        (http(send={"text": "00"}), ".http_health_check.send"),
        (http(method="POST", send={"text": "0"}), ".http_health_check.send.text"),
        (http(method="POST", send={}), ".http_health_check.send"),
        (http(receive=[{"text": "61"}, {"text": "6 1"}]), ".http_health_check.receive[1].text"),
        (
            http(receive=[{"text": "616161"}], response_buffer_size=2),
            ".http_health_check.response_buffer_size",
        ),
        (http(expected_statuses=[{"start": 200, "end": 200}]), ".http_health_check.expected_statuses[0]"),
        (http(expected_statuses=[{"start": 99, "end": 200}]), ".http_health_check.expected_statuses[0]"),
        (http(retriable_statuses=[{"start": 200, "end": 601}]), ".http_health_check.retriable_statuses[0]"),
        (http(codec_client_type="HTTP3"), ".http_health_check.codec_client_type"),
        (http(request_headers_to_remove=[":path"]), ".http_health_check.request_headers_to_remove[0]"),
        ({"tcp_health_check": {"send": {"text": ""}}}, ".tcp_health_check.send.text"),
        ({"tcp_health_check": {"proxy_protocol_config": {}}}, ".tcp_health_check.proxy_protocol_config"),
        ({"grpc_health_check": {"authority": "a b"}}, ".grpc_health_check.authority"),
    ],
)
def test_what_is_refused_by_its_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decoded(**options)
    assert caught.value.path == "h" + field


def test_grpc_needs_http2() -> None:
    with pytest.raises(ConfigError) as caught:
        decoded(http2=False, grpc_health_check={})
    assert caught.value.path == "h.grpc_health_check"


def cluster_of(*checks: dict[str, Any], **options: Any) -> Any:
    listed = {
        "cluster_name": "c",
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {
                            "address": {"socket_address": {"address": "10.0.0.1", "port_value": 1}},
                            "health_check_config": options.pop("at", {}),
                        }
                    }
                ]
            }
        ],
    }
    body = {
        "name": "c",
        "type": "STATIC",
        "load_assignment": listed,
        "health_checks": list(checks),
        **options,
    }
    return cluster(json_format.ParseDict(body, cluster_pb2.Cluster()))


def test_a_cluster_and_its_endpoints_say_how_they_are_checked() -> None:
    made = cluster_of(
        BASE | TCP,
        at={"port_value": 8080, "hostname": "h.test", "disable_active_health_check": True},
        ignore_health_on_host_removal=True,
        close_connections_on_host_health_failure=True,
        common_lb_config={"ignore_new_hosts_until_first_hc": True},
    )
    assert made.health_check == decoded(**TCP)
    assert made.ignore_health_on_host_removal and made.ignore_new_hosts_until_first_hc
    assert made.close_connections_on_host_health_failure
    (locality,) = made.load_assignment.localities
    assert locality.endpoints[0].health_check == EndpointHealthCheck(8080, "", "h.test", True)
    where = {"address": {"socket_address": {"address": "10.0.0.2", "port_value": 7}}}
    (locality,) = cluster_of(at=where).load_assignment.localities
    assert locality.endpoints[0].health_check == EndpointHealthCheck(7, "10.0.0.2")
    assert cluster_of().health_check is None


@pytest.mark.parametrize(
    ("checks", "options", "path"),
    [
        ([BASE | TCP] * 2, {}, "cluster[c].health_checks"),
        (
            [BASE | TCP],
            {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "load_assignment": None},
            "cluster[c].health_checks",
        ),
        ([BASE | {"grpc_health_check": {}}], {}, "cluster[c].health_checks[0].grpc_health_check"),
        (
            [],
            {"at": {"port_value": 70000}},
            "cluster[c].load_assignment.endpoints[0].lb_endpoints[0].endpoint.health_check_config.port_value",
        ),
        (
            [],
            {"at": {"hostname": "a b"}},
            "cluster[c].load_assignment.endpoints[0].lb_endpoints[0].endpoint.health_check_config.hostname",
        ),
        (
            [],
            {
                "at": {
                    "port_value": 1,
                    "address": {"socket_address": {"address": "10.0.0.2", "port_value": 7}},
                }
            },
            "cluster[c].load_assignment.endpoints[0].lb_endpoints[0].endpoint.health_check_config.address",
        ),
    ],
)
def test_a_cluster_that_cannot_be_checked_is_refused(
    checks: list[dict[str, Any]], options: dict[str, Any], path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        cluster_of(*checks, **options)
    assert caught.value.path == path
