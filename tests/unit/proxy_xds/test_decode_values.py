"""What resources decode to: values where they are set, Envoy's defaults where they are not."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.model.access_log import FileAccessLog, JsonLogFormat, TextLogFormat
from proxy.model.address import BindConfig, CidrRange, SocketAddress, SocketOption
from proxy.model.cluster import CircuitBreakers, Cluster, DnsSrv, Endpoint, LoadAssignment, LocalityEndpoints
from proxy.model.config import ConfigError
from proxy.model.listener import FilterChainMatch, HttpConnectionManager, Listener, TcpProxy, TlsInspector
from proxy.model.matcher import HeaderMatcher, PathMatcher, QueryParameterMatcher, StringMatcher
from proxy.model.rbac import AndRules, AuthenticatedRule, OrRules, Policy, Rbac, UrlPathRule
from proxy.model.route import (
    DirectResponseAction,
    HeaderMutations,
    HeaderValueOption,
    RedirectAction,
    RequestBuffers,
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
    WeightedCluster,
)
from proxy.model.tls import (
    CommonTls,
    DataSource,
    DownstreamTls,
    SanMatcher,
    Secret,
    SecretRef,
    TlsCertificate,
    UpstreamTls,
    ValidationContext,
)
from proxy.xds.decode.resources import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, references
from tests.support.xds_messages import LISTENERS, ROUTER, SRV_CLUSTER, decoded

RBAC = Rbac(
    "ALLOW",
    (
        Policy(
            "p",
            (AndRules((UrlPathRule(StringMatcher("prefix", "/")),)),),
            (OrRules((AuthenticatedRule(StringMatcher("exact", "spiffe://td/a")),)),),
        ),
    ),
)
TLS = CommonTls(
    certificate_secrets=(SecretRef("default"),),
    validation=ValidationContext(None, (SanMatcher("URI", StringMatcher("exact", "spiffe://td/a")),)),
    validation_secret=SecretRef("ROOTCA", from_ads=True),
    alpn_protocols=("tulle",),
)


def manager(**options: Any) -> HttpConnectionManager:
    """A connection manager with only what is required, and ``options``."""
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {},
        "http_filters": [ROUTER],
        **options,
    }
    body = {
        "name": "l",
        "address": {"socket_address": {"address": "::", "port_value": 1, "ipv4_compat": True}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": config}]}],
    }
    found = decoded(LISTENER, body).filter_chains[0].terminal
    assert isinstance(found, HttpConnectionManager)
    return found


def route(**body: Any) -> Route:
    """One route; what is not given is a prefix match to cluster c."""
    made = {"match": {"prefix": "/"}, **body}
    if not made.keys() & {"redirect", "direct_response"}:
        made["route"] = {"cluster": "c", **made.get("route", {})}
    found = decoded(
        ROUTE, {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [made]}]}
    )
    return found.virtual_hosts[0].routes[0]  # type: ignore[no-any-return]


def test_listener() -> None:
    found = decoded(LISTENER)
    assert isinstance(found, Listener)
    assert (found.name, found.address) == ("l", SocketAddress("0.0.0.0", 15006))
    assert found.additional_addresses == (SocketAddress("::1", 15006),)
    assert found.listener_filters == (TlsInspector(),)
    chain = found.filter_chains[0]
    assert chain.match == FilterChainMatch(prefix_ranges=(CidrRange("10.0.0.0", 8),))
    assert chain.tls == DownstreamTls(TLS, require_client_certificate=True)
    assert chain.rbac == (Rbac("ALLOW", RBAC.policies, "net"),)
    http = chain.terminal
    assert isinstance(http, HttpConnectionManager)
    assert (http.route, http.rbac, http.upgrade_types) == ("80", (RBAC,), ("websocket",))
    assert http.idle_timeout == 60.0
    assert http.access_log == (
        FileAccessLog(
            "/dev/stdout",
            JsonLogFormat(
                (
                    ("code", "%RESPONSE_CODE%"),
                    ("in", JsonLogFormat((("b", (True, None, 1.5)),))),
                    ("n", 1),
                )
            ),
        ),
    )
    assert found.default_filter_chain is not None
    assert found.default_filter_chain.terminal == TcpProxy("tcp", (WeightedCluster("c", 1),))


def test_what_a_listener_refers_to() -> None:
    ref = "type.googleapis.com/envoy."
    assert references(decoded(LISTENER)) == (
        (f"{ref}extensions.transport_sockets.tls.v3.Secret", "ROOTCA"),
        (f"{ref}config.route.v3.RouteConfiguration", "80"),
    )


def test_what_a_cluster_refers_to() -> None:
    assert references(decoded(CLUSTER)) == ((ENDPOINT, "s"), (SECRET, "ROOTCA"))


def test_listener_defaults_are_envoys() -> None:
    body = {
        "name": "l",
        "address": {"socket_address": {"address": "::", "port_value": 1, "ipv4_compat": True}},
        "filter_chains": [LISTENERS["default_filter_chain"]],
    }
    found = decoded(LISTENER, body)
    assert found == Listener("l", SocketAddress("::", 1), filter_chains=found.filter_chains, ipv4_compat=True)
    assert found.bind_to_port
    assert found.listener_filters_timeout == 15.0
    assert found.per_connection_buffer_limit_bytes == 1024 * 1024


def test_connection_manager_defaults_are_envoys() -> None:
    found = manager()
    assert found == HttpConnectionManager(stat_prefix="in", route=found.route)
    assert found.stream_idle_timeout == 300.0
    assert found.max_request_headers_kb == 60
    assert found.forward_client_cert_details == "SANITIZE"


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        ({"codec_type": "HTTP1"}, "codec_type", "HTTP1"),
        ({"stream_idle_timeout": "0s"}, "stream_idle_timeout", 0.0),
        ({"request_timeout": "1.5s"}, "request_timeout", 1.5),
        ({"generate_request_id": False}, "generate_request_id", False),
        ({"use_remote_address": True}, "use_remote_address", True),
        ({"normalize_path": True}, "normalize_path", True),
        ({"merge_slashes": True}, "merge_slashes", True),
        (
            {"path_with_escaped_slashes_action": "IMPLEMENTATION_SPECIFIC_DEFAULT"},
            "path_with_escaped_slashes_action",
            "KEEP_UNCHANGED",
        ),
        (
            {"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"},
            "path_with_escaped_slashes_action",
            "UNESCAPE_AND_REDIRECT",
        ),
        ({"forward_client_cert_details": "SANITIZE_SET"}, "forward_client_cert_details", "SANITIZE_SET"),
        ({"http_protocol_options": {"accept_http_10": True}}, "accept_http_10", True),
        ({"http_protocol_options": {"allow_custom_methods": True}}, "allow_custom_methods", True),
        ({"common_http_protocol_options": {"max_headers_count": 7}}, "max_headers_count", 7),
        ({"upgrade_configs": [{"upgrade_type": "a", "enabled": False}]}, "upgrade_types", ()),
        ({"server_header_transformation": "PASS_THROUGH"}, "server_header_transformation", "PASS_THROUGH"),
    ],
)
def test_connection_manager_options(options: dict[str, Any], attribute: str, value: object) -> None:
    assert getattr(manager(**options), attribute) == value


def test_an_optional_filter_may_be_unknown() -> None:
    unknown = {"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    assert manager(http_filters=[{**unknown, "is_optional": True}, ROUTER]).rbac == ()


def test_an_rbac_filter_without_rules_is_no_filter() -> None:
    rbac = {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}
    assert manager(http_filters=[{"name": "rbac", "typed_config": rbac}, ROUTER]).rbac == ()


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            {"@type": "file.v3.FileAccessLog", "path": "/l", "format": "x\n"},
            FileAccessLog("/l", TextLogFormat("x\n")),
        ),
        ({"@type": "file.v3.FileAccessLog", "path": "/l"}, FileAccessLog("/l")),
        ({"@type": "stream.v3.StdoutAccessLog"}, FileAccessLog("/dev/stdout")),
        (
            {
                "@type": "stream.v3.StderrAccessLog",
                "log_format": {
                    "text_format_source": {"inline_string": "%BYTES_SENT%"},
                    "omit_empty_values": True,
                },
            },
            FileAccessLog("/dev/stderr", TextLogFormat("%BYTES_SENT%"), True),
        ),
    ],
)
def test_access_logs(log: dict[str, Any], expected: FileAccessLog) -> None:
    config = {**log, "@type": f"type.googleapis.com/envoy.extensions.access_loggers.{log['@type']}"}
    assert manager(access_log=[{"name": "x", "typed_config": config}]).access_log == (expected,)


def test_route_defaults_are_envoys() -> None:
    assert route() == Route(
        "", RouteMatch(PathMatcher("prefix", "/")), RouteAction((WeightedCluster("c", 1),))
    )


def test_route() -> None:
    first, second, third = decoded(ROUTE).virtual_hosts[0].routes
    assert first.match == RouteMatch(
        PathMatcher("prefix", "/"),
        (HeaderMatcher("h", StringMatcher("exact", "x")),),
        (QueryParameterMatcher("q"),),
    )
    assert first.headers == HeaderMutations((HeaderValueOption("a", "b"),))
    assert first.action == RouteAction(
        (WeightedCluster("c", 1),), retry_policy=RetryPolicy(("5xx",), base_interval=1.0, max_interval=10.0)
    )
    assert second.action == RedirectAction(scheme="https")
    assert third.action == DirectResponseAction(200, b"hi")


@pytest.mark.parametrize(
    ("action", "attribute", "value"),
    [
        ({"timeout": "0s"}, "timeout", 0.0),
        ({"timeout": "0.25s"}, "timeout", 0.25),
        ({"idle_timeout": "3s"}, "idle_timeout", 3.0),
        ({"cluster_not_found_response_code": "NOT_FOUND"}, "cluster_not_found_response_code", 404),
        ({"prefix_rewrite": "/x"}, "prefix_rewrite", "/x"),
        ({"host_rewrite_literal": "h"}, "host_rewrite_literal", "h"),
        (
            {"retry_policy": {"retry_on": "5xx, reset", "num_retries": 3, "per_try_timeout": "1s"}},
            "retry_policy",
            RetryPolicy(("5xx", "reset"), 3, 1.0),
        ),
    ],
)
def test_route_actions(action: dict[str, Any], attribute: str, value: object) -> None:
    assert getattr(route(route=action).action, attribute) == value


def test_a_virtual_host_s_buffer_limits_are_its_routes_default() -> None:
    routes = [
        {"match": {"prefix": "/own"}, "route": {"cluster": "c"}, "per_request_buffer_limit_bytes": 5},
        {"match": {"prefix": "/"}, "route": {"cluster": "c"}},
    ]
    host = {"name": "v", "domains": ["*"], "request_body_buffer_limit": 7, "routes": routes}
    found = decoded(ROUTE, {"name": "r", "virtual_hosts": [host]}).virtual_hosts[0].routes
    assert [r.buffers for r in found] == [RequestBuffers(5), RequestBuffers(None, 7)]
    both = {**host, "per_request_buffer_limit_bytes": 1}
    with pytest.raises(ConfigError, match="exclude each other"):
        decoded(ROUTE, {"name": "r", "virtual_hosts": [both]})


def test_a_virtual_host_s_retry_policy_is_its_routes_default() -> None:
    routes = [
        {"match": {"prefix": "/own"}, "route": {"cluster": "c", "retry_policy": {"retry_on": "reset"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "c"}},
    ]
    host = {"name": "v", "domains": ["*"], "retry_policy": {"retry_on": "5xx"}, "routes": routes}
    found = decoded(ROUTE, {"name": "r", "virtual_hosts": [host]}).virtual_hosts[0].routes
    assert [r.action.retry_policy.retry_on for r in found] == [("reset",), ("5xx",)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"present_match": False}, HeaderMatcher("h", present=False)),
        ({}, HeaderMatcher("h")),
        (
            {"exact_match": "v", "invert_match": True},
            HeaderMatcher("h", StringMatcher("exact", "v"), True, True),
        ),
        ({"prefix_match": "v"}, HeaderMatcher("h", StringMatcher("prefix", "v"))),
        ({"safe_regex_match": {"regex": "v.*"}}, HeaderMatcher("h", StringMatcher("safe_regex", "v.*"))),
        (
            {"string_match": {"suffix": "v", "ignore_case": True}, "treat_missing_header_as_empty": True},
            HeaderMatcher("h", StringMatcher("suffix", "v", True), treat_missing_header_as_empty=True),
        ),
    ],
)
def test_header_matchers(header: dict[str, Any], expected: HeaderMatcher) -> None:
    assert route(match={"prefix": "/", "headers": [{"name": "h", **header}]}).match.headers == (expected,)


@pytest.mark.parametrize(
    ("option", "action"),
    [
        ({}, "APPEND_IF_EXISTS_OR_ADD"),
        ({"append": True}, "APPEND_IF_EXISTS_OR_ADD"),
        ({"append": False}, "OVERWRITE_IF_EXISTS_OR_ADD"),
        ({"append_action": "ADD_IF_ABSENT"}, "ADD_IF_ABSENT"),
    ],
)
def test_header_append_actions(option: dict[str, Any], action: str) -> None:
    found = route(response_headers_to_add=[{"header": {"key": "a", "value": "b"}, **option}])
    assert [o.append_action for o in found.headers.response_add] == [action]


def test_cluster() -> None:
    found = decoded(CLUSTER)
    assert isinstance(found, Cluster)
    assert (found.type, found.eds_service_name, found.idle_timeout) == ("EDS", "s", 30.0)
    assert found.circuit_breakers == CircuitBreakers(max_connections=7)
    assert found.panic_threshold == 10.0
    assert found.bind_config == BindConfig(
        SocketAddress("127.0.0.6", 0), (SocketAddress("::6", 0),), (SocketOption(1, 36, 1337),)
    )
    secured, plain = found.transport_socket_matches
    assert secured.match == (("tlsMode", "tulle"),)
    # Envoy's client goes up to TLS 1.2 where it is not told to go further.
    common = CommonTls(
        (), TLS.certificate_secrets, TLS.validation, TLS.validation_secret, ("tulle",), "TLSv1_2", "TLSv1_2"
    )
    assert secured.tls == UpstreamTls(common, "outbound_.80_._.a")
    assert (plain.match, plain.tls) == ((), None)
    assert found.dns_resolvers == (SocketAddress("10.0.0.1", 53),)


def test_cluster_defaults_are_envoys() -> None:
    endpoints = {"cluster_name": "c"}
    found = decoded(CLUSTER, {"name": "c", "type": "STATIC", "load_assignment": endpoints})
    assert found == Cluster("c", "STATIC", load_assignment=LoadAssignment("c"))
    assert (found.connect_timeout, found.choice_count, found.panic_threshold) == (5.0, 2, 50.0)


HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (80, 100)),
        ({"max_response_headers_kb": 8192, "max_headers_count": 7}, (8192, 7)),
    ],
)
def test_limits_of_response_heads(options: dict[str, int], expected: tuple[int, int]) -> None:
    protocol = {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": options,
    }
    found = decoded(
        CLUSTER,
        {
            "name": "c",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "c"},
            "typed_extension_protocol_options": {HTTP_OPTIONS: protocol},
        },
    )
    assert isinstance(found, Cluster)
    assert (found.max_response_headers_kb, found.max_headers_count) == expected


@pytest.mark.parametrize("kind", ["STRICT_DNS", "LOGICAL_DNS"])
def test_endpoints_of_dns_clusters_may_be_names(kind: str) -> None:
    address = {"socket_address": {"address": "db.example.org", "port_value": 5432}}
    endpoints = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    found = decoded(CLUSTER, {"name": "c", "type": kind, "load_assignment": endpoints})
    assert found.load_assignment.localities[0].endpoints == (Endpoint(SocketAddress("db.example.org", 5432)),)


def test_dns_srv_cluster() -> None:
    found = decoded(CLUSTER, SRV_CLUSTER)
    assert found.type == "DNS_SRV"
    assert found.dns_srv == DnsSrv("_http._tcp.a.test", (SocketAddress("10.1.0.1", 53),), 2.0, 300.0)


def test_load_assignment() -> None:
    assert decoded(ENDPOINT) == LoadAssignment(
        "s",
        (
            LocalityEndpoints(
                (Endpoint(SocketAddress("10.0.0.2", 80), "h", 3, "DRAINING", (("tlsMode", "tulle"),)),),
                1,
                0,
                "eu",
                "a",
            ),
        ),
        200,
    )


def test_secrets() -> None:
    assert decoded(SECRET) == Secret(
        "pair", TlsCertificate(DataSource(inline=b"CHAIN"), DataSource(filename="/key"))
    )
    roots = {"name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_bytes": "UE0="}}}
    assert decoded(SECRET, roots) == Secret("ROOTCA", validation=ValidationContext(DataSource(inline=b"PM")))
