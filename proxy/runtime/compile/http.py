"""``HttpConnectionManager`` to ``HttpRuntime``: everything that each request would otherwise work out again."""

from __future__ import annotations

from proxy.filters.client_cert import forwarded_client_cert
from proxy.filters.rbac import http_rbac
from proxy.model.listener import HttpConnectionManager
from proxy.model.reply import Reply
from proxy.observe.access_log import compile_access_log
from proxy.observe.store import StatStore
from proxy.route.path import compile_normalize
from proxy.route.rewrite import clean
from proxy.runtime.compile.env import CompileEnv
from proxy.runtime.compile.local_reply import compile_local_reply
from proxy.runtime.compile.routes import Tables
from proxy.runtime.runtime import HttpRuntime


def compile_http(
    config: HttpConnectionManager,
    tables: Tables,
    stats: StatStore,
    env: CompileEnv,
    field: str,
    *,
    buffer_limit: int,
) -> HttpRuntime:
    """The runtime of a connection manager. Raises ``ConfigError`` under ``field``."""
    upgrades = frozenset(name.lower().encode() for name in config.upgrade_types)
    table = (
        tables.by_name(config.route) if isinstance(config.route, str) else tables.inline(config.route, field)
    )
    server = clean(config.server_name, f"{field}.server_name")
    via = clean(config.via, f"{field}.via")
    return HttpRuntime(
        config=config,
        table=table,
        filters=tuple(
            http_rbac(
                rbac,
                stats.rbac_stats(f"http.{config.stat_prefix}.rbac.{rbac.stat_prefix}"),
                f"{field}.http_filters[{n}]",
            )
            for n, rbac in enumerate(config.rbac)
        ),
        stats=stats.http_stats(config.stat_prefix),
        http2_stats=stats.http2,
        access_logs=tuple(
            compile_access_log(log, env.log_files.open, f"{field}.access_log[{n}]", env.hostname)
            for n, log in enumerate(config.access_log)
        ),
        normalize=compile_normalize(
            normalize_path=config.normalize_path,
            merge_slashes=config.merge_slashes,
            escaped_slashes=config.path_with_escaped_slashes_action,
        ),
        forwarded_client_cert=forwarded_client_cert(
            config.forward_client_cert_details, config.set_current_client_cert_details
        ),
        server_header=b"server: " + server + b"\r\n",
        via_header=b"via: " + via + b"\r\n" if via else b"",
        max_request_headers_bytes=config.max_request_headers_kb * 1024,
        max_headers_count=config.max_headers_count,
        buffer_limit=buffer_limit,
        stream_idle_timeout=config.stream_idle_timeout,
        request_timeout=config.request_timeout,
        request_headers_timeout=config.request_headers_timeout,
        idle_timeout=config.idle_timeout,
        upgrade_types=upgrades,
        rewrite_reply=None
        if config.local_reply is None
        else compile_local_reply(config.local_reply, f"{field}.local_reply_config", env.hostname),
        reject_underscores=config.headers_with_underscores_action == "REJECT_REQUEST",
        no_route=Reply(404, flag="NR", details="route_not_found"),
    )
