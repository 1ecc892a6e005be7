"""Envoy resources for tests: written as JSON, reached into by steps that go through ``Any`` too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import any_pb2, json_format, symbol_database

from proxy.xds.decode.resources import CLUSTER, ENDPOINT, KINDS, LISTENER, ROUTE, SECRET, Resource

_E = "type.googleapis.com/envoy."
ADS = {"ads": {}, "resource_api_version": "V3"}

ROUTER = {"name": "router", "typed_config": {"@type": f"{_E}extensions.filters.http.router.v3.Router"}}
ROUTES: dict[str, Any] = {
    "name": "r",
    "virtual_hosts": [
        {
            "name": "v",
            "domains": ["*"],
            "routes": [
                {
                    "match": {
                        "prefix": "/",
                        "headers": [{"name": "h", "string_match": {"exact": "x"}}],
                        "query_parameters": [{"name": "q", "present_match": True}],
                    },
                    "request_headers_to_add": [{"header": {"key": "a", "value": "b"}}],
                    "route": {
                        "weighted_clusters": {"clusters": [{"name": "c", "weight": 1}]},
                        "retry_policy": {
                            "retry_on": "5xx",
                            "retry_back_off": {"base_interval": "1s"},
                            "retry_host_predicate": [
                                {
                                    "name": "previous_hosts",
                                    "typed_config": {
                                        "@type": f"{_E}extensions.retry.host.previous_hosts.v3"
                                        ".PreviousHostsPredicate"
                                    },
                                }
                            ],
                        },
                    },
                },
                {"match": {"safe_regex": {"regex": "x"}}, "redirect": {"https_redirect": True}},
                {
                    "match": {"path": "/x"},
                    "direct_response": {"status": 200, "body": {"inline_string": "hi"}},
                },
            ],
        }
    ],
}
RULES: dict[str, Any] = {
    "policies": {
        "p": {
            "permissions": [{"and_rules": {"rules": [{"url_path": {"path": {"prefix": "/"}}}]}}],
            "principals": [
                {"or_ids": {"ids": [{"authenticated": {"principal_name": {"exact": "spiffe://td/a"}}}]}}
            ],
        }
    }
}
SAN = {"san_type": "URI", "matcher": {"exact": "spiffe://td/a"}}
COMMON_TLS: dict[str, Any] = {
    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    "tls_certificate_sds_secret_configs": [{"name": "default"}],
    "combined_validation_context": {
        "default_validation_context": {"match_typed_subject_alt_names": [SAN]},
        "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": ADS},
    },
    "alpn_protocols": ["tulle"],
}
JSON_LOG = {
    "name": "file",
    "typed_config": {
        "@type": f"{_E}extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/stdout",
        "log_format": {"json_format": {"code": "%RESPONSE_CODE%", "n": 1, "in": {"b": [True, None, 1.5]}}},
    },
}
LISTENERS: dict[str, Any] = {
    "name": "l",
    "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
    "additional_addresses": [{"address": {"socket_address": {"address": "::1", "port_value": 15006}}}],
    "listener_filters": [
        {
            "name": "tls",
            "typed_config": {"@type": f"{_E}extensions.filters.listener.tls_inspector.v3.TlsInspector"},
        }
    ],
    "filter_chains": [
        {
            "name": "http",
            "filter_chain_match": {"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": f"{_E}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": COMMON_TLS,
                    "require_client_certificate": True,
                },
            },
            "filters": [
                {
                    "name": "rbac",
                    "typed_config": {
                        "@type": f"{_E}extensions.filters.network.rbac.v3.RBAC",
                        "stat_prefix": "net",
                        "rules": RULES,
                    },
                },
                {
                    "name": "http",
                    "typed_config": {
                        "@type": f"{_E}extensions.filters.network.http_connection_manager.v3"
                        ".HttpConnectionManager",
                        "stat_prefix": "in",
                        "rds": {"route_config_name": "80", "config_source": ADS},
                        "access_log": [JSON_LOG],
                        "upgrade_configs": [{"upgrade_type": "websocket"}],
                        "common_http_protocol_options": {"idle_timeout": "60s"},
                        "http_filters": [
                            {
                                "name": "rbac",
                                "typed_config": {
                                    "@type": f"{_E}extensions.filters.http.rbac.v3.RBAC",
                                    "rules": RULES,
                                },
                            },
                            ROUTER,
                        ],
                    },
                },
            ],
        }
    ],
    "default_filter_chain": {
        "name": "tcp",
        "filters": [
            {
                "name": "tcp",
                "typed_config": {
                    "@type": f"{_E}extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "tcp",
                    "weighted_clusters": {"clusters": [{"name": "c", "weight": 1}]},
                },
            }
        ],
    },
}
CLUSTERS: dict[str, Any] = {
    "name": "c",
    "type": "EDS",
    "eds_cluster_config": {"eds_config": ADS, "service_name": "s"},
    "circuit_breakers": {"thresholds": [{"max_connections": 7}]},
    "common_lb_config": {"healthy_panic_threshold": {"value": 10}},
    "upstream_bind_config": {
        "source_address": {"address": "127.0.0.6"},
        "extra_source_addresses": [{"address": {"address": "::6"}}],
        "socket_options": [{"level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND"}],
    },
    "transport_socket_matches": [
        {
            "name": "tls",
            "match": {"tlsMode": "tulle"},
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": f"{_E}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": COMMON_TLS,
                    "sni": "outbound_.80_._.a",
                },
            },
        },
        {
            "name": "plain",
            "transport_socket": {
                "name": "raw",
                "typed_config": {"@type": f"{_E}extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
            },
        },
    ],
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_E}extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"idle_timeout": "30s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    },
    "typed_dns_resolver_config": {
        "name": "cares",
        "typed_config": {
            "@type": f"{_E}extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": "10.0.0.1", "port_value": 53, "protocol": "UDP"}}],
        },
    },
}
SRV_CLUSTER: dict[str, Any] = {
    "name": "srv",
    "cluster_type": {
        "name": "tulle.clusters.dns_srv",
        "typed_config": {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": "type.googleapis.com/tulle.clusters.dns_srv.v1.DnsSrvCluster",
            "value": {"srv_name": "_http._tcp.a.test", "resolvers": ["10.1.0.1:53"], "min_ttl": "2s"},
        },
    },
}
ASSIGNMENTS: dict[str, Any] = {
    "cluster_name": "s",
    "policy": {"overprovisioning_factor": 200},
    "endpoints": [
        {
            "locality": {"region": "eu", "zone": "a"},
            "priority": 1,
            "lb_endpoints": [
                {
                    "endpoint": {
                        "address": {"socket_address": {"address": "10.0.0.2", "port_value": 80}},
                        "hostname": "h",
                    },
                    "load_balancing_weight": 3,
                    "health_status": "DRAINING",
                    "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "tulle"}}},
                }
            ],
        }
    ],
}
SECRETS: dict[str, Any] = {
    "name": "pair",
    "tls_certificate": {
        "certificate_chain": {"inline_string": "CHAIN"},
        "private_key": {"filename": "/key"},
    },
}

BASES: dict[str, dict[str, Any]] = {
    LISTENER: LISTENERS,
    CLUSTER: CLUSTERS,
    ENDPOINT: ASSIGNMENTS,
    ROUTE: ROUTES,
    SECRET: SECRETS,
}

Steps = tuple[str | int, ...]


def message(type_url: str, body: dict[str, Any] | None = None) -> Any:
    """A resource message of that type from JSON; without ``body`` one with as many parts as possible."""
    return json_format.ParseDict(BASES[type_url] if body is None else body, KINDS[type_url].message())


def decoded(type_url: str, body: dict[str, Any] | None = None) -> Any:
    """What the sidecar makes of it."""
    return decode_message(type_url, message(type_url, body))


def decode_message(type_url: str, made: Any) -> Resource:
    return KINDS[type_url].decode(made)


def change(target: Any, steps: Steps, how: Callable[[Any], None]) -> None:
    """Call ``how`` with the message that ``steps`` (fields, indices, map keys) lead to, through ``Any`` too."""
    if isinstance(target, any_pb2.Any):
        inner = symbol_database.Default().GetSymbol(target.TypeName())()
        assert target.Unpack(inner)
        change(inner, steps, how)
        target.Pack(inner)
    elif not steps:
        how(target)
    elif isinstance(steps[0], str) and hasattr(target, "DESCRIPTOR"):
        change(getattr(target, steps[0]), steps[1:], how)
    else:
        change(target[steps[0]], steps[1:], how)


def field_path(type_url: str, made: Any, steps: Steps) -> str:
    """The path that error messages use for ``steps``."""
    kind = KINDS[type_url]
    parts = [f"{kind.label}[{getattr(made, kind.name_field)}]"]
    bracket = False
    for step in steps:
        parts.append(f"[{step}]" if isinstance(step, int) or bracket else f".{step}")
        bracket = step in ("policies", "filter_metadata", "typed_extension_protocol_options")
    return "".join(parts)
