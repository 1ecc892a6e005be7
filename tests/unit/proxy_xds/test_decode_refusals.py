"""Values that cannot be used are refused with the path of the field that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from proxy.model.config import ConfigError
from proxy.xds.decode import rbac
from proxy.xds.decode.resources import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from tests.support.xds_messages import (
    ADS,
    ROUTER,
    SRV_CLUSTER,
    Steps,
    change,
    decode_message,
    decoded,
    field_path,
    message,
)

HTTP: Steps = ("filter_chains", 0, "filters", 1, "typed_config")
COMMON: Steps = ("filter_chains", 0, "transport_socket", "typed_config", "common_tls_context")
POLICY: Steps = ("filter_chains", 0, "filters", 0, "typed_config", "rules", "policies", "p")
HTTP_LIMITS: Steps = (
    "typed_extension_protocol_options",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "common_http_protocol_options",
)
ROUTE_0: Steps = ("virtual_hosts", 0, "routes", 0)
LB_ENDPOINT: Steps = ("endpoints", 0, "lb_endpoints", 0)


def merge(body: dict[str, Any]) -> Callable[[Any], None]:
    """Put ``body`` (JSON) into a message; lists replace what was there."""

    def how(target: Any) -> None:
        for key in body:
            target.ClearField(key)
        json_format.ParseDict(body, target)

    return how


# Type, where, what is put there, the field that the path names, and words of the message.
REFUSED: list[tuple[str, Steps, dict[str, Any], str, str]] = [
    (LISTENER, (), {"name": ""}, ".name", "is required"),
    (LISTENER, (), {"address": {"pipe": {"path": "/x"}}}, ".address.pipe", "not supported"),
    (LISTENER, ("address", "socket_address"), {"address": "localhost"}, ".address", "not an IP address"),
    (LISTENER, ("address", "socket_address"), {"address": "fe80::1%eth0"}, ".address", "not an IP address"),
    (LISTENER, ("address", "socket_address"), {"port_value": 65536}, ".port_value", "not a port"),
    (LISTENER, ("address", "socket_address"), {"protocol": "UDP"}, ".protocol", "UDP is not supported"),
    (LISTENER, (), {"listener_filters_timeout": "-1s"}, ".listener_filters_timeout", "out of range"),
    (LISTENER, (), {"tcp_backlog_size": 0}, ".tcp_backlog_size", "not from 1"),
    (LISTENER, ("filter_chains", 0), {"filters": []}, ".filters", "the last filter must be"),
    (
        LISTENER,
        ("filter_chains", 0, "filter_chain_match"),
        {"transport_protocol": "quic"},
        ".transport_protocol",
        "quic",
    ),
    (
        LISTENER,
        ("filter_chains", 0, "filter_chain_match"),
        {"destination_port": 0},
        ".destination_port",
        "not a port",
    ),
    (
        LISTENER,
        ("filter_chains", 0, "filter_chain_match"),
        {"server_names": ["a.*.b"]},
        ".server_names[0]",
        "wildcard",
    ),
    (
        LISTENER,
        ("filter_chains", 0, "filter_chain_match", "prefix_ranges", 0),
        {"prefix_len": 33},
        ".prefix_len",
        "longer than 32",
    ),
    (
        LISTENER,
        ("filter_chains", 0, "filter_chain_match", "prefix_ranges", 0),
        {"address_prefix": "x"},
        ".address_prefix",
        "not an IP",
    ),
    (LISTENER, HTTP, {"stat_prefix": ""}, ".stat_prefix", "is required"),
    (
        LISTENER,
        HTTP,
        {"rds": {"route_config_name": "", "config_source": ADS}},
        ".rds.route_config_name",
        "is required",
    ),
    (LISTENER, HTTP, {"rds": {"route_config_name": "80"}}, ".rds.config_source", "without ads"),
    (LISTENER, HTTP, {"codec_type": "HTTP3"}, ".codec_type", "HTTP3 is not supported"),
    (LISTENER, HTTP, {"http_filters": []}, ".http_filters", "the last filter must be"),
    (LISTENER, HTTP, {"http_filters": [ROUTER, ROUTER]}, ".http_filters[1]", "never reached"),
    (LISTENER, HTTP, {"max_request_headers_kb": 0}, ".max_request_headers_kb", "not from 1 to 8192"),
    (
        LISTENER,
        HTTP,
        {"common_http_protocol_options": {"max_headers_count": 0}},
        ".common_http_protocol_options.max_headers_count",
        "at least 1",
    ),
    (LISTENER, HTTP, {"server_name": "a\r\nb: c"}, ".server_name", "control character"),
    (LISTENER, HTTP, {"via": "a\x00"}, ".via", "control character"),
    (
        LISTENER,
        HTTP,
        {"upgrade_configs": [{"upgrade_type": "CONNECT"}, {"upgrade_type": "connect"}]},
        ".upgrade_configs[1].upgrade_type",
        "twice",
    ),
    (
        LISTENER,
        HTTP,
        {"http_protocol_options": {"allow_absolute_url": False}},
        ".http_protocol_options.allow_absolute_url",
        "only true",
    ),
    (LISTENER, COMMON, {"tls_certificate_sds_secret_configs": []}, "", "a server needs"),
    (LISTENER, COMMON, {"alpn_protocols": [""]}, ".alpn_protocols[0]", "1 to 255 bytes"),
    (
        LISTENER,
        (*COMMON, "tls_params"),
        {"tls_minimum_protocol_version": "TLSv1_0"},
        ".tls_minimum_protocol_version",
        "TLSv1_0 is not supported",
    ),
    (
        LISTENER,
        (*COMMON, "tls_params"),
        {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_2"},
        "",
        "above the maximum",
    ),
    (LISTENER, POLICY, {"permissions": []}, ".permissions", "is empty"),
    (LISTENER, POLICY, {"principals": [{}]}, ".principals[0]", "one identifier"),
    (LISTENER, POLICY, {"permissions": [{"any": False}]}, ".permissions[0].any", "must be true"),
    (LISTENER, POLICY, {"permissions": [{"or_rules": {}}]}, ".permissions[0].or_rules.rules", "is empty"),
    (
        LISTENER,
        POLICY,
        {"permissions": [{"destination_port": 65536}]},
        ".permissions[0].destination_port",
        "not a port",
    ),
    (
        LISTENER,
        ("filter_chains", 0, "filters", 0, "typed_config", "rules"),
        {"action": "LOG"},
        ".action",
        "LOG is not supported",
    ),
    (ROUTE, (), {"validate_clusters": True}, ".validate_clusters", "only false"),
    (ROUTE, ("virtual_hosts", 0), {"domains": []}, ".domains", "is empty"),
    (ROUTE, ("virtual_hosts", 0), {"domains": ["a", "A"]}, ".domains[1]", "already"),
    (ROUTE, ("virtual_hosts", 0), {"domains": ["a.*.b"]}, ".domains[0]", "first or the last"),
    (ROUTE, ("virtual_hosts", 0), {"domains": ["**"]}, ".domains[0]", "first or the last"),
    (ROUTE, ("virtual_hosts", 0), {"name": ""}, ".name", "is required"),
    (ROUTE, ROUTE_0, {"route": {}}, ".route", "has no cluster"),
    (
        ROUTE,
        (*ROUTE_0, "match"),
        {"path_separated_prefix": "/x/"},
        ".path_separated_prefix",
        "must begin with",
    ),
    (ROUTE, (*ROUTE_0, "match"), {"safe_regex": {"regex": ""}}, ".safe_regex.regex", "is required"),
    (ROUTE, (*ROUTE_0, "match", "headers", 0), {"string_match": {}}, ".string_match", "no pattern"),
    (
        ROUTE,
        (*ROUTE_0, "match", "headers", 0),
        {"string_match": {"prefix": ""}},
        ".string_match.prefix",
        "is empty",
    ),
    (ROUTE, (*ROUTE_0, "route"), {"timeout": "-1s"}, ".timeout", "out of range"),
    (ROUTE, (*ROUTE_0, "route"), {"priority": "HIGH"}, ".priority", "HIGH is not supported"),
    (ROUTE, (*ROUTE_0, "route"), {"prefix_rewrite": "/a b"}, ".prefix_rewrite", "white space"),
    (ROUTE, (*ROUTE_0, "route"), {"host_rewrite_literal": "a\r\nb"}, ".host_rewrite_literal", "white space"),
    (
        ROUTE,
        (*ROUTE_0, "route", "weighted_clusters"),
        {"clusters": [{"name": "c", "weight": 0}]},
        ".clusters",
        "weights are 0",
    ),
    (ROUTE, (*ROUTE_0, "route", "weighted_clusters"), {"total_weight": 100}, ".total_weight", "sum is 1"),
    (
        ROUTE,
        (*ROUTE_0, "route", "retry_policy"),
        {"retry_on": "5xx,full-moon"},
        ".retry_on",
        "'full-moon' is not supported",
    ),
    (
        ROUTE,
        (*ROUTE_0, "route", "retry_policy"),
        {"retry_back_off": {"base_interval": "2s", "max_interval": "1s"}},
        ".retry_back_off.max_interval",
        "below base_interval",
    ),
    (
        ROUTE,
        (*ROUTE_0, "request_headers_to_add", 0),
        {"header": {"key": ":path", "value": "/"}},
        ".header.key",
        "':path'",
    ),
    (
        ROUTE,
        (*ROUTE_0, "request_headers_to_add", 0),
        {"header": {"key": "Host", "value": "x"}},
        ".header.key",
        "'Host'",
    ),
    (
        ROUTE,
        (*ROUTE_0, "request_headers_to_add", 0),
        {"header": {"key": "a b", "value": "x"}},
        ".header.key",
        "not a header name",
    ),
    (
        ROUTE,
        (*ROUTE_0, "request_headers_to_add", 0),
        {"header": {"key": "a", "value": "x\r\nb: c"}},
        ".header.value",
        "control character",
    ),
    (
        ROUTE,
        ROUTE_0,
        {"request_headers_to_remove": ["a:"]},
        ".request_headers_to_remove[0]",
        "not a header name",
    ),
    (
        ROUTE,
        ("virtual_hosts", 0, "routes", 1),
        {"redirect": {"host_redirect": "a\nb"}},
        ".redirect.host_redirect",
        "white space",
    ),
    (
        ROUTE,
        ("virtual_hosts", 0, "routes", 1),
        {"redirect": {"scheme_redirect": "ftp"}},
        ".redirect.scheme_redirect",
        "'ftp'",
    ),
    (ROUTE, ("virtual_hosts", 0, "routes", 2, "direct_response"), {"status": 99}, ".status", "not from 200"),
    (
        ROUTE,
        ("virtual_hosts", 0, "routes", 2, "direct_response"),
        {"body": {"inline_string": "x" * 4097}},
        ".body",
        "allows 4096",
    ),
    (CLUSTER, (), {"type": "STATIC"}, ".load_assignment", "is required with type STATIC"),
    (
        CLUSTER,
        (),
        {"type": "STATIC", "load_assignment": {"cluster_name": "c"}},
        ".eds_cluster_config",
        "does not go with",
    ),
    (CLUSTER, (), {"type": "ORIGINAL_DST"}, ".lb_policy", "belong together"),
    (CLUSTER, (), {"lb_policy": "RING_HASH"}, ".lb_policy", "RING_HASH is not supported"),
    (CLUSTER, (), {"connect_timeout": "0s"}, ".connect_timeout", "above 0"),
    (CLUSTER, HTTP_LIMITS, {"max_response_headers_kb": 0}, ".max_response_headers_kb", "1 to 8192"),
    (CLUSTER, HTTP_LIMITS, {"max_response_headers_kb": 8193}, ".max_response_headers_kb", "1 to 8192"),
    (CLUSTER, HTTP_LIMITS, {"max_headers_count": 0}, ".max_headers_count", "at least 1"),
    (
        CLUSTER,
        (),
        {"least_request_lb_config": {"choice_count": 1}},
        ".least_request_lb_config.choice_count",
        "at least 2",
    ),
    (
        CLUSTER,
        ("circuit_breakers",),
        {"thresholds": [{"priority": "HIGH"}]},
        ".thresholds[0].priority",
        "HIGH",
    ),
    (
        CLUSTER,
        ("common_lb_config",),
        {"healthy_panic_threshold": {"value": 101}},
        ".healthy_panic_threshold.value",
        "not from 0 to 100",
    ),
    (
        CLUSTER,
        ("upstream_bind_config", "socket_options", 0),
        {"state": "STATE_BOUND"},
        ".state",
        "STATE_BOUND",
    ),
    (
        CLUSTER,
        ("upstream_bind_config", "socket_options", 0),
        {"int_value": str(2**31)},
        ".int_value",
        "not a C int",
    ),
    (
        CLUSTER,
        ("transport_socket_matches", 0),
        {"match": {"tlsMode": 1}},
        ".match.tlsMode",
        "must be a string",
    ),
    (ENDPOINT, ("endpoints", 0), {"priority": 129}, ".priority", "above 128"),
    (ENDPOINT, LB_ENDPOINT, {"load_balancing_weight": 0}, ".load_balancing_weight", "at least 1"),
    (
        ENDPOINT,
        (*LB_ENDPOINT, "endpoint", "address", "socket_address"),
        {"address": "db"},
        ".address",
        "not an IP address",
    ),
    (
        ENDPOINT,
        (*LB_ENDPOINT, "endpoint", "address", "socket_address"),
        {"address": "fe80::1%eth0"},
        ".address",
        "not an IP address",
    ),
    (SECRET, ("tls_certificate",), {"private_key": {}}, ".private_key", "is empty"),
    (
        SECRET,
        ("tls_certificate",),
        {"private_key": {"inline_string": ""}},
        ".private_key.inline_string",
        "is empty",
    ),
]


@pytest.mark.parametrize(
    ("type_url", "steps", "body", "field", "words"),
    REFUSED,
    ids=lambda v: v if isinstance(v, str) and v.startswith(".") else "",
)
def test_refused(type_url: str, steps: Steps, body: dict[str, Any], field: str, words: str) -> None:
    made = message(type_url)
    change(made, steps, merge(body))
    with pytest.raises(ConfigError) as caught:
        decode_message(type_url, made)
    assert caught.value.path == field_path(type_url, made, steps) + field
    assert words in caught.value.message


def test_filter_of_an_unknown_type_is_refused_by_type() -> None:
    made = message(LISTENER)
    empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    change(made, HTTP, merge({"http_filters": [{"name": "wasm", "typed_config": empty}, ROUTER]}))
    with pytest.raises(
        ConfigError, match=r"google\.protobuf\.Empty is not supported by Tulle's sidecar"
    ) as caught:
        decode_message(LISTENER, made)
    assert (
        caught.value.path
        == "listener[l].filter_chains[0].filters[1].typed_config.http_filters[0].typed_config"
    )


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"srv_name": ""}, ".srv_name"),
        ({"srv_name": 1}, ".srv_name"),
        ({"min_ttl": "soon"}, ".min_ttl"),
        ({"min_ttl": "0s"}, ".min_ttl"),
        ({"min_ttl": "301s"}, ".min_ttl"),
        ({"max_ttl": "99999999999s"}, ".max_ttl"),
        ({"resolvers": "10.0.0.1:53"}, ".resolvers"),
        ({"resolvers": ["10.0.0.1"]}, ".resolvers[0]"),
        ({"resolvers": ["10.0.0.1:0"]}, ".resolvers[0]"),
        ({"resolvers": ["10.0.0.1:53", "ns.example.org:53"]}, ".resolvers[1]"),
        ({"weight": "x"}, ".weight"),
    ],
)
def test_dns_srv_values(value: dict[str, Any], field: str) -> None:
    made = message(CLUSTER, SRV_CLUSTER)
    change(made, ("cluster_type", "typed_config", "value"), lambda struct: struct.update(value))
    with pytest.raises(ConfigError) as caught:
        decode_message(CLUSTER, made)
    assert caught.value.path == f"cluster[srv].cluster_type.typed_config.value{field}"


@pytest.mark.parametrize("kind", ["and_rules", "not_rule"])
def test_rules_are_nested_at_most_so_deep(kind: str) -> None:
    def nested(depth: int) -> dict[str, Any]:
        inner: dict[str, Any] = {"any": True}
        for _ in range(depth - 1):
            inner = {"not_rule": inner} if kind == "not_rule" else {"and_rules": {"rules": [inner]}}
        return inner

    def listener(depth: int) -> Any:
        made = message(LISTENER)
        change(made, POLICY, merge({"permissions": [nested(depth)]}))
        return made

    decode_message(LISTENER, listener(rbac.MAX_DEPTH))
    with pytest.raises(ConfigError, match=f"deeper than {rbac.MAX_DEPTH} levels"):
        decode_message(LISTENER, listener(rbac.MAX_DEPTH + 1))


def test_logical_dns_has_one_endpoint() -> None:
    one = {"endpoint": {"address": {"socket_address": {"address": "a.test", "port_value": 1}}}}
    endpoints = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [one, one]}]}
    with pytest.raises(ConfigError, match="exactly one endpoint, not 2"):
        decoded(CLUSTER, {"name": "c", "type": "LOGICAL_DNS", "load_assignment": endpoints})
