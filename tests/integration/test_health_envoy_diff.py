"""The same health checks in a real Envoy and in Tulle's sidecar: what is asked, what becomes of the hosts, who gets the
requests, and what is counted."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.sidecar import dial
from tests.support.envoy_process import EnvoyProcess
from tests.support.health_backends import (
    NOT_SERVING,
    SERVING,
    Json,
    Server,
    check,
    cluster,
    says,
    servers,
    serving,
)
from tests.support.sidecar_process import Process, free_port, get

WAIT = 60.0
V3 = "type.googleapis.com/envoy.extensions.filters"
#: What is compared of a cluster's statistics.
COUNTED = (
    *("health_check.", "membership_", "ssl.", "http2.tx_reset", "http2.rx_reset", "http2.streams_active"),
    *("upstream_cx_total", "upstream_cx_active", "upstream_rq_total", "upstream_cx_connect_fail"),
)


class Proxy:
    """``admin(path)`` is the text of an admin page; ``port`` that of the listener."""

    def __init__(self, port: int, admin: Callable[[str], str]) -> None:
        self.port = port
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


def document(clusters: list[Json], port: int) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
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
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {
        "static_resources": {
            "listeners": [{"name": "in", "address": address, "filter_chains": [chain]}],
            "clusters": clusters,
        }
    }


@asynccontextmanager
async def envoy(clusters: list[Json], directory: Path) -> AsyncIterator[Proxy]:
    process = await asyncio.to_thread(EnvoyProcess, document(clusters, 0), directory)
    try:
        yield Proxy(process.ports["in"], process.admin)
    finally:
        await asyncio.to_thread(process.stop)


@asynccontextmanager
async def tulle(clusters: list[Json], directory: Path, workers: int = 1) -> AsyncIterator[Proxy]:
    port, admin = free_port(), free_port()
    address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    file = directory / "tulle.json"
    file.write_text(json.dumps({"admin": {"address": address}, **document(clusters, port)}))
    process = Process(directory / "tulle.log", "proxy", "-c", str(file), "--workers", str(workers))
    made = Proxy(port, lambda path: get(admin, path)[1])

    async def ready() -> bool:
        assert process.popen.poll() is None, process.log()
        return await made.page("/ready") == "LIVE\n"

    try:
        await made.until(ready)
        yield made
    finally:
        await asyncio.to_thread(process.end, signal.SIGTERM)


async def first_round(proxy: Any, directory: Path) -> dict[str, Any]:
    """What each server was asked, and what came of it."""
    given = servers()
    async with serving(given):
        clusters = [cluster(name, server) for name, server in given.items()]
        clusters.append(cluster("refused", given["http-ok"], free_port()))
        async with proxy(clusters, directory) as running:

            async def answered() -> bool:
                stats = await running.stats()
                asked, passed, failed = (
                    sum(value for name, value in stats.items() if name.endswith(f".health_check.{which}"))
                    for which in ("attempt", "success", "failure")
                )
                return asked == passed + failed == len(clusters)

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
            asked = given[name].asked if name in given else []
            found[name] = {"asked": asked, "flags": flags[name], "stats": counted}
        return found


async def test_the_first_round(tmp_path: Path) -> None:
    sides = []
    for proxy in (envoy, tulle):
        directory = tmp_path / proxy.__name__
        directory.mkdir()
        sides.append(await first_round(proxy, directory))
    expected, found = sides
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
