"""The same health checks in a real Envoy and in Tulle's sidecar: what is asked, what becomes of the hosts, who gets the
requests, and what is counted."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.sidecar import Mesh, dial, spiffe
from tests.support.envoy_process import EnvoyProcess
from tests.support.health_backends import (
    NOT_SERVING,
    SERVING,
    Json,
    Server,
    check,
    cluster,
    grpc,
    http,
    says,
    servers,
    serving,
    tcp,
)
from tests.support.sidecar_process import Process, free_port, get

WAIT = 60.0
V3 = "type.googleapis.com/envoy.extensions.filters"
#: What is compared of a cluster's statistics.
COUNTED = (
    *("health_check.", "membership_", "ssl.handshake", "ssl.fail", "ssl.connection_error"),
    *("http2.tx_reset", "http2.rx_reset", "http2.streams_active"),
    *("upstream_cx_total", "upstream_cx_active", "upstream_rq_total", "upstream_cx_connect_fail"),
)


class Proxy:
    """``admin(path)`` is the text of an admin page; ``port`` that of the listener ``in``, one of ``ports``."""

    def __init__(self, ports: dict[str, int], admin: Callable[[str], str]) -> None:
        self.ports = ports
        self.port = ports["in"]
        self._admin = admin

    async def page(self, path: str) -> str:
        return await asyncio.to_thread(self._admin, path)

    async def flags(self) -> dict[str, dict[int, str]]:
        """The health flags by cluster and port."""
        found: dict[str, dict[int, str]] = {}
        for line in (await self.page("/clusters")).splitlines():
            parts = line.split("::")
            if len(parts) == 4 and parts[2] == "health_flags":
                found.setdefault(parts[0], {})[int(parts[1].rpartition(":")[2])] = parts[3]
        return found

    async def stats(self) -> dict[str, int]:
        found = {}
        for line in (await self.page("/stats")).splitlines():
            name, _, value = line.partition(": ")
            if name.startswith("cluster.") and value.isdigit():
                found[name.removeprefix("cluster.")] = int(value)
        return found

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(WAIT):
            while not await condition():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


def document(clusters: list[Json], port: Callable[[str], int]) -> Json:
    """A listener ``in`` that knows all clusters by their paths, and one that relays to each TCP cluster."""

    def address(name: str) -> Json:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port(name)}}

    manager = {
        "@type": f"{V3}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "v",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": f"/{one['name']}/"},
                            "route": {"cluster": one["name"]},
                        }
                        for one in clusters
                    ],
                }
            ]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{V3}.http.router.v3.Router"}}],
    }
    filters = {"in": {"name": "http", "typed_config": manager}}
    for one in clusters:
        if one["name"].startswith("relayed"):
            proxy = {
                "@type": f"{V3}.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": one["name"],
                "cluster": one["name"],
            }
            filters[one["name"]] = {"name": "tcp", "typed_config": proxy}
    listeners = [
        {"name": name, "address": address(name), "filter_chains": [{"filters": [made]}]}
        for name, made in filters.items()
    ]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


@asynccontextmanager
async def envoy(clusters: list[Json], directory: Path) -> AsyncIterator[Proxy]:
    process = await asyncio.to_thread(EnvoyProcess, document(clusters, lambda name: 0), directory)
    try:
        yield Proxy(process.ports, process.admin)
    finally:
        await asyncio.to_thread(process.stop)


@asynccontextmanager
async def tulle(clusters: list[Json], directory: Path, workers: int = 1) -> AsyncIterator[Proxy]:
    ports: dict[str, int] = {}

    def port(name: str) -> int:
        ports[name] = free_port()
        return ports[name]

    admin = free_port()
    address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    file = directory / "tulle.json"
    file.write_text(json.dumps({"admin": {"address": address}, **document(clusters, port)}))
    process = Process(directory / "tulle.log", "proxy", "-c", str(file), "--workers", str(workers))
    made = Proxy(ports, lambda path: get(admin, path)[1])

    async def ready() -> bool:
        assert process.popen.poll() is None, process.log()
        return await made.page("/ready") == "LIVE\n"

    try:
        await made.until(ready)
        yield made
    finally:
        await asyncio.to_thread(process.end, signal.SIGTERM)


async def first_round(
    proxy: Any,
    directory: Path,
    given: dict[str, Server],
    *,
    tls: tuple[ssl.SSLContext, Json] | None = None,
    answers: int | None = None,
    asked: int | None = None,
) -> dict[str, Any]:
    """What each server was asked, and what came of it. ``tls``: the servers', and the clusters' transport socket.
    ``answers``: so many come from all servers together, where that is not one from each, and ``asked`` is how often
    they were asked then, where that is not once more of each."""
    async with serving(given, None if tls is None else tls[0]):
        clusters = [cluster(name, server) for name, server in given.items()]
        if tls is None and answers is None:
            clusters.append(cluster("refused", given["http-ok"], free_port()))
        if tls is not None:
            for one in clusters:
                one["transport_socket"] = tls[1]
        async with proxy(clusters, directory) as running:

            async def answered() -> bool:
                stats = await running.stats()
                attempts, passed, failed = (
                    sum(value for name, value in stats.items() if name.endswith(f".health_check.{which}"))
                    for which in ("attempt", "success", "failure")
                )
                if answers is None:
                    return attempts == passed + failed == len(clusters)
                return passed + failed == answers and attempts == (asked or answers + len(clusters))

            await running.until(answered)
            flags = {name: list(hosts.values()) for name, hosts in (await running.flags()).items()}
            stats = await running.stats()
        found: dict[str, Any] = {}
        for one in clusters:
            name = one["name"]
            counted = {
                key: stats[f"{name}.{key}"]
                for key in (full.removeprefix(f"{name}.") for full in stats if full.startswith(f"{name}."))
                if key.startswith(COUNTED) and stats[f"{name}.{key}"]
            }
            heard = given[name].asked if name in given else []
            found[name] = {"asked": heard, "flags": flags[name], "stats": counted}
        return found


async def test_the_first_round(tmp_path: Path) -> None:
    sides = []
    for proxy in (envoy, tulle):
        directory = tmp_path / proxy.__name__
        directory.mkdir()
        sides.append(await first_round(proxy, directory, servers()))
    compare(*sides)


@pytest.mark.parametrize("name", ["server", "other"])
async def test_the_first_round_by_mutual_tls(name: str, tmp_path: Path) -> None:
    mesh = Mesh()
    ca, pem = tmp_path / "ca.pem", tmp_path / "client.pem"
    ca.write_text(mesh.root.pem)
    pem.write_bytes(mesh.pem("client"))
    served = tmp_path / "server.pem"
    served.write_bytes(mesh.pem("server"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2", "http/1.1"])
    san = {"san_type": "URI", "matcher": {"exact": spiffe(name)}}
    common = {
        "tls_certificates": [
            {"certificate_chain": {"filename": str(pem)}, "private_key": {"filename": str(pem)}}
        ],
        "validation_context": {"trusted_ca": {"filename": str(ca)}, "match_typed_subject_alt_names": [san]},
    }
    socket = {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": common,
        },
    }
    sides = []
    for proxy in (envoy, tulle):
        h2, h1 = (
            {"tls_options": {"alpn_protocols": ["h2"]}},
            {"tls_options": {"alpn_protocols": ["http/1.1"]}},
        )
        given = {
            "grpc": grpc(SERVING, h2),
            "http": http(says(200), h1),
            "tcp-connect": tcp("silent"),
            "tcp-match": tcp(b"PONG", "50494e47", "504f4e47"),
        }
        directory = tmp_path / proxy.__name__
        directory.mkdir()
        sides.append(await first_round(proxy, directory, given, tls=(context, socket)))
    compare(*sides)
    healthy = name == "server"
    assert {key: found["flags"] == ["healthy"] for key, found in sides[1].items()} == dict.fromkeys(
        given, healthy
    )
    assert bool(sides[1]["grpc"]["asked"]) == healthy


async def test_bytes_that_envoy_forgets(tmp_path: Path) -> None:
    """A difference: ``send`` in ``binary`` is sent."""
    asks = {"send": {"binary": "UElORw=="}, "receive": [{"text": "504f4e47"}]}
    for proxy, flags, asked in (
        (envoy, "/failed_active_hc/active_hc_timeout", []),
        (tulle, "healthy", [b"PING"]),
    ):
        directory = tmp_path / proxy.__name__
        directory.mkdir()
        given = {"tcp": Server("tcp", check(tcp_health_check=asks), [b"PONG"])}
        found = await first_round(proxy, directory, given, answers=1, asked=1)
        assert (found["tcp"]["flags"], found["tcp"]["asked"]) == ([flags], asked)


#: What the letters stand for: passed, failed, may be tried again, degraded, closed; then those of gRPC, and of TCP.
WORDS = {
    "http": {
        "o": says(200),
        "f": says(500),
        "r": says(429),
        "d": says(200, b"x-envoy-degraded: 1"),
        "x": says(503, b"x-envoy-immediate-health-check-fail: 1"),
        "l": says(200, b"connection: close"),
        "c": "close",
    },
    "grpc": {"o": SERVING, "f": NOT_SERVING, "r": "reset", "g": "goaway", "h": "html"},
    "tcp": {"o": b"PONG", "c": "close"},
}
STORIES = {
    "http": (
        *(
            "o",
            "f",
            "fo",
            "foo",
            "fooo",
            "foofoo",
            "oof",
            "or",
            "orr",
            "oror",
            "oc",
            "occ",
            "ococ",
            "rooo",
            "cooo",
        ),
        *("odo", "df", "odf", "fdoo", "fddd", "d", "xo", "xooo", "ox", "oxooo", "lll", "lfl"),
    ),
    "grpc": ("oo", "of", "ofo", "ofooo", "or", "orr", "ororr", "og", "ogg", "rooo", "gooo", "ohooo", "hh"),
    "tcp": ("oo", "oc", "occ", "cooo", "ococ"),
}


async def test_what_many_answers_come_to(tmp_path: Path) -> None:
    soon = {
        name: "0.02s"
        for name in ("interval", "no_traffic_interval", "unhealthy_interval", "unhealthy_edge_interval")
    }
    common = {"timeout": "30s", "healthy_threshold": 3, **soon}
    kinds: dict[str, Json] = {
        "http": {"http_health_check": {"path": "/", "retriable_statuses": [{"start": 429, "end": 430}]}},
        "grpc": {"grpc_health_check": {}},
        "tcp": {"tcp_health_check": {"send": {"text": "50"}, "receive": [{"text": "504f4e47"}]}},
    }
    sides = []
    for proxy in (envoy, tulle):
        given = {
            f"{kind}-{story}": Server(
                kind, check(**kinds[kind], **common), [WORDS[kind][letter] for letter in story]
            )
            for kind, stories in STORIES.items()
            for story in stories
        }
        directory = tmp_path / proxy.__name__
        directory.mkdir()
        answers = sum(map(len, (story for stories in STORIES.values() for story in stories)))
        sides.append(await first_round(proxy, directory, given, answers=answers))
    for name in ("http-odo", "http-fdoo"):
        # Envoy goes on to count who is degraded no more.
        assert sides[0][name]["stats"].pop("health_check.degraded") == 1
    compare(*sides)


def compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    differing = [
        f"{name} {key}: {expected[name][key]} {found[name][key]}"
        for name in expected
        for key in expected[name]
        if expected[name][key] != found[name][key]
    ]
    assert not differing, "\n".join(differing)


async def replies(proxy: Proxy, cluster: str, count: int = 20) -> set[bytes]:
    """Who answers the requests to a cluster."""
    found = set()
    peer = await dial(proxy.port)
    for _ in range(count):
        peer.send(b"GET /%b/ HTTP/1.1\r\nhost: h\r\n\r\n" % cluster.encode())
        status, _, body = await peer.response()
        found.add(body if status != 503 else b"503 " + body)
    peer.close()
    return found


FAST = {
    name: "0.05s"
    for name in ("interval", "no_traffic_interval", "unhealthy_interval", "healthy_edge_interval")
}


async def changing(proxy: Any, directory: Path, workers: int) -> list[Any]:
    """Two hosts, one of which changes its mind: who gets the requests, and the gauges, at each step."""
    one = Server("http", check(http_health_check={"path": "/healthz"}, **FAST), says(200, body=b"one"))
    other = Server("http", one.check, says(200, body=b"other"))
    asked = Server("grpc", check(grpc_health_check={}, **FAST), SERVING)
    story: list[Any] = []
    async with serving({"one": one, "other": other, "asked": asked}):
        ports = one.port, other.port
        panicky = cluster("panicky", one, *ports)
        calm = cluster("calm", one, *ports) | {
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        }
        rpc = cluster("rpc", asked)
        if proxy is envoy:
            # Its workers are told at once, then.
            for made in (panicky, calm):
                made.setdefault("common_lb_config", {})["update_merge_window"] = "0s"
        more = {"workers": workers} if workers > 1 else {}
        async with proxy([panicky, calm, rpc], directory, **more) as running:

            async def step(wanted: dict[str, list[str]]) -> None:
                async def there() -> bool:
                    flags = await running.flags()
                    return {
                        name: [hosts[port] for port in ports if port in hosts] or list(hosts.values())
                        for name, hosts in flags.items()
                    } == wanted

                await running.until(there)
                stats = await running.stats()
                gauges = ("health_check.healthy", "health_check.degraded", "membership_healthy")
                story.append({name: stats[name] for name in stats if name.endswith(gauges)})
                story.append([await replies(running, name) for name in ("panicky", "calm")])

            failed = "/failed_active_hc"
            both = {"panicky": ["healthy"] * 2, "calm": ["healthy"] * 2, "rpc": ["healthy"]}
            await step(both)
            one.answer, asked.answer = says(500, body=b"one"), NOT_SERVING
            half = [failed, "healthy"]
            await step({"panicky": half, "calm": half, "rpc": [failed]})
            other.answer = says(503, body=b"other")
            await step({"panicky": [failed] * 2, "calm": [failed] * 2, "rpc": [failed]})
            one.answer, other.answer = says(200, body=b"one"), says(200, body=b"other")
            asked.answer = SERVING
            await step(both)
    return story


async def test_who_gets_the_requests_when_hosts_change(tmp_path: Path) -> None:
    sides = []
    for proxy, workers in ((envoy, 1), (tulle, 1), (tulle, 2)):
        directory = tmp_path / f"{proxy.__name__}-{workers}"
        directory.mkdir()
        sides.append(await changing(proxy, directory, workers))
    expected, *found = sides
    assert expected[1][0] == {b"one", b"other"}
    for story in found:
        assert story == expected


@pytest.mark.parametrize("proxy", [envoy, tulle])
async def test_connections_to_a_host_that_fails(proxy: Any, tmp_path: Path) -> None:
    """Idle ones for HTTP are not kept, relayed ones if so configured."""
    app = Server("http", {}, says(200, body=b"app"))
    healthy = Server("http", check(http_health_check={"path": "/"}, **FAST), says(200))
    async with serving({"app": app, "healthy": healthy}):
        app.check = healthy.check
        pooled, kept, closed = (cluster(name, app) for name in ("pooled", "relayed", "relayed-close"))
        closed["close_connections_on_host_health_failure"] = True
        for made in (pooled, kept, closed):
            ((endpoint,),) = [one["lb_endpoints"] for one in made["load_assignment"]["endpoints"]]
            endpoint["endpoint"]["health_check_config"] = {"port_value": healthy.port}
        async with proxy([pooled, kept, closed], tmp_path) as running:

            async def all_are(flags: str) -> bool:
                found = await running.flags()
                return {name: list(hosts.values()) for name, hosts in found.items()} == {
                    made["name"]: [flags] for made in (pooled, kept, closed)
                }

            async def active() -> int:
                stats = await running.stats()
                return stats["pooled.upstream_cx_active"]

            async def nobody() -> bool:
                return not await active()

            await running.until(lambda: all_are("healthy"))
            assert await replies(running, "pooled", 1) == {b"app"}
            assert await active() == 1
            staying, ending = [await dial(running.ports[name]) for name in ("relayed", "relayed-close")]
            for peer in (staying, ending):
                peer.send(b"GET / HTTP/1.1\r\n\r\n")
                assert (await peer.response())[2] == b"app"
            healthy.answer = says(500)
            await running.until(lambda: all_are("/failed_active_hc"))
            assert await ending.rest() == b""
            await running.until(nobody)
            staying.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await staying.response())[2] == b"app"
            staying.close()
            ending.close()
