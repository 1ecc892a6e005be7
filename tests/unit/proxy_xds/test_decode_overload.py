"""The overload manager and the runtime layers of a bootstrap: what is read, and what is refused where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy import bootstrap
from proxy.model.config import ConfigError
from proxy.model.http2 import PrematureResets
from proxy.model.listener import HttpConnectionManager
from proxy.model.overload import (
    Action,
    CgroupMemory,
    Descriptors,
    FixedHeap,
    InjectedResource,
    Monitor,
    OverloadManager,
    TimerScale,
    Trigger,
)

TYPE = "type.googleapis.com/envoy.extensions.resource_monitors."
MANAGER: dict[str, Any] = {
    "refresh_interval": "0.25s",
    "resource_monitors": [
        {
            "name": "heap",
            "typed_config": {
                "@type": f"{TYPE}fixed_heap.v3.FixedHeapConfig",
                "max_heap_size_bytes": 1 << 30,
            },
        },
        {"name": "group", "typed_config": {"@type": f"{TYPE}cgroup_memory.v3.CgroupMemoryConfig"}},
        {
            "name": "file",
            "typed_config": {
                "@type": f"{TYPE}injected_resource.v3.InjectedResourceConfig",
                "filename": "/p",
            },
        },
        {
            "name": "connections",
            "typed_config": {
                "@type": f"{TYPE}downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 5000,
            },
        },
        {
            "name": "files",
            "typed_config": {
                "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": "type.googleapis.com/tulle.resource_monitors.descriptors.v1.Descriptors",
            },
        },
    ],
    "actions": [
        {
            "name": "envoy.overload_actions.stop_accepting_requests",
            "triggers": [
                {"name": "heap", "threshold": {"value": 0.5}},
                {"name": "files", "scaled": {"scaling_threshold": 0.25, "saturation_threshold": 0.75}},
            ],
        },
        {
            "name": "envoy.overload_actions.reduce_timeouts",
            "triggers": [{"name": "heap", "threshold": {"value": 0.5}}],
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                "timer_scale_factors": [
                    {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"},
                    {"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_scale": {"value": 10}},
                ],
            },
        },
    ],
}
DROP = object()


def parse(**more: Any) -> bootstrap.Bootstrap:
    return bootstrap.parse({"static_resources": {}, **more})


def test_every_part_is_read() -> None:
    assert parse(overload_manager=MANAGER).overload == OverloadManager(
        (
            Monitor("heap", FixedHeap(1 << 30)),
            Monitor("group", CgroupMemory()),
            Monitor("file", InjectedResource("/p")),
            Monitor("files", Descriptors()),
        ),
        (
            Action(
                "envoy.overload_actions.stop_accepting_requests",
                (Trigger("heap", 0.5, 0.5), Trigger("files", 0.25, 0.75)),
            ),
            Action(
                "envoy.overload_actions.reduce_timeouts",
                (Trigger("heap", 0.5, 0.5),),
                (
                    TimerScale("HTTP_DOWNSTREAM_CONNECTION_IDLE", 2.0),
                    TimerScale("HTTP_DOWNSTREAM_STREAM_IDLE", min_scale=0.1),
                ),
            ),
        ),
        0.25,
        5000,
    )
    assert parse().overload is None


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(MANAGER))
    at: Any = document
    for step in path[:-1]:
        at = at[step]
    if value is DROP:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    [
        (("loadshed_points",), [{"name": "x"}], "loadshed_points", "is not supported"),
        (("refresh_interval",), "0s", "refresh_interval", "at least 1 ms"),
        (("resource_monitors", 1, "name"), "heap", "resource_monitors[1].name", "is there twice"),
        (
            ("resource_monitors", 0, "typed_config", "max_heap_size_bytes"),
            0,
            "resource_monitors[0].typed_config.max_heap_size_bytes",
            "above 0",
        ),
        (
            ("resource_monitors", 0, "typed_config"),
            {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"},
            "resource_monitors[0].typed_config",
            "google.protobuf.Duration is not supported",
        ),
        (
            ("resource_monitors", 4, "typed_config", "type_url"),
            "x",
            "resource_monitors[4].typed_config.type_url",
            "must be",
        ),
        (
            ("actions", 0, "name"),
            "envoy.overload_actions.reset_high_memory_stream",
            "actions[0].name",
            "is not supported",
        ),
        (("actions", 0, "triggers"), [], "actions[0].triggers", "is empty"),
        (
            ("actions", 0, "triggers", 0, "name"),
            "connections",
            "actions[0].triggers[0].name",
            "no resource monitor",
        ),
        (
            ("actions", 0, "triggers", 0, "threshold", "value"),
            1.5,
            "actions[0].triggers[0].threshold.value",
            "from 0 to 1",
        ),
        (
            ("actions", 0, "triggers", 1, "scaled", "scaling_threshold"),
            0.75,
            "actions[0].triggers[1].scaled.scaling_threshold",
            "must be below",
        ),
        (("actions", 0, "triggers", 0, "threshold"), DROP, "actions[0].triggers[0]", "needs threshold"),
        (("actions", 1, "typed_config"), DROP, "actions[1].typed_config", "needed there"),
        (
            ("actions", 1, "name"),
            "envoy.overload_actions.stop_accepting_requests",
            "actions[1].typed_config",
            "belongs to",
        ),
        (
            ("actions", 1, "typed_config", "timer_scale_factors", 0, "timer"),
            "HTTP_DOWNSTREAM_STREAM_FLUSH",
            "actions[1].typed_config.timer_scale_factors[0].timer",
            "is not supported",
        ),
        (
            ("actions", 1, "typed_config", "timer_scale_factors", 0, "min_timeout"),
            DROP,
            "actions[1].typed_config.timer_scale_factors[0]",
            "needs min_timeout",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_path(
    path: tuple[str | int, ...], value: Any, field: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(overload_manager=changed(path, value))
    assert caught.value.path == f"overload_manager.{field}"
    assert says in caught.value.message


LIMIT = "envoy.resource_limits.listener.in.connection_limit"
RESETS = "overload.premature_reset_total_stream_count"
LIFETIME = "overload.premature_reset_min_stream_lifetime_seconds"


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([], {}),
        ([{"name": "a", "static_layer": {LIMIT: 5}}], {"in": 5}),
        ([{"name": "a", "static_layer": {LIMIT: "5"}}], {"in": 5}),
        (
            [
                {
                    "name": "a",
                    "static_layer": {
                        "envoy": {"resource_limits": {"listener": {"in": {"connection_limit": 7}}}}
                    },
                }
            ],
            {"in": 7},
        ),
        ([{"name": "a", "static_layer": {LIMIT: 5}}, {"name": "b", "static_layer": {LIMIT: 6}}], {"in": 6}),
        ([{"name": "a", "static_layer": {"envoy.reloadable_features.x": True}}], {}),
        ([{"name": "a", "admin_layer": {}}], {}),
    ],
)
def test_connection_limits_come_from_the_runtime(layers: list[Any], wanted: dict[str, int]) -> None:
    assert parse(layered_runtime={"layers": layers}).listener_limits == wanted


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([], PrematureResets(500, 1)),
        ([{"name": "a", "static_layer": {RESETS: 7, LIFETIME: "3"}}], PrematureResets(7, 3)),
        (
            [
                {"name": "a", "static_layer": {"overload": {"premature_reset_total_stream_count": 7}}},
                {"name": "b", "static_layer": {RESETS: 8}},
            ],
            PrematureResets(8, 1),
        ),
    ],
)
def test_limits_on_resets_come_from_the_runtime(layers: list[Any], wanted: PrematureResets) -> None:
    extension = "type.googleapis.com/envoy.extensions.filters."
    manager = {
        "typed_config": {
            "@type": f"{extension}network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "s",
            "route_config": {},
            "http_filters": [{"typed_config": {"@type": f"{extension}http.router.v3.Router"}}],
        }
    }
    chain = {"filters": [manager]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    listener = {"name": "l", "address": address, "filter_chains": [chain], "default_filter_chain": chain}
    found = parse(layered_runtime={"layers": layers}, static_resources={"listeners": [listener]})
    made = found.config.listeners["l"]
    assert made.default_filter_chain is not None
    for terminal in (made.filter_chains[0].terminal, made.default_filter_chain.terminal):
        assert isinstance(terminal, HttpConnectionManager)
        assert terminal.premature_resets == wanted


@pytest.mark.parametrize(
    ("layer", "field"),
    [
        ({"static_layer": {LIMIT: -1}}, f"static_layer.{LIMIT}"),
        ({"static_layer": {LIMIT: 1.5}}, f"static_layer.{LIMIT}"),
        ({"static_layer": {"upstream.healthy_panic_threshold": 1}}, None),
        ({"static_layer": {RESETS: 0.5}}, f"static_layer.{RESETS}"),
        ({"static_layer": {LIFETIME: -1}}, f"static_layer.{LIFETIME}"),
        ({"disk_layer": {"symlink_root": "/x"}}, "disk_layer"),
    ],
)
def test_other_overrides_are_refused(layer: dict[str, Any], field: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(layered_runtime={"layers": [{"name": "a", **layer}]})
    wanted = field or "static_layer.upstream.healthy_panic_threshold"
    assert caught.value.path == f"layered_runtime.layers[0].{wanted}"
