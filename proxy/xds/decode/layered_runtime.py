"""The runtime layers of a bootstrap: limits on connections of listeners and on resets of streams are read.

Whatever else a layer sets is refused, but for Envoy's switches of its own code, which have no counterpart here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from proxy.model.config import ConfigError
from proxy.model.http2 import PREMATURE_RESETS, PrematureResets
from proxy.xds.decode.fields import UNSUPPORTED, check, forbid, known

_LAYERED = known("layers")
_LAYER = known(
    "name",
    "static_layer",
    without_effect={"admin_layer": "/runtime_modify is not served, so that nothing can be set there"},
)
_LIMIT = "envoy.resource_limits.listener."
_LIMIT_END = ".connection_limit"
_RESETS = "overload.premature_reset_total_stream_count"
_LIFETIME = "overload.premature_reset_min_stream_lifetime_seconds"
_SWITCHES = ("envoy.reloadable_features.", "envoy.restart_features.")


class RuntimeLimits(NamedTuple):
    """``listeners``: ``envoy.resource_limits.listener.<name>.connection_limit`` by listener name."""

    listeners: dict[str, int]
    premature_resets: PrematureResets


def runtime_limits(message: Any, path: str) -> RuntimeLimits:
    """What the layers say; later ones win."""
    check(message, path, _LAYERED)
    limits: dict[str, int] = {}
    total, lifetime = PREMATURE_RESETS.total_stream_count, PREMATURE_RESETS.min_stream_lifetime
    for index, layer in enumerate(message.layers):
        at = f"{path}.layers[{index}]"
        check(layer, at, _LAYER)
        for key, value in _flat("", layer.static_layer):
            field = f"{at}.static_layer.{key}"
            if key.startswith(_LIMIT) and key.endswith(_LIMIT_END):
                limits[key[len(_LIMIT) : -len(_LIMIT_END)]] = _count(value, field, "connections")
            elif key == _RESETS:
                total = _count(value, field, "streams")
            elif key == _LIFETIME:
                lifetime = _count(value, field, "seconds")
            elif not key.startswith(_SWITCHES):
                raise ConfigError(field, UNSUPPORTED)
    return RuntimeLimits(limits, PrematureResets(total, lifetime))


def _flat(prefix: str, struct: Any) -> Iterator[tuple[str, Any]]:
    """Keys may be written with dots or as nested objects."""
    for name, value in sorted(struct.fields.items()):
        key = f"{prefix}{name}"
        if value.WhichOneof("kind") == "struct_value":
            yield from _flat(f"{key}.", value.struct_value)
        else:
            yield key, value


def _count(value: Any, path: str, what: str) -> int:
    kind = value.WhichOneof("kind")
    number = value.number_value if kind == "number_value" else -1.0
    if kind == "string_value" and value.string_value.isascii() and value.string_value.isdigit():
        number = float(value.string_value)
    forbid(number < 0 or number != int(number), path, f"must be a number of {what}")
    return int(number)
