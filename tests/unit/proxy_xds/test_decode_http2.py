"""HTTP/2 options of connection managers and clusters: defaults, ranges, refusals, and how a protocol is chosen."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format

from proxy.model.cluster import Cluster
from proxy.model.config import ConfigError
from proxy.model.http2 import HTTP2_DEFAULTS, Http2Keepalive, Http2Options, PrematureResets
from proxy.model.listener import HttpConnectionManager
from proxy.xds.decode.cluster import cluster
from proxy.xds.decode.http import http_connection_manager
from proxy.xds.decode.http2 import http2_options

KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ROUTER = {"typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
PLAIN_SOCKET = {
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
    }
}
TLS_SOCKET = {
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    }
}
MIB = 1024 * 1024
WINDOWS = ("initial_stream_window_size", "initial_connection_window_size")
COUNTS = {
    "hpack_table_size": 0,
    "max_concurrent_streams": 1,
    **dict.fromkeys(WINDOWS, 65_535),
    "max_outbound_frames": 1,
    "max_outbound_control_frames": 1,
    "max_consecutive_inbound_frames_with_empty_payload": 0,
    "max_inbound_priority_frames_per_stream": 0,
    "max_inbound_window_update_frames_per_data_frame_sent": 1,
}
"""Each number with the least that it may be."""


def options(stream_error: bool | None = None, **body: Any) -> Http2Options:
    message = protocol_pb2.Http2ProtocolOptions()
    return http2_options(json_format.ParseDict(body, message), "o", stream_error)


def manager(**body: Any) -> HttpConnectionManager:
    message = http_connection_manager_pb2.HttpConnectionManager()
    body = {"stat_prefix": "s", "route_config": {}, "http_filters": [ROUTER], **body}
    return http_connection_manager(json_format.ParseDict(body, message), "m")


def upstream(protocol: dict[str, Any] | None = None, **body: Any) -> Cluster:
    """A cluster with the ``HttpProtocolOptions`` of ``protocol``, if any."""
    if protocol is not None:
        typed = {"@type": f"type.googleapis.com/{KEY}", **protocol}
        body["typed_extension_protocol_options"] = {KEY: typed}
    body = {"name": "c", "type": "STATIC", "load_assignment": {"cluster_name": "c"}, **body}
    return cluster(json_format.ParseDict(body, cluster_pb2.Cluster()))


def refused(make: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(*arguments, **named)
    return caught.value.path


def test_the_defaults_are_envoys() -> None:
    assert options() is HTTP2_DEFAULTS
    assert {field.name: getattr(HTTP2_DEFAULTS, field.name) for field in fields(HTTP2_DEFAULTS)} == {
        "hpack_table_size": 4096,
        "max_concurrent_streams": 1024,
        "initial_stream_window_size": 16 * MIB,
        "initial_connection_window_size": 24 * MIB,
        "allow_connect": False,
        "max_outbound_frames": 10_000,
        "max_outbound_control_frames": 1000,
        "max_consecutive_inbound_frames_with_empty_payload": 1,
        "max_inbound_priority_frames_per_stream": 100,
        "max_inbound_window_update_frames_per_data_frame_sent": 10,
        "stream_error_on_invalid_http_message": False,
        "connection_keepalive": None,
        "stream_reset_burst": 1000,
        "stream_reset_rate": 33,
    }


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_are_read_within_their_range(name: str) -> None:
    least = COUNTS[name]
    assert getattr(options(**{name: least}), name) == least
    assert getattr(options(**{name: 70_000}), name) == 70_000
    if least:
        assert refused(options, **{name: least - 1}) == f"o.{name}"
    most = 2**31 - 1 if name in ("max_concurrent_streams", *WINDOWS) else 2**32 - 1
    assert getattr(options(**{name: most}), name) == most
    if most < 2**32 - 1:
        assert refused(options, **{name: most + 1}) == f"o.{name}"


def test_extended_connect_is_read() -> None:
    assert options(allow_connect=True).allow_connect


@pytest.mark.parametrize(
    ("manager_says", "body", "expected"),
    [
        (None, {}, False),
        (None, {"stream_error_on_invalid_http_messaging": True}, True),
        (None, {"override_stream_error_on_invalid_http_message": True}, True),
        (True, {}, True),
        (True, {"override_stream_error_on_invalid_http_message": False}, False),
        (False, {"override_stream_error_on_invalid_http_message": True}, True),
        (False, {"stream_error_on_invalid_http_messaging": True}, False),
    ],
)
def test_what_an_invalid_message_ends(
    manager_says: bool | None, body: dict[str, Any], expected: bool
) -> None:
    assert options(manager_says, **body).stream_error_on_invalid_http_message is expected


def test_keepalive_is_read() -> None:
    assert options(connection_keepalive={"timeout": "2s"}).connection_keepalive == Http2Keepalive(2.0)
    keepalive = {
        "timeout": "0.001s",
        "interval": "5s",
        "interval_jitter": {"value": 0},
        "connection_idle_interval": "7s",
    }
    assert options(connection_keepalive=keepalive).connection_keepalive == Http2Keepalive(
        0.001, 5.0, 0.0, 7.0
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"interval": "5s"}, ".timeout"),
        ({"timeout": "0s"}, ".timeout"),
        ({"timeout": "1s", "interval": "0.0009s"}, ".interval"),
        ({"timeout": "1s", "connection_idle_interval": "0s"}, ".connection_idle_interval"),
        ({"timeout": "1s", "interval_jitter": {"value": 101}}, ".interval_jitter.value"),
        ({"timeout": "-1s"}, ".timeout"),
    ],
)
def test_keepalives_are_refused_by_their_field(body: dict[str, Any], field: str) -> None:
    assert refused(options, connection_keepalive=body) == f"o.connection_keepalive{field}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"allow_metadata": True}, ".allow_metadata"),
        ({"custom_settings_parameters": [{"identifier": 9, "value": 1}]}, ".custom_settings_parameters"),
    ],
)
def test_what_there_is_no_code_for_is_refused(body: dict[str, Any], field: str) -> None:
    assert refused(options, **body) == f"o{field}"


def test_options_that_cannot_matter_are_taken() -> None:
    assert options(max_metadata_size="5", use_oghttp2_codec=True) == HTTP2_DEFAULTS


def test_options_of_a_connection_manager() -> None:
    made = manager(codec_type="HTTP2", http2_protocol_options={"max_concurrent_streams": 100})
    assert (made.codec_type, made.http2.max_concurrent_streams) == ("HTTP2", 100)
    assert manager().http2 is HTTP2_DEFAULTS
    path = refused(manager, codec_type="HTTP1", http2_protocol_options={"max_concurrent_streams": 0})
    assert path == "m.http2_protocol_options.max_concurrent_streams"


def test_a_connection_manager_may_end_streams_for_invalid_messages_where_all_is_http2() -> None:
    made = manager(codec_type="HTTP2", stream_error_on_invalid_http_message=True)
    assert made.http2.stream_error_on_invalid_http_message
    for codec in ("AUTO", "HTTP1"):
        path = refused(manager, codec_type=codec, stream_error_on_invalid_http_message=True)
        assert path == "m.stream_error_on_invalid_http_message"
        assert manager(codec_type=codec, stream_error_on_invalid_http_message=False)


ONE_STREAM = {"http2_protocol_options": {"max_concurrent_streams": 1}}


@pytest.mark.parametrize(
    ("protocol", "body", "expected", "streams"),
    [
        (None, {}, "HTTP1", 1024),
        ({"explicit_http_config": {"http_protocol_options": {}}}, {}, "HTTP1", 1024),
        ({"explicit_http_config": {"http2_protocol_options": {}}}, {}, "HTTP2", 1024),
        ({"explicit_http_config": ONE_STREAM}, {}, "HTTP2", 1),
        ({"auto_config": ONE_STREAM}, {"transport_socket": TLS_SOCKET}, "AUTO", 1),
        ({"use_downstream_protocol_config": {}}, {}, "DOWNSTREAM", 1024),
        ({"use_downstream_protocol_config": ONE_STREAM}, {}, "DOWNSTREAM", 1),
        (None, ONE_STREAM, "HTTP2", 1),
        (None, {"http_protocol_options": {}}, "HTTP1", 1024),
        (None, {"protocol_selection": "USE_DOWNSTREAM_PROTOCOL"}, "DOWNSTREAM", 1024),
        (
            None,
            {"protocol_selection": "USE_DOWNSTREAM_PROTOCOL", "http_protocol_options": {}, **ONE_STREAM},
            "DOWNSTREAM",
            1,
        ),
    ],
)
def test_who_decides_on_the_protocol(
    protocol: dict[str, Any] | None, body: dict[str, Any], expected: str, streams: int
) -> None:
    made = upstream(protocol, **body)
    assert (made.protocol, made.http2.max_concurrent_streams) == (expected, streams)


TYPED = f"cluster[c].typed_extension_protocol_options[{KEY}]"


@pytest.mark.parametrize(
    ("protocol", "body", "path"),
    [
        ({}, {}, f"{TYPED}.explicit_http_config"),
        ({"explicit_http_config": {}}, {}, f"{TYPED}.explicit_http_config"),
        (
            {"explicit_http_config": {"http2_protocol_options": {"initial_stream_window_size": 65_534}}},
            {},
            f"{TYPED}.explicit_http_config.http2_protocol_options.initial_stream_window_size",
        ),
        ({"auto_config": {}}, {}, f"{TYPED}.auto_config"),
        ({"auto_config": {}}, {"transport_socket": PLAIN_SOCKET}, f"{TYPED}.auto_config"),
        (
            {"auto_config": {}},
            {
                "transport_socket": TLS_SOCKET,
                "transport_socket_matches": [{"name": "m", "match": {}, "transport_socket": PLAIN_SOCKET}],
            },
            f"{TYPED}.auto_config",
        ),
        (
            {"auto_config": {"alternate_protocols_cache_options": {"name": "x"}}},
            {"transport_socket": TLS_SOCKET},
            f"{TYPED}.auto_config.alternate_protocols_cache_options",
        ),
        (
            {"explicit_http_config": {"http_protocol_options": {}}},
            ONE_STREAM,
            "cluster[c].http2_protocol_options",
        ),
        (
            {"explicit_http_config": {"http_protocol_options": {}}},
            {"common_http_protocol_options": {}},
            "cluster[c].common_http_protocol_options",
        ),
        (None, {"http_protocol_options": {}, **ONE_STREAM}, "cluster[c].http_protocol_options"),
        (
            None,
            {"http2_protocol_options": {"max_outbound_frames": 0}},
            "cluster[c].http2_protocol_options.max_outbound_frames",
        ),
        (
            None,
            {"http_protocol_options": {"accept_http_10": True}},
            "cluster[c].http_protocol_options.accept_http_10",
        ),
        (
            None,
            {"common_http_protocol_options": {"max_headers_count": 0}},
            "cluster[c].common_http_protocol_options.max_headers_count",
        ),
        (
            None,
            {"common_http_protocol_options": {"max_connection_duration": "-1s"}},
            "cluster[c].common_http_protocol_options.max_connection_duration",
        ),
        (
            None,
            {"common_http_protocol_options": {"max_stream_duration": "1s"}},
            "cluster[c].common_http_protocol_options.max_stream_duration",
        ),
    ],
)
def test_clusters_are_refused_by_their_field(
    protocol: dict[str, Any] | None, body: dict[str, Any], path: str
) -> None:
    assert refused(upstream, protocol, **body) == path


@pytest.mark.parametrize("old", [False, True])
def test_limits_of_upstream_connections(old: bool) -> None:
    common = {
        "max_connection_duration": "90s",
        "max_requests_per_connection": 7,
        "max_response_headers_kb": 5,
        "max_headers_count": 9,
    }
    body = {"common_http_protocol_options": common}
    made = upstream(None, **body) if old else upstream({**body, "use_downstream_protocol_config": {}})
    assert (made.max_connection_duration, made.max_requests_per_connection) == (90.0, 7)
    assert (made.max_response_headers_kb, made.max_http2_response_headers_kb, made.max_headers_count) == (
        5,
        5,
        9,
    )
    bare = upstream()
    assert (bare.max_connection_duration, bare.max_requests_per_connection) == (0.0, 0)
    assert (bare.max_response_headers_kb, bare.max_http2_response_headers_kb, bare.max_headers_count) == (
        80,
        60,
        100,
    )


@pytest.mark.parametrize(
    ("closed", "premature", "too_many"),
    [
        # The half of 10 is reached before 10 are over: the rest cannot make it less.
        (0, 0, False), (4, 4, False), (5, 5, True), (9, 4, False), (9, 5, True),
        # From then on it is half of all.
        (10, 4, False), (10, 5, True), (20, 9, False), (20, 10, True), (21, 10, False),
    ],
)  # fmt: skip
def test_who_only_opens_and_resets_streams_is_found_out(closed: int, premature: int, too_many: bool) -> None:
    assert PrematureResets(total_stream_count=10).too_many(closed, premature) is too_many


def test_a_reset_is_premature_within_whole_seconds() -> None:
    assert PrematureResets().is_premature(1.99) and not PrematureResets().is_premature(2.0)
    assert not PrematureResets(min_stream_lifetime=0).is_premature(1.0)
