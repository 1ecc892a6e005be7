"""Whole configurations: what is compiled, reused, refused, and swapped."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from proxy.cluster.host import Host
from proxy.model.access_log import FileAccessLog, TextLogFormat
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, Endpoint, LoadAssignment, LocalityEndpoints
from proxy.model.config import Config, ConfigError
from proxy.model.connection import ConnectionInfo
from proxy.model.http2 import HTTP2_DEFAULTS
from proxy.model.listener import (
    FilterChain,
    FilterChainMatch,
    HttpConnectionManager,
    Listener,
    TcpProxy,
    TlsInspector,
)
from proxy.model.matcher import HeaderMatcher, PathMatcher, StringMatcher
from proxy.model.rbac import AnyRule, Policy, Rbac, UrlPathRule
from proxy.model.reply import Denied, Reply
from proxy.model.route import (
    DirectResponseAction,
    HeaderMutations,
    HeaderValueOption,
    RedirectAction,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    StreamDuration,
    VirtualHost,
    WeightedCluster,
)
from proxy.model.tls import CommonTls, DownstreamTls
from proxy.runtime.compile import CompileEnv, compile_config
from proxy.runtime.entry import RouteEntry
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import HttpRuntime, Runtime, bound_addresses
from tests.fakes.exchange import FakeExchange, FakeHead

CONN = ConnectionInfo(("192.0.2.1", 1), ("10.0.0.1", 80))


def _assignment(name: str, *ports: int) -> LoadAssignment:
    endpoints = tuple(Endpoint(SocketAddress("10.0.0.9", port)) for port in ports)
    return LoadAssignment(name, (LocalityEndpoints(endpoints),))


def _static(name: str, *ports: int, **more: Any) -> Cluster:
    return Cluster(name, "STATIC", load_assignment=_assignment(name, *ports), **more)


def _route(prefix: str, action: Any, name: str = "r", **more: Any) -> Route:
    return Route(name, RouteMatch(PathMatcher("prefix", prefix)), action, **more)


def _to(*clusters: str, **more: Any) -> RouteAction:
    return RouteAction(tuple(WeightedCluster(c, 1) for c in clusters), **more)


def _table(*routes: Route, name: str = "rc", **more: Any) -> RouteConfiguration:
    return RouteConfiguration(name, (VirtualHost("v", ("*",), routes),), **more)


def _hcm(route: RouteConfiguration | str = "rc", **more: Any) -> HttpConnectionManager:
    return HttpConnectionManager("in", route, **more)


def _listener(terminal: Any = None, name: str = "l", port: int = 8080, **more: Any) -> Listener:
    chain = FilterChain("fc", _hcm() if terminal is None else terminal, **more.pop("chain", {}))
    return Listener(name, SocketAddress("0.0.0.0", port), (chain,), **more)


def _config(
    *listeners: Listener, routes: Any = (), clusters: Any = (), assignments: Any = (), version: str = "1"
) -> Config:
    return Config(
        version,
        {item.name: item for item in listeners},
        {item.name: item for item in routes},
        {item.name: item for item in clusters},
        {item.cluster_name: item for item in assignments},
    )


BASIC = _config(_listener(), routes=[_table(_route("/", _to("c")))], clusters=[_static("c", 1, 2)])


def _hub() -> Hub:
    return Hub(CompileEnv())


def _http(runtime: Runtime, name: str = "l") -> HttpRuntime:
    chain = runtime.listeners[name].find_chain(CONN)
    assert chain is not None
    assert chain.http is not None
    return chain.http


def _match(runtime: Runtime, target: str = "/", *lines: tuple[str, str], host: str = "h") -> RouteEntry:
    head = FakeHead(target, *lines, host=host)
    entry = _http(runtime).table.match(head, CONN, head.target.partition(b"?")[0])
    assert entry is not None
    return entry


def test_an_empty_hub_has_an_empty_runtime() -> None:
    assert (_hub().current.listeners, _hub().current.clusters) == ({}, {})


def test_from_listener_to_host() -> None:
    runtime = _hub().apply(BASIC)
    entry = _match(runtime)
    assert entry.choose is not None
    target = entry.choose()
    assert (entry.name, entry.virtual_host, target.cluster_name) == ("r", "v", "c")
    assert target.cluster is runtime.clusters["c"]
    assert target.cluster is not None
    host = target.cluster.pick()
    assert host is not None
    assert host.label in ("10.0.0.9:1", "10.0.0.9:2")


def test_what_did_not_change_is_the_same_object() -> None:
    hub = _hub()
    old = hub.apply(BASIC)
    new = hub.apply(replace(BASIC, version="2"))
    assert new.version == "2"
    assert new.listeners["l"] is old.listeners["l"]
    assert new.clusters["c"] is old.clusters["c"]


def test_a_change_of_endpoints_alone_leaves_clusters_and_routes_as_they_were() -> None:
    config = replace(BASIC, clusters={"c": Cluster("c", "EDS")}, assignments={"c": _assignment("c", 1, 2)})
    hub = _hub()
    old = hub.apply(config)
    two = old.clusters["c"].hosts[1]
    new = hub.apply(replace(config, assignments={"c": _assignment("c", 2, 3)}))
    assert new.listeners["l"] is old.listeners["l"]
    assert [h.address[1] for h in new.clusters["c"].hosts] == [2, 3]
    assert new.clusters["c"].hosts[0] is two


def test_an_eds_cluster_keeps_its_hosts_while_no_assignment_comes() -> None:
    config = replace(BASIC, clusters={"c": Cluster("c", "EDS", eds_service_name="s")}, assignments={})
    hub = _hub()
    assert hub.apply(config).clusters["c"].pick() is None
    hub.apply(replace(config, assignments={"s": _assignment("s", 1)}))
    changed = {"c": Cluster("c", "EDS", eds_service_name="s", connect_timeout=1.0)}
    assert hub.apply(replace(config, clusters=changed)).clusters["c"].pick() is not None


def test_a_changed_cluster_is_a_new_one_with_the_old_ones_hosts_and_counts() -> None:
    removed: list[Host] = []
    hub = Hub(CompileEnv(on_host_removed=removed.append))
    old = hub.apply(BASIC)
    before = old.clusters["c"]
    before.stats.upstream_rq_total = 5
    assert before.breaker.try_request()
    new = hub.apply(replace(BASIC, clusters={"c": _static("c", 2, 3, connect_timeout=1.0)}))
    after = new.clusters["c"]
    assert after is not before
    assert after.hosts[0] is before.hosts[1]
    assert after.stats.upstream_rq_total == 5
    assert after.breaker.active_requests == 1
    assert [h.label for h in removed] == ["10.0.0.9:1"]
    entry = _match(new)
    assert entry.choose is not None
    assert entry.choose().cluster is after, "routes must lead to the new object"
    assert new.listeners["l"] is not old.listeners["l"]


def test_a_cluster_that_goes_takes_its_hosts_with_it() -> None:
    removed: list[Host] = []
    hub = Hub(CompileEnv(on_host_removed=removed.append))
    hub.apply(BASIC)
    entry = _match(hub.apply(replace(BASIC, clusters={})))
    assert [h.removed for h in removed] == [True, True]
    assert entry.choose is not None
    target = entry.choose()
    assert target.cluster is None
    assert target.not_found == Reply(503, flag="NC", details="cluster_not_found")


def test_a_route_to_a_cluster_that_comes_later() -> None:
    hub = _hub()
    first = hub.apply(replace(BASIC, clusters={}))
    entry = _match(first)
    assert entry.choose is not None
    assert entry.choose().cluster is None
    entry = _match(hub.apply(BASIC))
    assert entry.choose is not None
    assert entry.choose().cluster is not None


def test_a_refused_configuration_changes_nothing() -> None:
    hub = _hub()
    swaps: list[tuple[str, str]] = []
    hub.subscribe(lambda old, new: swaps.append((old.version, new.version)))
    good = hub.apply(BASIC)
    hosts = good.clusters["c"].hosts
    bad_listener = _listener(_hcm(_table(_route("/", DirectResponseAction(7)))), name="bad", port=1)
    bad = replace(
        BASIC,
        version="bad",
        clusters={"c": _static("c", 9)},
        listeners={**BASIC.listeners, "bad": bad_listener},
    )
    with pytest.raises(ConfigError):
        hub.apply(bad)
    assert hub.current is good
    assert good.clusters["c"].hosts == hosts
    assert not any(h.removed for h in hosts)
    assert swaps == [("", "1")]


def test_a_dry_run_touches_nothing() -> None:
    hub = _hub()
    runtime = hub.apply(BASIC)
    hosts = runtime.clusters["c"].hosts
    compile_config(replace(BASIC, clusters={"c": _static("c", 9)}), runtime, CompileEnv())
    compile_config(Config(), runtime, CompileEnv())
    assert runtime.clusters["c"].hosts == hosts
    assert not any(h.removed for h in hosts)


def test_a_listener_warms_until_its_routes_come_and_the_old_one_serves_meanwhile() -> None:
    hub = _hub()
    waiting = hub.apply(replace(BASIC, routes={}))
    assert not waiting.listeners
    assert waiting.warming == {"l"}
    ready = hub.apply(BASIC)
    assert not ready.warming
    again = hub.apply(replace(BASIC, listeners={"l": _listener(_hcm("other"))}))
    assert again.warming == {"l"}
    assert again.listeners["l"] is ready.listeners["l"]


def test_statistics_outlive_a_swap() -> None:
    hub = _hub()
    http = _http(hub.apply(BASIC))
    http.stats.downstream_rq_total = 3
    changed = _http(hub.apply(replace(BASIC, listeners={"l": _listener(_hcm(via="x"))})))
    assert changed is not http
    assert changed.stats.downstream_rq_total == 3


def test_direct_responses_and_redirects() -> None:
    headers = HeaderMutations(response_add=(HeaderValueOption("x-a", "1"),))
    table = _table(
        _route("/d", DirectResponseAction(418, b"tea"), headers=headers),
        _route("/r", RedirectAction("https")),
    )
    runtime = _hub().apply(replace(BASIC, routes={"rc": table}))
    direct = _match(runtime, "/d")
    assert direct.direct == Reply(418, b"tea", details="direct_response")
    assert direct.response_edits is not None
    assert direct.response_edits.extra == b"x-a: 1\r\n"
    redirect = _match(runtime, "/r").redirect
    assert redirect is not None
    assert redirect(b"h", b"/r?x", b"http").headers == b"location: https://h/r?x\r\n"


def test_require_tls_redirects_plaintext() -> None:
    host = VirtualHost("v", ("*",), (_route("/", _to("c")),), require_tls="ALL")
    runtime = _hub().apply(replace(BASIC, routes={"rc": RouteConfiguration("rc", (host,))}))
    redirect = _match(runtime, "/x").redirect
    assert redirect is not None
    assert redirect(b"h:80", b"/x", b"http").headers == b"location: https://h/x\r\n"


def test_forwarding_options() -> None:
    retry = RetryPolicy(("5xx",), 2)
    action = _to(
        "c", prefix_rewrite="/new", host_rewrite_literal="other", timeout=3.0, idle_timeout=4.0, retry_policy=retry,
        cluster_not_found_response_code=404,
    )  # fmt: skip
    entry = _match(_hub().apply(replace(BASIC, routes={"rc": _table(_route("/old", action))})), "/old/x?q")
    assert entry.rewrite_target is not None
    assert entry.rewrite_target(b"/old/x?q") == b"/new/x?q"
    assert (entry.host_rewrite, entry.timeout, entry.idle_timeout, entry.retry) == (b"other", 3.0, 4.0, retry)
    assert entry.choose is not None
    assert entry.choose().not_found.status == 404


def test_header_edits_of_all_levels_with_operators() -> None:
    def add(name: str, value: str) -> HeaderMutations:
        return HeaderMutations(request_add=(HeaderValueOption(name, value),), request_remove=("x-gone",))

    action = RouteAction((WeightedCluster("c", 1, add("x-w", "w")), WeightedCluster("c", 1, add("x-w", "w"))))
    host = VirtualHost(
        "v", ("*",), (_route("/", action, headers=add("x-r", "%REQ(x-q)%|%PROTOCOL%")),), add("x-v", "50%%")
    )
    table = RouteConfiguration("rc", (host,), add("x-t", "t"))
    entry = _match(_hub().apply(replace(BASIC, routes={"rc": table})))
    assert entry.choose is not None
    edits = entry.choose().request_edits
    assert edits is not None
    assert edits.render is not None
    head = FakeHead("/", ("x-q", "a"), ("x-gone", "1"))
    assert edits.render(head, FakeExchange(head)) == (
        frozenset((b"x-gone",)),
        b"x-w: w\r\nx-r: a|HTTP/1.1\r\nx-v: 50%\r\nx-t: t\r\n",
    )


def test_a_value_with_operators_cannot_make_a_line() -> None:
    headers = HeaderMutations(request_add=(HeaderValueOption("x-r", "%REQ(x-q)%"),))
    entry = _match(
        _hub().apply(replace(BASIC, routes={"rc": _table(_route("/", _to("c"), headers=headers))}))
    )
    assert entry.choose is not None
    edits = entry.choose().request_edits
    assert edits is not None
    assert edits.render is not None
    head = FakeHead("/", ("x-q", "a\r\nx-admin: 1"))
    assert edits.render(head, FakeExchange(head)) == (frozenset(), b"x-r: ax-admin: 1\r\n")


def test_splits_lead_to_each_cluster() -> None:
    action = RouteAction((WeightedCluster("a", 3), WeightedCluster("b", 1)))
    config = replace(
        BASIC,
        routes={"rc": _table(_route("/", action))},
        clusters={"a": _static("a", 1), "b": _static("b", 1)},
    )
    entry = _match(_hub().apply(config))
    assert entry.choose is not None
    counts = Counter(entry.choose().cluster_name for _ in range(4000))
    assert 2850 < counts["a"] < 3150


def test_filters_run_policies() -> None:
    deny = Rbac("DENY", (Policy("p", (UrlPathRule(StringMatcher("prefix", "/admin")),), (AnyRule(),)),))
    http = _http(_hub().apply(replace(BASIC, listeners={"l": _listener(_hcm(rbac=(deny,)))})))
    (check,) = http.filters
    assert check(FakeExchange(FakeHead("/a"))) is None
    refused = check(FakeExchange(FakeHead("/admin")))
    assert refused is not None
    assert refused.status == 403


def test_network_filters_and_tcp() -> None:
    deny = Rbac("DENY", (Policy("p", (AnyRule(),), (AnyRule(),)),), stat_prefix="n.")
    tcp = TcpProxy("t", (WeightedCluster("c", 1),))
    hub = _hub()
    runtime = hub.apply(replace(BASIC, listeners={"l": _listener(tcp, chain={"rbac": (deny,)})}))
    chain = runtime.listeners["l"].find_chain(CONN)
    assert chain is not None
    assert chain.http is None
    assert chain.tcp is not None
    assert chain.tcp.choose().cluster is runtime.clusters["c"]
    assert chain.network_filters[0](CONN) == Denied("rbac_access_denied_matched_policy[p]")
    assert runtime.stats.rbac["n.rbac."].denied == 1
    changed = hub.apply(replace(hub.current.config, clusters={"c": _static("c", 1, connect_timeout=1.0)}))
    chain = changed.listeners["l"].find_chain(CONN)
    assert chain is not None
    assert chain.tcp is not None
    assert chain.tcp.choose().cluster is changed.clusters["c"]


def test_handoff_prefers_the_exact_address() -> None:
    def silent(name: str, host: str, port: int, **more: Any) -> Listener:
        return Listener(
            name, SocketAddress(host, port), _listener().filter_chains, bind_to_port=False, **more
        )

    config = replace(
        BASIC,
        listeners={
            item.name: item
            for item in (
                silent("any", "0.0.0.0", 80), silent("vip", "10.9.0.1", 80), silent("six", "::", 80),
                silent("both", "::", 81, ipv4_compat=True), _listener(name="bound", port=82),
            )
        },
    )  # fmt: skip
    runtime = _hub().apply(config)
    found = {
        key: None if (item := runtime.handoff(*key)) is None else item.name
        for key in (("10.9.0.1", 80), ("10.9.0.2", 80), ("fd00::1", 80), ("10.9.0.1", 81), ("10.9.0.1", 82))
    }
    assert list(found.values()) == ["vip", "any", "six", "both", None]


def test_two_listeners_for_one_address_are_an_error() -> None:
    twin = replace(_listener(name="m"), bind_to_port=False)
    config = replace(BASIC, listeners={"l": replace(_listener(), bind_to_port=False), "m": twin})
    with pytest.raises(ConfigError, match="already the address of listener 'l'") as caught:
        _hub().apply(config)
    assert caught.value.path == "listener[m].address"


def test_rebind_follows_a_swap_or_drains() -> None:
    hub = _hub()
    chain = hub.apply(BASIC).listeners["l"].find_chain(CONN)
    assert chain is not None
    assert hub.current.rebind(chain, CONN) is chain
    changed = hub.apply(replace(BASIC, routes={"rc": _table(_route("/new", _to("c")))}))
    now = changed.rebind(chain, CONN)
    assert now is not None
    assert now is not chain
    tls = DownstreamTls(CommonTls())
    assert (
        hub.apply(replace(BASIC, listeners={"l": _listener(chain={"tls": tls})})).rebind(chain, CONN) is None
    )
    tcp = TcpProxy("t", (WeightedCluster("c", 1),))
    assert hub.apply(replace(BASIC, listeners={"l": _listener(tcp)})).rebind(chain, CONN) is None
    assert hub.apply(replace(BASIC, listeners={})).rebind(chain, CONN) is None


def test_listener_options() -> None:
    config = _listener(listener_filters=("original_dst", "tls_inspector"))
    runtime = _hub().apply(replace(BASIC, listeners={"l": config})).listeners["l"]
    assert (runtime.inspections, runtime.original_dst, runtime.use_original_dst) == (
        (TlsInspector(),),
        True,
        False,
    )
    assert runtime.stats is not None
    extra = SocketAddress("::1", 1)
    assert bound_addresses(replace(config, additional_addresses=(extra,))) == (config.address, extra)
    assert bound_addresses(replace(config, bind_to_port=False)) == ()


def _with(**changes: Any) -> Config:
    return replace(BASIC, **changes)


def _chained(**chain: Any) -> Config:
    return _with(listeners={"l": _listener(chain=chain)})


def _hcm_with(**options: Any) -> Config:
    return _with(listeners={"l": _listener(_hcm(**options))})


@pytest.mark.parametrize(
    ("options", "timeout", "longest", "deprecated"),
    [
        ({}, 15.0, None, (None, 0.0)),
        ({"max_grpc_timeout": 0.0, "grpc_timeout_offset": 1.0}, 15.0, None, (0.0, 1.0)),
        ({"stream_duration": StreamDuration()}, 0.0, None, (None, 0.0)),
        ({"stream_duration": StreamDuration(0.0)}, 0.0, 0.0, (None, 0.0)),
        ({"stream_duration": StreamDuration(2.0, 3.0, 0.5), "max_grpc_timeout": 9.0}, 0.0, 2.0, (None, 0.0)),
    ],
)
def test_who_limits_streams_as_a_whole_has_no_other_timeout(
    options: dict[str, Any],
    timeout: float,
    longest: float | None,
    deprecated: tuple[float | None, float],
) -> None:
    table = _http(_hub().apply(_routed(_route("/", _to("c", **options))))).table
    entry = table.match(FakeHead("/"), CONN, b"/")
    assert entry is not None
    assert (entry.timeout, entry.max_stream_duration) == (timeout, longest)
    assert entry.stream_duration == options.get("stream_duration")
    assert (entry.max_grpc_timeout, entry.grpc_timeout_offset) == deprecated


@pytest.mark.parametrize("protocol", ["HTTP2", "AUTO", "DOWNSTREAM"])
def test_every_protocol_compiles_on_both_sides(protocol: Any) -> None:
    runtime = _hub().apply(_with(clusters={"c": _static("c", 1, protocol=protocol)}))
    assert runtime.clusters["c"].config.protocol == protocol
    runtime = _hub().apply(_hcm_with(codec_type="HTTP2"))
    http = _http(runtime)
    assert http.config.http2 is HTTP2_DEFAULTS
    assert http.http2_stats is runtime.stats.http2


def _routed(*routes: Route) -> Config:
    return _with(routes={"rc": _table(*routes)})


def _hosts(*hosts: VirtualHost) -> Config:
    return _with(routes={"rc": RouteConfiguration("rc", hosts)})


FC = "listener[l].filter_chains[0]"
RT = "route_config[rc].virtual_hosts[0].routes[0]"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (_with(listeners={"l": Listener("l", SocketAddress("::", 1))}), "listener[l].filter_chains"),
        (_chained(match=FilterChainMatch(server_names=("a",))), f"{FC}.filter_chain_match"),
        (_hcm_with(server_name="a\r\nb"), f"{FC}.filters[0].server_name"),
        (_hcm_with(access_log=(FileAccessLog("/x", TextLogFormat("%NO%")),)),
         f"{FC}.filters[0].access_log[0].text_format"),
        (_hcm_with(rbac=(Rbac("ALLOW", (Policy("p", (), ()),)),)),
         f"{FC}.filters[0].http_filters[0].rules.policies[p]"),
        (_hcm_with(route=_table(_route("/", DirectResponseAction(42)))),
         f"{FC}.filters[0].route_config.virtual_hosts[0].routes[0].direct_response.status"),
        (_routed(_route("/", RouteAction(()))), f"{RT}.route.cluster"),
        (_routed(_route("/", RouteAction((WeightedCluster("a", 0), WeightedCluster("b", 0))))),
         f"{RT}.route.weighted_clusters"),
        (_routed(Route("r", RouteMatch(PathMatcher("safe_regex", "(?=x)")), _to("c"))), f"{RT}.match.safe_regex"),
        (_routed(Route("r", RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher(":x"),)), _to("c"))),
         f"{RT}.match.headers[0].name"),
        (_routed(_route("/", _to("c"), headers=HeaderMutations(request_add=(HeaderValueOption("a", "%NO%"),)))),
         f"{RT}.request_headers_to_add[0].header.value"),
        (_routed(_route("/", _to("c"), headers=HeaderMutations(response_remove=(":status",)))),
         f"{RT}.response_headers_to_remove[0]"),
        (_hosts(VirtualHost("v", (), ()),),
         "route_config[rc].virtual_hosts[0].domains"),
        (_hosts(VirtualHost("v", ("a",), ()), VirtualHost("w", ("b", "A"), ())),
         "route_config[rc].virtual_hosts[1].domains[1]"),
        (_hosts(VirtualHost("v", ("a",), ()), VirtualHost("v", ("b",), ())),
         "route_config[rc].virtual_hosts[1].name"),
        (_hosts(VirtualHost("v", ("a",), (), require_tls="EXTERNAL_ONLY"),),
         "route_config[rc].virtual_hosts[0].require_tls"),
        (_with(clusters={"c": Cluster("c", "ORIGINAL_DST")}), "cluster[c].lb_policy"),
        (_with(clusters={"c": _static("c", 1, lb_policy="CLUSTER_PROVIDED")}), "cluster[c].lb_policy"),
        (_with(clusters={"c": Cluster("c", "DNS_SRV")}), "cluster[c].cluster_type.typed_config"),
        (_with(clusters={"c": _static("c", 1, choice_count=1)}), "cluster[c].least_request_lb_config.choice_count"),
        (_with(clusters={"c": Cluster("c", "STATIC", load_assignment=LoadAssignment("c", (LocalityEndpoints(
            (Endpoint(SocketAddress("10.0.0.1", 1)), Endpoint(SocketAddress("db", 1)))),)))}),
         "cluster[c].load_assignment.endpoints[0].lb_endpoints[1].endpoint.address"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_its_field(config: Config, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _hub().apply(config)
    assert caught.value.path == field
