"""The whole configuration: clusters first, then route tables that lead to them, then listeners."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.model.config import Config, ConfigError
from proxy.model.listener import HttpConnectionManager, Listener
from proxy.observe.store import StatStore
from proxy.runtime.compile.clusters import compile_clusters
from proxy.runtime.compile.env import CompileEnv
from proxy.runtime.compile.listener import compile_listener
from proxy.runtime.compile.routes import Tables
from proxy.runtime.runtime import ListenerRuntime, Runtime


def compile_config(config: Config, previous: Runtime | None, env: CompileEnv) -> Runtime:
    """Compile ``config``; parts equal to ``previous``'s are reused, down to object identity.

    Raises ``ConfigError`` with the field path of what cannot be used. A listener whose RDS route configuration has not
    come yet is in ``warming``; its predecessor, if there is one, goes on serving.
    """
    stats = StatStore(env.log_files.stats) if previous is None else previous.stats
    clusters, commit = compile_clusters(config, {} if previous is None else previous.clusters, env)
    tables = Tables(config.routes, clusters, stats, env, None if previous is None else previous.tables)
    listeners: dict[str, ListenerRuntime] = {}
    warming: set[str] = set()
    for name, listener in config.listeners.items():
        before = None if previous is None else previous.listeners.get(name)
        if missing_routes(listener, config):
            warming.add(name)
            if before is not None:
                listeners[name] = before
            continue
        listeners[name] = compile_listener(listener, before, tables, clusters, stats, env)
    return Runtime(
        version=config.version,
        config=config,
        listeners=listeners,
        clusters=clusters,
        stats=stats,
        warming=frozenset(warming),
        commit=commit,
        handoffs=_handoffs(listeners),
        tables=tables.compiled,
    )


def missing_routes(listener: Listener, config: Config) -> frozenset[str]:
    """The RDS names that the listener needs and that are not there."""
    chains = listener.filter_chains
    if listener.default_filter_chain is not None:
        chains = (*chains, listener.default_filter_chain)
    return frozenset(
        chain.terminal.route
        for chain in chains
        if isinstance(chain.terminal, HttpConnectionManager)
        and isinstance(chain.terminal.route, str)
        and chain.terminal.route not in config.routes
    )


def _handoffs(listeners: Mapping[str, ListenerRuntime]) -> dict[tuple[str, int], ListenerRuntime]:
    """Listeners that bind no port, by the address they stand for. Two for one address are an error."""
    found: dict[tuple[str, int], ListenerRuntime] = {}
    for name, runtime in listeners.items():
        listener = runtime.config
        if listener.bind_to_port:
            continue
        for address in (listener.address, *listener.additional_addresses):
            hosts = [address.host]
            if address.host == "::" and listener.ipv4_compat:
                hosts.append("0.0.0.0")
            for host in hosts:
                other = found.setdefault((host, address.port), runtime)
                if other is not runtime:
                    raise ConfigError(
                        f"listener[{name}].address",
                        f"{address} is already the address of listener {other.name!r}",
                    )
    return found
