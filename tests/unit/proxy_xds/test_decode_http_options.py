"""Options of connection manager and routes: as what they are read, and what is refused by its field."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format

from proxy.model.address import CidrRange
from proxy.model.config import ConfigError
from proxy.model.listener import HttpConnectionManager
from proxy.model.route import RouteAction, StreamDuration
from proxy.xds.decode.http import http_connection_manager
from proxy.xds.decode.route_action import route_action

ROUTER = {
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}


def manager(**options: Any) -> HttpConnectionManager:
    message = http_connection_manager_pb2.HttpConnectionManager()
    body = {"stat_prefix": "s", "route_config": {"name": "r"}, "http_filters": [ROUTER], **options}
    return http_connection_manager(json_format.ParseDict(body, message), "m")


def action(**options: Any) -> RouteAction:
    message = route_components_pb2.RouteAction()
    return route_action(json_format.ParseDict({"cluster": "c", **options}, message), "a", None)


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        ({"strip_any_host_port": True}, "strip_port", "ANY"),
        ({"strip_any_host_port": False}, "strip_port", "NO"),
        ({"strip_matching_host_port": True}, "strip_port", "MATCHING"),
        ({"strip_trailing_host_dot": True}, "strip_trailing_host_dot", True),
        ({"proxy_100_continue": True}, "proxy_100_continue", True),
        ({"append_x_forwarded_port": True}, "append_x_forwarded_port", True),
        ({"common_http_protocol_options": {"max_stream_duration": "2s"}}, "max_stream_duration", 2.0),
        (
            {"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}},
            "headers_with_underscores_action",
            "DROP_HEADER",
        ),
        ({"http_protocol_options": {"default_host_for_http_10": "h"}}, "default_host_for_http_10", "h"),
        (
            {"internal_address_config": {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}},
            "internal_cidr_ranges",
            (CidrRange("10.0.0.0", 8),),
        ),
    ],
)
def test_options_are_read(options: dict[str, Any], attribute: str, value: object) -> None:
    assert getattr(manager(**options), attribute) == value


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"strip_any_host_port": True, "strip_matching_host_port": True}, ".strip_matching_host_port"),
        (
            {"http_protocol_options": {"default_host_for_http_10": "a b"}},
            ".http_protocol_options.default_host_for_http_10",
        ),
        ({"original_ip_detection_extensions": [{"name": "x"}]}, ".original_ip_detection_extensions"),
        ({"forward_client_cert_matcher": {}}, ".forward_client_cert_matcher"),
        ({"early_header_mutation_extensions": [{"name": "x"}]}, ".early_header_mutation_extensions"),
        (
            {"internal_address_config": {"cidr_ranges": [{"address_prefix": "x", "prefix_len": 8}]}},
            ".internal_address_config.cidr_ranges[0].address_prefix",
        ),
        ({"upgrade_configs": [{"upgrade_type": "x", "filters": [ROUTER]}]}, ".upgrade_configs[0].filters"),
    ],
)
def test_managers_are_refused_by_their_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        manager(**options)
    assert caught.value.path == "m" + field


def test_upgrades_of_a_route_are_read() -> None:
    made = action(
        upgrade_configs=[
            {"upgrade_type": "websocket", "enabled": False},
            {"upgrade_type": "CONNECT", "connect_config": {}},
        ],
        max_stream_duration={"max_stream_duration": "3s"},
        append_x_forwarded_host=True,
    )
    assert made.upgrades == (("websocket", False), ("connect", True)) and made.terminates_connect
    assert made.stream_duration == StreamDuration(3.0) and made.append_x_forwarded_host


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"max_stream_duration": {}}, StreamDuration()),
        ({"max_stream_duration": {"max_stream_duration": "0s"}}, StreamDuration(0.0)),
        (
            {
                "max_stream_duration": {
                    "grpc_timeout_header_max": "0s",
                    "grpc_timeout_header_offset": "0.5s",
                }
            },
            StreamDuration(None, 0.0, 0.5),
        ),
    ],
)
def test_the_duration_of_streams(options: dict[str, Any], expected: StreamDuration | None) -> None:
    assert action(**options).stream_duration == expected


def test_the_deprecated_timeouts_of_grpc() -> None:
    made = action(max_grpc_timeout="3s", grpc_timeout_offset="0.5s")
    assert (made.max_grpc_timeout, made.grpc_timeout_offset) == (3.0, 0.5)
    assert (action().max_grpc_timeout, action().grpc_timeout_offset) == (None, 0.0)
    assert action(max_grpc_timeout="0s").max_grpc_timeout == 0.0


def test_grpc_conditions_of_retries_are_read() -> None:
    conditions = "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"
    policy = action(retry_policy={"retry_on": f"5xx, {conditions}"}).retry_policy
    assert policy is not None
    assert policy.retry_on == ("5xx", *conditions.split(","))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"upgrade_configs": [{}]}, ".upgrade_configs[0].upgrade_type"),
        (
            {"upgrade_configs": [{"upgrade_type": "x"}, {"upgrade_type": "X"}]},
            ".upgrade_configs[1].upgrade_type",
        ),
        (
            {"upgrade_configs": [{"upgrade_type": "websocket", "connect_config": {}}]},
            ".upgrade_configs[0].connect_config",
        ),
        (
            {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]},
            ".upgrade_configs[0].connect_config.allow_post",
        ),
        (
            {"max_stream_duration": {"grpc_timeout_header_max": "-1s"}},
            ".max_stream_duration.grpc_timeout_header_max",
        ),
        ({"max_grpc_timeout": "-1s"}, ".max_grpc_timeout"),
        ({"grpc_timeout_offset": "-1s"}, ".grpc_timeout_offset"),
        ({"hedge_policy": {"initial_requests": 2}}, ".hedge_policy"),
    ],
)
def test_routes_are_refused_by_their_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        action(**options)
    assert caught.value.path == "a" + field
