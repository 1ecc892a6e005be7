"""No field is passed over in silence: every field of every message that is read is either known or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from proxy.model.config import ConfigError
from proxy.xds.decode import (
    access_log,
    address,
    cluster,
    endpoint,
    headers,
    http,
    http2,
    listener,
    listener_filter,
    matcher,
    protocol_options,
    rbac,
    route,
    route_action,
    tcp_proxy,
    tls,
)
from proxy.xds.decode.resources import CLUSTER, ENDPOINT, KINDS, LISTENER, ROUTE, SECRET, decode
from tests.support.xds_messages import (
    SRV_CLUSTER,
    Steps,
    change,
    decode_message,
    decoded,
    field_path,
    message,
)

HTTP: Steps = ("filter_chains", 0, "filters", 1, "typed_config")
TCP: Steps = ("default_filter_chain", "filters", 0, "typed_config")
RULES: Steps = ("filter_chains", 0, "filters", 0, "typed_config", "rules")
POLICY: Steps = (*RULES, "policies", "p")
DOWNSTREAM: Steps = ("filter_chains", 0, "transport_socket", "typed_config")
COMMON: Steps = (*DOWNSTREAM, "common_tls_context")
COMBINED: Steps = (*COMMON, "combined_validation_context")
V_ROUTE: Steps = ("virtual_hosts", 0, "routes", 0)
ACTION: Steps = (*V_ROUTE, "route")
LB_ENDPOINT: Steps = ("endpoints", 0, "lb_endpoints", 0)
OPTIONS: Steps = (
    "typed_extension_protocol_options",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
)
UPSTREAM: Steps = ("transport_socket_matches", 0, "transport_socket", "typed_config")

# Where a message stands in the resource, and the fields of it that are known.
SITES: list[tuple[str, Steps, frozenset[str]]] = [
    (LISTENER, (), listener._LISTENER),
    (LISTENER, ("address",), address._ADDRESS),
    (LISTENER, ("address", "socket_address"), address._LISTEN_ADDRESS),
    (LISTENER, ("additional_addresses", 0), listener._ADDITIONAL),
    (LISTENER, ("additional_addresses", 0, "address", "socket_address"), address._SOCKET_ADDRESS),
    (LISTENER, ("listener_filters", 0), listener_filter._LISTENER_FILTER),
    (LISTENER, ("listener_filters", 0, "typed_config"), listener_filter._TLS_INSPECTOR),
    (LISTENER, ("filter_chains", 0), listener._CHAIN),
    (LISTENER, ("filter_chains", 0, "filter_chain_match"), listener._MATCH),
    (LISTENER, ("filter_chains", 0, "filter_chain_match", "prefix_ranges", 0), address._CIDR),
    (LISTENER, ("filter_chains", 0, "filters", 0), listener._FILTER),
    (LISTENER, ("filter_chains", 0, "filters", 0, "typed_config"), rbac._NETWORK_FILTER),
    (LISTENER, RULES, rbac._RULES),
    (LISTENER, POLICY, rbac._POLICY),
    (LISTENER, (*POLICY, "permissions", 0), rbac._PERMISSION),
    (LISTENER, (*POLICY, "permissions", 0, "and_rules"), rbac._SET_OF_PERMISSIONS),
    (LISTENER, (*POLICY, "permissions", 0, "and_rules", "rules", 0, "url_path"), rbac._PATH),
    (LISTENER, (*POLICY, "principals", 0), rbac._PRINCIPAL),
    (LISTENER, (*POLICY, "principals", 0, "or_ids", "ids", 0, "authenticated"), rbac._AUTHENTICATED),
    (LISTENER, HTTP, http._MANAGER),
    (LISTENER, (*HTTP, "rds"), http._RDS),
    (LISTENER, (*HTTP, "rds", "config_source"), tls._CONFIG_SOURCE),
    (LISTENER, (*HTTP, "common_http_protocol_options"), http._COMMON),
    (LISTENER, (*HTTP, "http_protocol_options"), http._HTTP1),
    (LISTENER, (*HTTP, "http2_protocol_options"), http2._OPTIONS),
    (LISTENER, (*HTTP, "http2_protocol_options", "connection_keepalive"), http2._KEEPALIVE),
    (LISTENER, (*HTTP, "http_filters", 0), http._FILTER),
    (LISTENER, (*HTTP, "http_filters", 0, "typed_config"), rbac._HTTP_FILTER),
    (LISTENER, (*HTTP, "http_filters", 1, "typed_config"), http._ROUTER),
    (LISTENER, (*HTTP, "upgrade_configs", 0), http._UPGRADE),
    (LISTENER, (*HTTP, "set_current_client_cert_details"), http._CERT_DETAILS),
    (LISTENER, (*HTTP, "access_log", 0), access_log._ACCESS_LOG),
    (LISTENER, (*HTTP, "access_log", 0, "typed_config"), access_log._FILE),
    (LISTENER, (*HTTP, "access_log", 0, "typed_config", "log_format"), access_log._FORMAT),
    (LISTENER, TCP, tcp_proxy._TCP_PROXY),
    (LISTENER, (*TCP, "weighted_clusters"), tcp_proxy._WEIGHTED),
    (LISTENER, (*TCP, "weighted_clusters", "clusters", 0), tcp_proxy._SHARE),
    (LISTENER, ("filter_chains", 0, "transport_socket"), tls._TRANSPORT_SOCKET),
    (LISTENER, DOWNSTREAM, tls._DOWNSTREAM),
    (LISTENER, COMMON, tls._COMMON),
    (LISTENER, (*COMMON, "tls_params"), tls._PARAMETERS),
    (LISTENER, (*COMMON, "tls_certificate_sds_secret_configs", 0), tls._SDS),
    (LISTENER, COMBINED, tls._COMBINED),
    (LISTENER, (*COMBINED, "default_validation_context"), tls._VALIDATION),
    (LISTENER, (*COMBINED, "default_validation_context", "match_typed_subject_alt_names", 0), tls._SAN),
    (ROUTE, (), route._ROUTE_CONFIGURATION),
    (ROUTE, ("virtual_hosts", 0), route._VIRTUAL_HOST),
    (ROUTE, V_ROUTE, route._ROUTE),
    (ROUTE, (*V_ROUTE, "match"), route._MATCH),
    (ROUTE, (*V_ROUTE, "match", "grpc"), route._EMPTY),
    (ROUTE, (*V_ROUTE, "match", "headers", 0), matcher._HEADER),
    (ROUTE, (*V_ROUTE, "match", "headers", 0, "string_match"), matcher._STRING),
    (ROUTE, (*V_ROUTE, "match", "query_parameters", 0), matcher._QUERY),
    (ROUTE, (*V_ROUTE, "request_headers_to_add", 0), headers._OPTION),
    (ROUTE, (*V_ROUTE, "request_headers_to_add", 0, "header"), headers._HEADER),
    (ROUTE, ACTION, route_action._ACTION),
    (ROUTE, (*ACTION, "max_stream_duration"), route_action._DURATION),
    (ROUTE, (*ACTION, "weighted_clusters"), route_action._WEIGHTED),
    (ROUTE, (*ACTION, "weighted_clusters", "clusters", 0), route_action._SHARE),
    (ROUTE, (*ACTION, "retry_policy"), route_action._RETRY),
    (ROUTE, (*ACTION, "retry_policy", "retry_back_off"), route_action._BACK_OFF),
    (ROUTE, (*ACTION, "retry_policy", "retry_host_predicate", 0), route_action._PREDICATE),
    (ROUTE, ("virtual_hosts", 0, "routes", 1, "match", "safe_regex"), matcher._REGEX),
    (ROUTE, ("virtual_hosts", 0, "routes", 1, "redirect"), route._REDIRECT),
    (ROUTE, ("virtual_hosts", 0, "routes", 2, "direct_response"), route._DIRECT_RESPONSE),
    (ROUTE, ("virtual_hosts", 0, "routes", 2, "direct_response", "body"), route._BODY),
    (CLUSTER, (), cluster._CLUSTER),
    (CLUSTER, ("eds_cluster_config",), cluster._EDS),
    (CLUSTER, ("circuit_breakers",), cluster._BREAKERS),
    (CLUSTER, ("circuit_breakers", "thresholds", 0), cluster._THRESHOLDS),
    (CLUSTER, ("common_lb_config",), cluster._COMMON_LB),
    (CLUSTER, ("least_request_lb_config",), cluster._LEAST_REQUEST),
    (CLUSTER, ("round_robin_lb_config",), cluster._EMPTY),
    (CLUSTER, ("original_dst_lb_config",), cluster._ORIGINAL_DST),
    (CLUSTER, ("upstream_bind_config",), address._BIND_CONFIG),
    (CLUSTER, ("upstream_bind_config", "extra_source_addresses", 0), address._EXTRA_SOURCE),
    (CLUSTER, ("upstream_bind_config", "socket_options", 0), address._SOCKET_OPTION),
    (CLUSTER, ("transport_socket_matches", 0), cluster._SOCKET_MATCH),
    (CLUSTER, UPSTREAM, tls._UPSTREAM),
    (CLUSTER, OPTIONS, protocol_options._OPTIONS),
    (CLUSTER, (*OPTIONS, "common_http_protocol_options"), protocol_options._COMMON),
    (CLUSTER, (*OPTIONS, "explicit_http_config"), protocol_options._EITHER),
    (CLUSTER, (*OPTIONS, "explicit_http_config", "http_protocol_options"), protocol_options._HTTP1),
    (CLUSTER, (*OPTIONS, "explicit_http_config", "http2_protocol_options"), http2._OPTIONS),
    (CLUSTER, (*OPTIONS, "auto_config"), protocol_options._EITHER),
    (CLUSTER, (*OPTIONS, "auto_config", "http_protocol_options"), protocol_options._HTTP1),
    (CLUSTER, (*OPTIONS, "use_downstream_protocol_config"), protocol_options._EITHER),
    (CLUSTER, ("typed_dns_resolver_config",), cluster._RESOLVER),
    (CLUSTER, ("typed_dns_resolver_config", "typed_config"), cluster._CARES),
    (ENDPOINT, (), endpoint._ASSIGNMENT),
    (ENDPOINT, ("policy",), endpoint._POLICY),
    (ENDPOINT, ("endpoints", 0), endpoint._LOCALITY),
    (ENDPOINT, ("endpoints", 0, "locality"), endpoint._LOCALITY_NAME),
    (ENDPOINT, LB_ENDPOINT, endpoint._LB_ENDPOINT),
    (ENDPOINT, (*LB_ENDPOINT, "metadata"), endpoint._METADATA),
    (ENDPOINT, (*LB_ENDPOINT, "endpoint"), endpoint._ENDPOINT),
    (SECRET, (), tls._SECRET),
    (SECRET, ("tls_certificate",), tls._CERTIFICATE),
    (SECRET, ("tls_certificate", "certificate_chain"), tls._DATA_SOURCE),
]


def set_field(target: Any, field: FieldDescriptor) -> None:
    """Give ``field`` some value that is not its default."""
    value = getattr(target, field.name)
    if field.is_repeated:
        if field.message_type is None:
            value.append("x" if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 1)
        elif not field.message_type.GetOptions().map_entry:
            value.add()
        elif field.message_type.fields_by_name["value"].message_type is not None:
            value.get_or_create("x")
        else:
            value["x"] = "x"
    elif field.message_type is not None:
        value.SetInParent()
    elif field.enum_type is not None:
        setattr(target, field.name, next(v.number for v in field.enum_type.values if v.number))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(target, field.name, b"x")
    else:
        setattr(target, field.name, "x" if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 1)


@pytest.mark.parametrize(("type_url", "steps", "known"), SITES, ids=lambda value: "")
def test_every_field_that_is_not_known_is_refused_by_its_path(
    type_url: str, steps: Steps, known: frozenset[str]
) -> None:
    found: list[Any] = []
    change(message(type_url), steps, lambda target: found.append(target.DESCRIPTOR))
    names = [field.name for field in found[0].fields]
    assert known.issubset(names), "a known field that the message does not have"
    for field in found[0].fields:
        if field.name in known:
            continue
        made = message(type_url)
        path = field_path(type_url, made, steps)
        change(made, steps, lambda target, field=field: set_field(target, field))  # type: ignore[misc]
        with pytest.raises(ConfigError) as caught:
            decode_message(type_url, made)
        assert caught.value.path == f"{path}.{field.name}"
        assert "not supported" in caught.value.message


@pytest.mark.parametrize(("type_url", "steps", "known"), SITES, ids=lambda value: "")
def test_a_field_newer_than_the_schema_is_refused(type_url: str, steps: Steps, known: frozenset[str]) -> None:
    made = message(type_url)
    path = field_path(type_url, made, steps)
    change(made, steps, lambda target: target.MergeFromString(b"\xfa\xff\x03\x01x"))  # field 8191, one byte
    with pytest.raises(ConfigError, match="field number 8191") as caught:
        decode_message(type_url, made)
    assert caught.value.path == path


@pytest.mark.parametrize("type_url", [LISTENER, CLUSTER, ENDPOINT, ROUTE, SECRET])
def test_the_bases_of_this_table_are_good(type_url: str) -> None:
    assert decoded(type_url) == decoded(type_url)


@pytest.mark.parametrize("field", ["type_url", "value"])
def test_a_dns_srv_cluster_names_its_own_struct(field: str) -> None:
    made = message(CLUSTER, SRV_CLUSTER)
    change(made, ("cluster_type", "typed_config"), lambda target: target.ClearField(field))
    with pytest.raises(ConfigError) as caught:
        decode_message(CLUSTER, made)
    start = "cluster[srv].cluster_type.typed_config"
    assert caught.value.path == f"{start}.type_url" if field == "type_url" else f"{start}.value.srv_name"


def test_a_name_that_differs_from_the_resource_s_is_refused() -> None:
    value = message(SECRET).SerializeToString()
    with pytest.raises(ConfigError, match=r"secret\[other\]: its name is 'pair'"):
        decode(KINDS[SECRET], "other", SECRET, value)
    with pytest.raises(ConfigError, match="not a "):
        decode(KINDS[SECRET], "pair", CLUSTER, value)
    with pytest.raises(ConfigError, match="not a "):
        decode(KINDS[SECRET], "pair", SECRET, b"\xff\xff")
