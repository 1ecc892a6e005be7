"""``LocalReplyConfig`` and its filters: what is read, and what is refused by its field."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format

from proxy.model.access_log import JsonLogFormat, TextLogFormat
from proxy.model.config import ConfigError
from proxy.model.local_reply import BodyFormat, LocalReplyConfig, ResponseMapper
from proxy.model.log_filter import AndFilter, DurationFilter, ResponseFlagFilter, StatusCodeFilter
from proxy.model.route import HeaderValueOption
from proxy.xds.decode.local_reply import local_reply

NOT_FOUND = {
    "status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 404, "runtime_key": "k"}}}
}
SLOW = {"duration_filter": {"comparison": {"op": "GE", "value": {"default_value": 9, "runtime_key": "k"}}}}


def decode(**config: Any) -> LocalReplyConfig:
    message = http_connection_manager_pb2.LocalReplyConfig()
    return local_reply(json_format.ParseDict(config, message), "c")


def test_all_parts_are_read() -> None:
    mapper = {
        "filter": {"and_filter": {"filters": [NOT_FOUND, SLOW, {"response_flag_filter": {"flags": ["NR"]}}]}},
        "status_code": 410,
        "body": {"inline_string": "gone"},
        "body_format_override": {"json_format": {"a": "%LOCAL_REPLY_BODY%"}},
        "headers_to_add": [{"header": {"key": "x-a", "value": "b"}}],
    }
    made = decode(
        mappers=[mapper, {"filter": {"response_flag_filter": {}}}],
        body_format={"text_format_source": {"inline_string": "t"}, "content_type": "text/html"},
    )
    assert made == LocalReplyConfig(
        (
            ResponseMapper(
                AndFilter(
                    (StatusCodeFilter("EQ", 404), DurationFilter("GE", 9), ResponseFlagFilter(("NR",)))
                ),
                410,
                "gone",
                BodyFormat(JsonLogFormat((("a", "%LOCAL_REPLY_BODY%"),))),
                (HeaderValueOption("x-a", "b"),),
            ),
            ResponseMapper(ResponseFlagFilter(())),
        ),
        BodyFormat(TextLogFormat("t"), "text/html"),
    )


@pytest.mark.parametrize(
    ("mapper", "field"),
    [
        ({}, ".filter"),
        ({"filter": {}}, ".filter"),
        ({"filter": {"traceable_filter": {}}}, ".filter.traceable_filter"),
        ({"filter": {"runtime_filter": {"runtime_key": "k"}}}, ".filter.runtime_filter"),
        ({"filter": {"response_flag_filter": {"flags": ["XX"]}}}, ".filter.response_flag_filter.flags[0]"),
        ({"filter": {"or_filter": {"filters": [NOT_FOUND]}}}, ".filter.or_filter.filters"),
        (
            {"filter": {"or_filter": {"filters": [NOT_FOUND, {"runtime_filter": {"runtime_key": "k"}}]}}},
            ".filter.or_filter.filters[1].runtime_filter",
        ),
        ({"filter": NOT_FOUND, "status_code": 199}, ".status_code"),
        ({"filter": NOT_FOUND, "body": {"filename": "/etc/passwd"}}, ".body.filename"),
        ({"filter": NOT_FOUND, "body": {"inline_bytes": "/w=="}}, ".body.inline_bytes"),
        ({"filter": NOT_FOUND, "body_format_override": {}}, ".body_format_override"),
        (
            {"filter": NOT_FOUND, "body_format_override": {"json_format": {}, "content_type": "a\r\nb: c"}},
            ".body_format_override.content_type",
        ),
        (
            {"filter": NOT_FOUND, "headers_to_add": [{"header": {"key": "a b", "value": "c"}}]},
            ".headers_to_add[0].header.key",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_field(mapper: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(mappers=[mapper])
    assert caught.value.path == "c.mappers[0]" + field
