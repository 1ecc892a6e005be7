"""Static configuration in Envoy's bootstrap format (YAML or JSON): ``tulle proxy -c envoy.yaml``.

The same decoders as for xDS read it, so what they refuse is refused here with the same field path. Only static
resources: a sidecar with a control plane is started with ``--control-plane``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from envoy.config.bootstrap.v3 import bootstrap_pb2
from google.protobuf import json_format

from proxy import document
from proxy.model.config import Admin, Config, ConfigError
from proxy.model.http2 import PREMATURE_RESETS, PrematureResets
from proxy.model.listener import FilterChain, HttpConnectionManager, Listener
from proxy.model.overload import OverloadManager
from proxy.xds.decode import address as decode_address
from proxy.xds.decode import cluster, fields, listener, tls
from proxy.xds.decode.layered_runtime import runtime_limits
from proxy.xds.decode.overload import overload_manager


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 100

_KNOWN = fields.known(
    "admin",
    "static_resources",
    "node",
    "layered_runtime",
    "overload_manager",
    without_effect={
        "stats_flush_interval": "statistics are read on demand",
        "stats_config": "statistics names are fixed",
    },
)
_KNOWN_ADMIN = fields.known(
    "address",
    without_effect={
        "access_log": "the admin endpoint writes none",
        "access_log_path": "the admin endpoint writes none",
        "profile_path": "there is no profiler behind it",
    },
)
_KNOWN_STATIC = fields.known("listeners", "clusters", "secrets")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What a bootstrap file says.

    ``message`` is the whole of it, for ``/config_dump``; ``overload`` is ``None`` where the defaults are to be used;
    ``listener_limits`` are connection limits by listener name.
    """

    config: Config
    admin: Admin | None
    message: Any
    overload: OverloadManager | None = None
    listener_limits: Mapping[str, int] = field(default_factory=dict)


def load(path: Path) -> Bootstrap:
    """Read a bootstrap file. Raises :class:`ConfigError` (with the field path) and OSError."""
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(str(path), f"is larger than {MAX_BYTES} bytes")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is neither YAML nor JSON: {error}") from error
    return parse(document.parse(text, str(path)))


def parse(content: Any) -> Bootstrap:
    """A bootstrap from parsed YAML or JSON. Raises :class:`ConfigError`."""
    if not isinstance(content, dict):
        raise ConfigError("bootstrap", "is not an object")
    message = bootstrap_pb2.Bootstrap()
    try:
        json_format.ParseDict(content, message, max_recursion_depth=MAX_DEPTH)
    except json_format.ParseError as error:
        raise ConfigError("bootstrap", str(error)) from error
    fields.check(message, "bootstrap", _KNOWN)
    static = message.static_resources
    fields.check(static, "static_resources", _KNOWN_STATIC)
    admin = None
    if message.HasField("admin"):
        fields.check(message.admin, "admin", _KNOWN_ADMIN)
        admin = Admin(decode_address.address(message.admin.address, "admin.address"))
    for index, made in enumerate(static.listeners):
        # Envoy lets static listeners be without a name and gives them one.
        made.name = made.name or f"listener_{index}"
    limits = runtime_limits(message.layered_runtime, "layered_runtime")
    listeners = [listener.listener(m) for m in static.listeners]
    if limits.premature_resets != PREMATURE_RESETS:
        listeners = [_limited(item, limits.premature_resets) for item in listeners]
    config = Config(
        version="static",
        listeners=_by_name(listeners, "listeners"),
        clusters=_by_name([cluster.cluster(m) for m in static.clusters], "clusters"),
        secrets=_by_name([tls.secret(m) for m in static.secrets], "secrets"),
    )
    overload = None
    if message.HasField("overload_manager"):
        overload = overload_manager(message.overload_manager, "overload_manager")
    return Bootstrap(config, admin, message, overload, limits.listeners)


def _limited(item: Listener, resets: PrematureResets) -> Listener:
    """What the runtime says of resets is said by each connection manager."""

    def limited(chain: FilterChain) -> FilterChain:
        if isinstance(chain.terminal, HttpConnectionManager):
            return replace(chain, terminal=replace(chain.terminal, premature_resets=resets))
        return chain

    default = item.default_filter_chain
    return replace(
        item,
        filter_chains=tuple(map(limited, item.filter_chains)),
        default_filter_chain=None if default is None else limited(default),
    )


def _by_name(resources: list[T], what: str) -> dict[str, T]:
    named: dict[str, T] = {}
    for index, resource in enumerate(resources):
        name: str = resource.name
        if name in named:
            raise ConfigError(f"static_resources.{what}[{index}]", f"the name {name!r} is there twice")
        named[name] = resource
    return named
