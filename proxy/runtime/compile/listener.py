"""Listeners and their filter chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.cluster.cluster import Cluster
from proxy.filters.connection_limit import ConnectionLimiter
from proxy.filters.rbac import network_rbac
from proxy.model.config import ConfigError
from proxy.model.listener import (
    FilterChain,
    HttpConnectionManager,
    HttpInspector,
    Listener,
    ProxyProtocol,
    TcpProxy,
    TlsInspector,
)
from proxy.observe.access_log import compile_access_log
from proxy.observe.store import StatStore
from proxy.runtime.compile.chain_match import compile_chain_match
from proxy.runtime.compile.env import CompileEnv
from proxy.runtime.compile.http import compile_http
from proxy.runtime.compile.routes import Tables, compile_tcp_choice
from proxy.runtime.runtime import FilterChainRuntime, ListenerRuntime, TcpRuntime


def compile_listener(
    config: Listener,
    previous: ListenerRuntime | None,
    tables: Tables,
    clusters: Mapping[str, Cluster],
    stats: StatStore,
    env: CompileEnv,
) -> ListenerRuntime:
    """The runtime of a listener; ``previous`` itself if nothing that it depends on has changed."""
    if previous is not None and previous.config == config and _still_right(previous, tables, clusters):
        return previous
    field = f"listener[{config.name}]"
    compiled = []
    for n, chain in enumerate(config.filter_chains):
        path = f"{field}.filter_chains[{n}]"
        compiled.append((chain.match, _chain(chain, config, tables, clusters, stats, env, path), path))
    default = None
    if config.default_filter_chain is not None:
        path = f"{field}.default_filter_chain"
        default = _chain(config.default_filter_chain, config, tables, clusters, stats, env, path)
    if not compiled and default is None:
        raise ConfigError(f"{field}.filter_chains", "at least one filter chain is needed")
    chains = tuple(chain for _, chain, _ in compiled)
    return ListenerRuntime(
        name=config.name,
        config=config,
        find_chain=compile_chain_match(compiled, default),
        chains=chains if default is None else (*chains, default),
        inspections=_inspections(config, stats),
        original_dst="original_dst" in config.listener_filters or config.use_original_dst,
        use_original_dst=config.use_original_dst,
        stats=stats.listener_stats(config.stat_prefix or str(config.address).replace(":", "_")),
        access_logs=tuple(
            compile_access_log(log, env.log_files.open, f"{field}.access_log[{n}]", env.hostname)
            for n, log in enumerate(config.access_log)
        ),
    )


def _chain(
    chain: FilterChain,
    listener: Listener,
    tables: Tables,
    clusters: Mapping[str, Cluster],
    stats: StatStore,
    env: CompileEnv,
    field: str,
) -> FilterChainRuntime:
    _check_inspected(chain, listener, f"{field}.filter_chain_match")
    terminal = chain.terminal
    path = f"{field}.filters[{chain.terminal_at}]"
    http = tcp = None
    if isinstance(terminal, HttpConnectionManager):
        http = compile_http(
            terminal,
            tables,
            stats,
            env,
            path,
            buffer_limit=listener.per_connection_buffer_limit_bytes or 1 << 62,
        )
    else:
        tcp = _tcp(terminal, clusters, stats, env, path)
    return FilterChainRuntime(
        name=chain.name,
        listener=listener.name,
        config=chain,
        tls=chain.tls,
        network_filters=tuple(
            network_rbac(rbac, stats.rbac_stats(f"{rbac.stat_prefix}rbac."), f"{field}.filters[{n}]")
            for n, rbac in enumerate(chain.rbac)
        ),
        http=http,
        tcp=tcp,
        connection_limits=tuple(
            ConnectionLimiter(limit, stats.connection_limit_stats(limit.stat_prefix))
            for limit in chain.connection_limits
        ),
    )


_BY_NAME: dict[str, TlsInspector | HttpInspector] = {
    "tls_inspector": TlsInspector(),
    "http_inspector": HttpInspector(),
}


def _inspections(
    config: Listener, stats: StatStore
) -> tuple[TlsInspector | HttpInspector | ProxyProtocol, ...]:
    """The listener filters that read first bytes; their statistics are there from now on."""
    found: list[TlsInspector | HttpInspector | ProxyProtocol] = []
    for item in config.listener_filters:
        if isinstance(item, str):
            if item in _BY_NAME:
                found.append(_BY_NAME[item])
            continue
        if isinstance(item, ProxyProtocol):
            stats.proxy_protocol_stats(item.stat_prefix)
        found.append(item)
    return tuple(found)


def _check_inspected(chain: FilterChain, listener: Listener, field: str) -> None:
    """Whether somebody finds out what the chain asks for."""
    match = chain.match
    names = listener.listener_filters
    tls = any(name == "tls_inspector" or isinstance(name, TlsInspector) for name in names)
    if tls:
        return
    if match.server_names or match.transport_protocol == "tls":
        raise ConfigError(
            field, "server_names and transport_protocol tls need the tls_inspector listener filter"
        )
    http = any(name == "http_inspector" or isinstance(name, HttpInspector) for name in names)
    if match.application_protocols and not http:
        raise ConfigError(
            field, "application_protocols need the tls_inspector or the http_inspector listener filter"
        )


def _tcp(
    config: TcpProxy, clusters: Mapping[str, Cluster], stats: StatStore, env: CompileEnv, field: str
) -> TcpRuntime:
    return TcpRuntime(
        config=config,
        choose=compile_tcp_choice(config.clusters, clusters, env.random, f"{field}.weighted_clusters"),
        stats=stats.tcp_stats(config.stat_prefix),
        access_logs=tuple(
            compile_access_log(log, env.log_files.open, f"{field}.access_log[{n}]", env.hostname)
            for n, log in enumerate(config.access_log)
        ),
        idle_timeout=config.idle_timeout,
        max_connect_attempts=config.max_connect_attempts,
        max_duration=_max_duration(config, env.random),
        back_off=_back_off(config, env.random),
        connect_on_data=config.connect_on_data,
        max_early_data=config.max_early_data_bytes,
        log_interval=config.access_log_flush_interval,
        log_on_connected=config.flush_access_log_on_connected,
        clusters=tuple((share.name, clusters.get(share.name)) for share in config.clusters),
    )


def _max_duration(config: TcpProxy, random: Callable[[], float]) -> Callable[[], float] | None:
    duration = config.max_downstream_connection_duration
    if not duration:
        return None
    jitter = duration * config.max_downstream_connection_duration_jitter / 100.0
    return lambda: duration + jitter * random()


def _back_off(config: TcpProxy, random: Callable[[], float]) -> Callable[[int], float] | None:
    """Exponential with full jitter, as Envoy's."""
    if config.back_off is None:
        return None
    base, longest = config.back_off
    return lambda failures: random() * min(longest, base * 2.0 ** min(failures - 1, 30))


def _still_right(runtime: ListenerRuntime, tables: Tables, clusters: Mapping[str, Cluster]) -> bool:
    """Whether an unchanged listener still leads to the same tables and clusters."""
    for n, chain in enumerate(runtime.chains):
        if chain.http is not None:
            route = chain.http.config.route
            if isinstance(route, str):
                table = tables.by_name(route)
            else:
                number = (
                    f"filter_chains[{n}]" if n < len(runtime.config.filter_chains) else "default_filter_chain"
                )
                field = f"listener[{runtime.name}].{number}.filters[{chain.config.terminal_at}]"
                table = tables.inline(route, field)
            if table is not chain.http.table:
                return False
        if chain.tcp is not None and any(clusters.get(name) is not c for name, c in chain.tcp.clusters):
            return False
    return True
