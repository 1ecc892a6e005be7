"""Listener filters with their options, and the ports that ``filter_disabled`` stands for."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.listener.v3 import listener_components_pb2
from google.protobuf import json_format

from proxy.model.config import ConfigError
from proxy.model.listener import HttpInspector, ListenerFilter, ProxyProtocol, TlsInspector
from proxy.xds.decode.listener_filter import listener_filter

_E = "type.googleapis.com/envoy.extensions.filters.listener."
TLS = {"@type": f"{_E}tls_inspector.v3.TlsInspector"}
HTTP = {"@type": f"{_E}http_inspector.v3.HttpInspector"}
PROXY = {"@type": f"{_E}proxy_protocol.v3.ProxyProtocol"}
DST = {"@type": f"{_E}original_dst.v3.OriginalDst"}


def decode(config: dict[str, Any], disabled: dict[str, Any] | None = None) -> ListenerFilter:
    body: dict[str, Any] = {"name": "f", "typed_config": config}
    if disabled is not None:
        body["filter_disabled"] = disabled
    return listener_filter(json_format.ParseDict(body, listener_components_pb2.ListenerFilter()), "lf")


def test_options() -> None:
    assert decode(DST) == "original_dst"
    assert decode(HTTP) == HttpInspector()
    assert decode(TLS | {"initial_read_buffer_size": 512}) == TlsInspector()
    assert decode(
        TLS | {"max_client_hello_size": 300, "close_connection_on_client_hello_parsing_errors": True}
    ) == TlsInspector(300, close_connection_on_client_hello_parsing_errors=True)
    assert decode(
        PROXY
        | {
            "allow_requests_without_proxy_protocol": True,
            "disallowed_versions": ["V2"],
            "stat_prefix": "p",
        }
    ) == ProxyProtocol(True, frozenset({2}), "p")


def ports(start: int, end: int) -> dict[str, Any]:
    return {"destination_port_range": {"start": start, "end": end}}


@pytest.mark.parametrize(
    ("predicate", "inside", "outside"),
    [
        (ports(80, 82), (80, 81), (0, 79, 82, 65535)),
        ({"any_match": True}, (0, 65535), ()),
        ({"not_match": ports(80, 81)}, (79, 81, 65535), (80,)),
        ({"or_match": {"rules": [ports(1, 2), ports(3, 4)]}}, (1, 3), (2, 4)),
        ({"and_match": {"rules": [ports(1, 9), {"not_match": ports(3, 4)}]}}, (1, 8), (3, 9)),
    ],
)
def test_disabled_ports(predicate: dict[str, Any], inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    for config in (TLS, HTTP, PROXY):
        found = decode(config, predicate)
        assert not isinstance(found, str)
        assert all(found.disabled_ports >> port & 1 for port in inside)
        assert not any(found.disabled_ports >> port & 1 for port in outside)


@pytest.mark.parametrize(
    ("config", "disabled", "path", "message"),
    [
        (TLS | {"max_client_hello_size": 255}, None, "lf.typed_config.max_client_hello_size", "255"),
        (TLS | {"max_client_hello_size": 16385}, None, "lf.typed_config.max_client_hello_size", "16385"),
        (
            TLS | {"enable_ja3_fingerprinting": True},
            None,
            "lf.typed_config.enable_ja3_fingerprinting",
            "not supported",
        ),
        (PROXY | {"rules": [{"tlv_type": 1}]}, None, "lf.typed_config.rules", "not supported"),
        (PROXY | {"pass_through_tlvs": {}}, None, "lf.typed_config.pass_through_tlvs", "not supported"),
        (PROXY | {"disallowed_versions": [7]}, None, "lf.typed_config.disallowed_versions", "8"),
        (DST, {"any_match": True}, "lf.filter_disabled", "original_dst"),
        (HTTP, {}, "lf.filter_disabled", "empty"),
        (HTTP, ports(2, 2), "lf.filter_disabled.destination_port_range", "no range"),
        (HTTP, ports(2, 65537), "lf.filter_disabled.destination_port_range", "no range"),
        (HTTP, {"or_match": {"rules": [ports(1, 2)]}}, "lf.filter_disabled.or_match.rules", "two"),
    ],
)
def test_refusals(config: dict[str, Any], disabled: dict[str, Any] | None, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        decode(config, disabled)
    assert caught.value.path == path


def test_a_predicate_cannot_be_nested_for_ever() -> None:
    deep: dict[str, Any] = {"any_match": True}
    for _ in range(25):
        deep = {"not_match": deep}
    with pytest.raises(ConfigError, match="nested"):
        decode(HTTP, deep)
