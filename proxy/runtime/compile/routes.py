"""Route configurations to tables, and each route to its entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.cluster.cluster import Cluster
from proxy.model.config import ConfigError
from proxy.model.matcher import PathMatcher
from proxy.model.reply import Reply
from proxy.model.route import (
    DirectResponseAction,
    HeaderMutations,
    HeaderValueOption,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
)
from proxy.observe.store import StatStore
from proxy.route.domains import Domains
from proxy.route.edits import HeaderEdits, compile_edits
from proxy.route.match import RouteTable, Rule, VirtualHostTable
from proxy.route.predicate import compile_path, compile_request
from proxy.route.rewrite import clean, compile_prefix_rewrite, compile_redirect
from proxy.route.weighted import compile_choice
from proxy.runtime.compile.env import CompileEnv
from proxy.runtime.compile.values import value_compiler
from proxy.runtime.entry import CompiledTable, RouteEntry, Target

Levels = tuple[tuple[HeaderMutations, str], ...]
_ANY_PATH = PathMatcher("prefix", "/")


class Tables:
    """The route tables of one compilation. A table is made once for each configuration, and reused from before."""

    __slots__ = ("_clusters", "_env", "_previous", "_routes", "_stats", "compiled")

    def __init__(
        self,
        routes: Mapping[str, RouteConfiguration],
        clusters: Mapping[str, Cluster],
        stats: StatStore,
        env: CompileEnv,
        previous: Mapping[str, CompiledTable] | None,
    ) -> None:
        self._routes = routes
        self._clusters = clusters
        self._stats = stats
        self._env = env
        self._previous = previous or {}
        self.compiled: dict[str, CompiledTable] = {}
        for name, config in routes.items():
            self._table(f"rds:{name}", config, f"route_config[{name}]")

    def by_name(self, name: str) -> RouteTable[RouteEntry]:
        """The table that came by RDS under ``name``."""
        return self.compiled[f"rds:{name}"].table

    def inline(self, config: RouteConfiguration, field: str) -> RouteTable[RouteEntry]:
        """The table of a ``route_config`` within a filter at ``field``."""
        return self._table(field, config, f"{field}.route_config")

    def _table(self, key: str, config: RouteConfiguration, field: str) -> RouteTable[RouteEntry]:
        before = self._previous.get(key)
        if (
            before is not None
            and before.config == config
            and all(self._clusters.get(name) is cluster for name, cluster in before.clusters)
        ):
            self.compiled[key] = before
            return before.table
        compiler = RouteCompiler(self._clusters, self._stats, self._env)
        table = compiler.table(config, field)
        names = tuple((name, self._clusters.get(name)) for name in sorted(compiler.used))
        self.compiled[key] = CompiledTable(config, names, table)
        return table


class RouteCompiler:
    """Compiles one table; ``used`` collects the names of the clusters it leads to."""

    __slots__ = ("_clusters", "_env", "_stats", "_value", "used")

    def __init__(self, clusters: Mapping[str, Cluster], stats: StatStore, env: CompileEnv) -> None:
        self._clusters = clusters
        self._stats = stats
        self._env = env
        self._value = value_compiler(env.hostname)
        self.used: set[str] = set()

    def table(self, config: RouteConfiguration, field: str) -> RouteTable[RouteEntry]:
        """The table of a route configuration. Raises ``ConfigError`` under ``field``."""
        domains: list[tuple[str, VirtualHostTable[RouteEntry], str]] = []
        names: set[str] = set()
        for n, host in enumerate(config.virtual_hosts):
            path = f"{field}.virtual_hosts[{n}]"
            if host.name in names:
                raise ConfigError(f"{path}.name", f"{host.name!r} is already taken")
            names.add(host.name)
            if not host.domains:
                raise ConfigError(f"{path}.domains", "at least one domain is needed")
            compiled = self._virtual_host(host, ((config.headers, field),), path)
            domains += [(domain, compiled, f"{path}.domains[{m}]") for m, domain in enumerate(host.domains)]
        return RouteTable(config.name, Domains(domains, ignore_port=config.ignore_port_in_host_matching))

    def _virtual_host(self, host: VirtualHost, outer: Levels, field: str) -> VirtualHostTable[RouteEntry]:
        levels = ((host.headers, field), *outer)
        rules: list[Rule[RouteEntry]] = []
        connect_rules: list[Rule[RouteEntry]] = []
        for n, route in enumerate(host.routes):
            path = f"{field}.routes[{n}]"
            (connect_rules if route.match.path.kind == "connect_matcher" else rules).append(
                (
                    compile_path(route.match.path, f"{path}.match"),
                    compile_request(route.match, f"{path}.match"),
                    self._entry(route, host, levels, path),
                )
            )
        if host.require_tls == "EXTERNAL_ONLY":
            raise ConfigError(f"{field}.require_tls", "EXTERNAL_ONLY is not supported; use ALL or NONE")
        https_only = None
        if host.require_tls == "ALL":
            redirect = compile_redirect(RedirectAction(scheme="https"), _ANY_PATH, f"{field}.require_tls")
            https_only = RouteEntry("", host.name, self._stats.route_stats(host.name, ""), redirect=redirect)
        return VirtualHostTable(tuple(rules), https_only, tuple(connect_rules))

    def _entry(self, route: Route, host: VirtualHost, outer: Levels, field: str) -> RouteEntry:
        virtual_host = host.name
        levels = ((route.headers, field), *outer)
        stats = self._stats.route_stats(virtual_host, route.name)
        action = route.action
        if isinstance(action, DirectResponseAction):
            if not 200 <= action.status <= 599:
                raise ConfigError(f"{field}.direct_response.status", f"{action.status} is not in 200..599")
            direct = Reply(action.status, action.body, details="direct_response")
            return RouteEntry(
                route.name, virtual_host, stats, direct=direct, response_edits=self._edits(levels, "response")
            )
        if isinstance(action, RedirectAction):
            redirect = compile_redirect(action, route.match.path, f"{field}.redirect")
            return RouteEntry(
                route.name,
                virtual_host,
                stats,
                redirect=redirect,
                response_edits=self._edits(levels, "response"),
            )
        return self._forward(route, action, host, levels, field)

    def _forward(
        self, route: Route, action: RouteAction, host: VirtualHost, levels: Levels, field: str
    ) -> RouteEntry:
        virtual_host = host.name
        counted = _attempt_count(host, field)
        path = f"{field}.route"
        where = f"{path}.weighted_clusters" if len(action.clusters) > 1 else f"{path}.cluster"
        missing = Reply(action.cluster_not_found_response_code, flag="NC", details="cluster_not_found")
        targets = [
            (
                share.weight,
                self._target(share, missing, ((share.headers, f"{where}.clusters[{n}]"), *levels, *counted)),
            )
            for n, share in enumerate(action.clusters)
        ]
        rewrite = None
        if action.prefix_rewrite and route.match.path.kind == "connect_matcher":
            raise ConfigError(f"{path}.prefix_rewrite", "a CONNECT request has no path")
        if action.prefix_rewrite:
            rewrite = compile_prefix_rewrite(
                route.match.path, action.prefix_rewrite, f"{path}.prefix_rewrite"
            )
        duration = action.stream_duration
        host_rewrite = None
        if action.host_rewrite_literal:
            host_rewrite = clean(action.host_rewrite_literal, f"{path}.host_rewrite_literal")
        return RouteEntry(
            route.name,
            virtual_host,
            self._stats.route_stats(virtual_host, route.name),
            choose=compile_choice(targets, self._env.random, where),
            # As in Envoy: who limits the stream as a whole means that and no other timeout.
            timeout=action.timeout if duration is None else 0.0,
            idle_timeout=action.idle_timeout,
            retry=action.retry_policy,
            buffers=route.buffers,
            rewrite_target=rewrite,
            host_rewrite=host_rewrite,
            response_edits=self._edits(levels, "response"),
            upgrades={kind.encode(): on for kind, on in action.upgrades} or None,
            terminates_connect=action.terminates_connect,
            max_stream_duration=None if duration is None else duration.max_stream_duration,
            stream_duration=duration,
            max_grpc_timeout=action.max_grpc_timeout if duration is None else None,
            grpc_timeout_offset=action.grpc_timeout_offset,
            append_x_forwarded_host=action.append_x_forwarded_host,
            counts_attempts=host.include_request_attempt_count,
        )

    def _target(self, share: WeightedCluster, missing: Reply, levels: Levels) -> Target:
        self.used.add(share.name)
        return Target(
            share.name,
            self._clusters.get(share.name),
            missing,
            self._edits(levels, "request"),
            self._edits(levels, "response"),
        )

    def _edits(self, levels: Levels, side: str) -> HeaderEdits | None:
        chosen = [
            (h.request_add, h.request_remove, f"{field}.request_headers")
            if side == "request"
            else (h.response_add, h.response_remove, f"{field}.response_headers")
            for h, field in levels
        ]
        return compile_edits(chosen, self._value)


def _attempt_count(host: VirtualHost, field: str) -> Levels:
    """``x-envoy-attempt-count``: the client's goes, ours is made per try; the response is told the last one."""
    if not (host.include_request_attempt_count or host.include_attempt_count_in_response):
        return ()
    name = "x-envoy-attempt-count"
    told = HeaderValueOption(name, "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "OVERWRITE_IF_EXISTS_OR_ADD")
    return (
        (
            HeaderMutations(
                request_remove=(name,) if host.include_request_attempt_count else (),
                response_add=(told,) if host.include_attempt_count_in_response else (),
            ),
            field,
        ),
    )


def compile_tcp_choice(
    shares: tuple[WeightedCluster, ...],
    clusters: Mapping[str, Cluster],
    random: Callable[[], float],
    field: str,
) -> Callable[[], Target]:
    """The choice of a cluster for a TCP connection."""
    missing = Reply(0, flag="NC", details="cluster_not_found")
    targets = [(share.weight, Target(share.name, clusters.get(share.name), missing)) for share in shares]
    return compile_choice(targets, random, field)
